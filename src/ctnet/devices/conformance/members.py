"""The small members of the contract: values and effects of each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from ctnet.devices.conformance.result import Check, Skip, need
from ctnet.devices.registry import OpenDevice
from ctnet.ops.table import REQUIRED

_BYTES = 8 << 20
_NO_KERNEL = "reference"


def member_checks(device: OpenDevice) -> Iterator[tuple[str, Check]]:
    """Yield a check per member or two."""
    for name, check in (
        ("names and flags", _names),
        ("probe", _probe),
        ("tensors", _tensors),
        ("precisions", _precisions),
        ("register_kernels", _kernels),
        ("fetch", _fetch),
        ("peak_memory", _memory),
        ("rng_state", _rng),
    ):
        yield name, partial(check, device)


def _names(device: OpenDevice) -> str:
    plugin = device.plugin
    for text in (plugin.name, plugin.dispatch_key, plugin.ddp_backend):
        need(isinstance(text, str) and bool(text), f"a word expected, got {text!r}")
    need(plugin.visible_env is None or isinstance(plugin.visible_env, str), "visible_env is a name or None")
    for flag in (plugin.static_shapes, plugin.pinned_memory, plugin.fused_optimizer):
        need(isinstance(flag, bool), f"True or False expected, got {flag!r}")
    switches = plugin.switches()
    need(all(isinstance(text, str) for pair in switches.items() for text in pair), "switches are words to words")
    return f"{plugin.dispatch_key}, {plugin.ddp_backend}"


def _probe(device: OpenDevice) -> str:
    first, again = device.plugin.probe(), device.plugin.probe()
    need(first == again, "two probes differ")
    need(first.count > 0, "the device is open but the probe finds none")
    need(len(first.device_names) in (0, first.count), f"{first.count} devices and {len(first.device_names)} names")
    return f"{first.count} found"


def _tensors(device: OpenDevice) -> str:
    there = torch.arange(6.0).reshape(2, 3).to(device.torch_device)
    need(there.device == device.torch_device, f"tensors land on {there.device}, not {device.torch_device}")
    there.t()[0] += 1
    device.plugin.synchronize()
    need(there.cpu().tolist() == [[1, 1, 2], [4, 4, 5]], "a view does not share memory")
    return str(there.device)


def _precisions(device: OpenDevice) -> str:
    dtypes = device.plugin.autocast_dtypes()
    fast, reason = device.plugin.fast_dtype()
    need(set(dtypes) <= {torch.bfloat16, torch.float16}, f"reduced precisions expected, got {dtypes}")
    need(fast is None or fast in dtypes, f"{fast} is fast but not among the autocast types")
    need(bool(reason), "no reason is given")
    for dtype in dtypes:
        with device.plugin.autocast(dtype):
            ones = torch.ones(3, 3, device=device.torch_device)
            need((ones @ ones).dtype == dtype, f"products in autocast are {(ones @ ones).dtype}, not {dtype}")
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes) or "float32 only"


def _kernels(device: OpenDevice) -> str:
    kernels = device.plugin.register_kernels()
    need(set(REQUIRED) <= set(kernels), f"no kernel is named for {sorted(set(REQUIRED) - set(kernels))}")
    own = [name for name in REQUIRED if not kernels[name].startswith(_NO_KERNEL)]
    for name in own:
        registered = torch._C._dispatch_has_kernel_for_dispatch_key(f"ctnet::{name}", device.plugin.dispatch_key)
        need(registered, f"{name}: no kernel is registered for {device.plugin.dispatch_key}")
    return f"{len(own)} of its own, {len(REQUIRED) - len(own)} references"


def _fetch(device: OpenDevice) -> str:
    there = torch.arange(3.0).to(device.torch_device)
    wait = device.plugin.fetch(there > 0)
    torch.ones(64, 64, device=device.torch_device).mm(torch.ones(64, 64, device=device.torch_device))
    copy = wait()
    need(copy.device.type == "cpu", f"the copy is on {copy.device}")
    need(copy.tolist() == [False, True, True], f"the copy is {copy.tolist()}")
    return "as it was"


def _memory(device: OpenDevice) -> str:
    if device.plugin.peak_memory() is None:
        raise Skip("the device does not count")
    held = torch.ones(_BYTES, dtype=torch.uint8, device=device.torch_device)
    peak = device.plugin.peak_memory()
    need(peak is not None and peak >= len(held), f"{len(held)} bytes are held and the peak is {peak}")
    return f"{peak} bytes"


def _rng(device: OpenDevice) -> str:
    state = device.plugin.rng_state()
    if state is None:
        device.plugin.set_rng_state(torch.zeros(1, dtype=torch.uint8))  # must be harmless
        state_of_host = torch.get_rng_state()
        first = torch.randn(5, device=device.torch_device)
        torch.set_rng_state(state_of_host)
        need(torch.equal(first, torch.randn(5, device=device.torch_device)), "the host's generator does not serve")
        return "the host's"
    need(state.device.type == "cpu", "the state is not on the host")
    first = torch.randn(5, device=device.torch_device)
    device.plugin.set_rng_state(state)
    need(torch.equal(first, torch.randn(5, device=device.torch_device)), "the same state gives other numbers")
    return f"{len(state)} bytes"
