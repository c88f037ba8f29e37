"""Base classes of devices that torch can address."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from ctnet.devices.base import Prepared
from ctnet.devices.compiled import Compiled
from ctnet.devices.fold import fold_batch_norm
from ctnet.devices.precision import choose_dtype
from ctnet.devices.profiling import torch_profiler
from ctnet.devices.reduced import ReducedPrecision
from ctnet.ops.table import OPERATORS, REQUIRED
from ctnet.precision import PrecisionName

Kernels = dict[str, Callable[..., object]]
_REGISTERED: dict[tuple[str, str], Callable[..., object]] = {}


class TorchDevice:
    """Members that suit most devices; the defaults are those of a CPU."""

    name = "torch"
    torch_type = "cpu"
    """type of the device in torch, as in `torch.device(torch_type)`"""
    dispatch_key = "CPU"
    ddp_backend = "gloo"
    visible_env: str | None = None
    static_shapes = False
    pinned_memory = False
    fused_optimizer = False
    channels_last = True
    """whether torch's channels-last memory format exists and pays here"""

    def switches(self) -> dict[str, str]:
        """Return no switches."""
        return {}

    def ddp_device_ids(self, index: int) -> list[int] | None:
        """Return None: processes share the CPU."""
        return None

    def autocast_dtypes(self) -> tuple[torch.dtype, ...]:
        """Return what torch's autocast accepts."""
        return (torch.bfloat16, torch.float16)

    def autocast(self, dtype: torch.dtype) -> AbstractContextManager[object]:
        """Return torch's own context."""
        return torch.autocast(self.torch_type, dtype)

    def grad_scaler(self, *, enabled: bool) -> torch.amp.GradScaler:
        """Return torch's own scaler."""
        return torch.amp.GradScaler(self.torch_type, enabled=enabled)

    def register_kernels(self) -> dict[str, str]:
        """Register nothing: the references run."""
        return dict.fromkeys(REQUIRED, "reference (this device has no kernels)")

    def arrange(self, network: nn.Module, *, channels_last: bool) -> nn.Module:
        """Return the network with channels-last weights if requested and if the device has them."""
        if not (channels_last and self.channels_last):
            return network
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def prepare(self, network: nn.Module, where: torch.device, *, precision: PrecisionName, compile: bool) -> Prepared:
        """Fold norms into convolutions, set memory format and precision, and compile if requested."""
        dtype, reason = self.inference_dtype(precision)
        ready: nn.Module = self.arrange(fold_batch_norm(network), channels_last=True).to(where)
        if dtype is not None:
            assert isinstance(ready, fx.GraphModule)
            ready = ReducedPrecision(ready, dtype)
        if compile:
            ready = self.compile(ready)
        name = "float32" if dtype is None else str(dtype).removeprefix("torch.")
        return Prepared(ready.eval(), f"{name}, compiled" if compile else name, reason)

    def inference_dtype(self, precision: PrecisionName) -> tuple[torch.dtype | None, str]:
        """Return the reduced type of inference, or None for float32, and the reason: that of training."""
        return choose_dtype(self, precision)

    def compile(self, network: nn.Module) -> nn.Module:
        """Return the network compiled by torch, its weights frozen."""
        return Compiled(network)

    def fast_dtype(self) -> tuple[torch.dtype | None, str]:
        """Return float32, which every device computes in."""
        return None, "nothing faster is known"

    def synchronize(self) -> None:
        """Return immediately: a call on the CPU returns when its work is done."""

    def fetch(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Return a function that returns the tensor, which is on the host."""
        return lambda: tensor

    def profiler(self, folder: Path, wait: int, warmup: int, recorded: int) -> Any:
        """Return torch's profiler, which writes `trace.json` (chrome://tracing, Perfetto) and `operators.txt`."""
        return torch_profiler(folder, wait, warmup, recorded)

    def peak_memory(self) -> int | None:
        """Return None: torch does not count host memory."""
        return None

    def rng_state(self) -> Tensor | None:
        """Return None: the generator of the CPU is saved anyway."""
        return None

    def set_rng_state(self, state: Tensor) -> None:
        """Do nothing: the generator of the CPU serves."""


class Accelerator(TorchDevice):
    """An accelerator that torch offers as a module of its name: `torch.cuda`, `torch.npu`, `torch.sdaa`."""

    pinned_memory = True

    @property
    def module(self) -> Any:
        """Torch's module of this device; it exists once the vendor's package is imported."""
        return torch.get_device_module(self.torch_type)

    def ddp_device_ids(self, index: int) -> list[int] | None:
        """Return the index of the device: each process has its own."""
        return [index]

    def open(self, index: int) -> torch.device:
        """Claim a device."""
        self.module.set_device(index)
        return torch.device(self.torch_type, index)

    def synchronize(self) -> None:
        """Wait for the current device."""
        self.module.synchronize()

    def fetch(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Copy into page-locked memory and mark the place in the queue of work; wait for that mark."""
        if tensor.device.type == "cpu":
            return super().fetch(tensor)
        copy = torch.empty(tensor.shape, dtype=tensor.dtype)
        copy = copy.pin_memory() if self.pinned_memory else copy
        copy.copy_(tensor.detach(), non_blocking=True)
        done = self.module.Event()
        done.record()

        def wait() -> Tensor:
            done.synchronize()
            return copy

        return wait

    def peak_memory(self) -> int | None:
        """Return torch's peak of allocated bytes on the current device."""
        return int(self.module.max_memory_allocated())

    def rng_state(self) -> Tensor | None:
        """Return the current device's generator state."""
        state: Tensor = self.module.get_rng_state()
        return state.cpu()

    def set_rng_state(self, state: Tensor) -> None:
        """Restore the current device's generator state."""
        self.module.set_rng_state(state)


def kernels_in(package: str) -> Kernels:
    """Return the kernels in the folder of a device, by operator: the functions that the table names, where they exist.

    `package` is the folder as a package, such as `ctnet.devices.cpu`.
    """
    found: Kernels = {}
    for name, row in OPERATORS.items():
        file, function = row.kernel.split(".")
        if find_spec(f"{package}.{file}") is not None:
            kernel = getattr(import_module(f"{package}.{file}"), function, None)
            found |= {} if kernel is None else {name: kernel}
    return found


def register(dispatch_key: str, kernels: Kernels) -> None:
    """Register kernels of operators for a dispatch key, each once.

    Raises RuntimeError where another plug-in has registered one, and for a name that the table of operators lacks.
    """
    unknown = sorted(set(kernels) - set(OPERATORS))
    if unknown:
        raise RuntimeError(f"ctnet has no operator {unknown[0]}; it has {', '.join(OPERATORS)}")
    for name, kernel in kernels.items():
        if (dispatch_key, name) not in _REGISTERED:
            torch.library.impl(f"ctnet::{name}", dispatch_key, kernel)
            _REGISTERED[dispatch_key, name] = kernel
        if _REGISTERED[dispatch_key, name] is not kernel:
            raise RuntimeError(f"{name} has another plug-in's kernel for {dispatch_key} already")
