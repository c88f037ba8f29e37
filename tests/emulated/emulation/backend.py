"""Registering the emulated device with torch, and what torch wants of a device's module."""

import atexit
import os
import time
import types

import torch

from emulation import autocast, waits
from emulation.tensor import CALLS, CURRENT, MEMORY, REFUSALS, CardTensor, to_host, write_calls

LIBRARIES = []
"""what is registered lasts as long as these"""
_OTHER_KINDS = ("sparse", "quantized", "nested", "from_file", "cudnn")


def install(name: str, card: str) -> types.ModuleType:
    """Make `name` a device of torch and return its module, `torch.<name>`."""
    module = _module(name, card)
    torch.utils.backend_registration._setup_privateuseone_for_python_backend(name, backend_module=module)
    library = torch.library.Library("aten", "IMPL")
    LIBRARIES.append(library)
    for operator_name, operator in _factories():
        library.impl(operator_name, _factory(operator), "PrivateUse1")
    library.impl("_copy_from", _copy_from, "PrivateUse1")
    library.impl("pin_memory", lambda tensor, device=None: tensor, "CPU")
    LIBRARIES.extend(autocast.register(name, library))
    atexit.register(write_calls)
    torch._C._set_multithreading_enabled(False)  # the guard of such devices knows one device to the threads of autograd
    return module


def _factories():
    """Yield the operators that make tensors from nothing but sizes and a device."""
    for full in torch._C._dispatch_get_all_op_names():
        if not full.startswith("aten::") or any(kind in full for kind in _OTHER_KINDS):
            continue
        base, _, overload = full.removeprefix("aten::").partition(".")
        try:
            operator = getattr(getattr(torch.ops.aten, base), overload or "default")
        except (AttributeError, RuntimeError):
            continue
        arguments, returns = operator._schema.arguments, operator._schema.returns
        makes_one = len(returns) == 1 and "Tensor" in str(returns[0].type)
        takes_none = not any("Tensor" in str(argument.type) for argument in arguments)
        if makes_one and takes_none and any(argument.name == "device" for argument in arguments):
            yield full.removeprefix("aten::"), operator


def _factory(operator):
    def kernel(*args, **kwargs):
        CALLS[str(operator)] += 1
        options = {key: value for key, value in kwargs.items() if key != "pin_memory"}
        index = None if options.get("device") is None else torch.device(options["device"]).index
        for refuse in REFUSALS:
            refuse(operator, args, kwargs)
        return CardTensor(operator(*args, **{**options, "device": torch.device("cpu")}), index)

    return kernel


def _copy_from(source, target, non_blocking=False):
    waits.count(torch.ops.aten.copy_.default, (target, source, non_blocking), {})
    to_host(target).copy_(to_host(source))
    return target


def _visible(name):
    chosen = os.environ.get({"npu": "ASCEND_RT_VISIBLE_DEVICES", "sdaa": "SDAA_VISIBLE_DEVICES"}[name])
    return DEVICES if chosen is None else len([i for i in chosen.split(",") if i.isdecimal() and int(i) < DEVICES])


class _Event:
    def __init__(self, enable_timing=False, **_):
        self.time = 0.0

    def record(self, stream=None):
        self.time = time.perf_counter()

    def synchronize(self):
        pass

    def elapsed_time(self, other):
        return (other.time - self.time) * 1000


DEVICES = 2


def _module(name, card):
    def set_device(device):
        index = torch.device(device).index if isinstance(device, (str, torch.device)) else int(device)
        if index not in range(_visible(name)):
            raise RuntimeError(f"invalid {name} device {device!r}")
        CURRENT["device"] = index

    module = types.ModuleType(f"torch.{name}")
    functions = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_is_in_bad_fork": lambda: False,
        "device_count": lambda: _visible(name),
        "current_device": lambda: CURRENT["device"],
        "set_device": set_device,
        "get_device_name": lambda device=None: card,
        "synchronize": lambda device=None: (CALLS.update(["synchronize"]), waits.note("synchronize")),
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: torch.set_rng_state(state),
        "max_memory_allocated": lambda device=None: MEMORY["peak"],
        "memory_allocated": lambda device=None: MEMORY["now"],
        "get_amp_supported_dtype": lambda: [torch.float16, torch.bfloat16, torch.float32],
        "is_bf16_supported": lambda: True,
        "Event": _Event,
    }
    for key, function in functions.items():
        setattr(module, key, function)
    return module
