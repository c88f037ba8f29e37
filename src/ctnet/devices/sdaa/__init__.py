"""The sdaa device: Tecorigin accelerators through torch_sdaa, which comes with the vendor's containers.

It uses only what torch 2.7 has: no torch_sdaa for a later version is known.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from ctnet.devices import fixed_sizes, host
from ctnet.devices.base import Probe
from ctnet.devices.torch_device import Accelerator, kernels_in, register
from ctnet.devices.vendor import probe_vendor
from ctnet.errors import ConfigError
from ctnet.ops.table import REQUIRED
from ctnet.precision import PrecisionName

_INSTALL = "it comes with the vendor's images, not from PyPI"

# The vendor's CenterNet needs the second: convolutions of float32 are computed in fp16 otherwise.
EXACT_CONVOLUTIONS = {"TORCH_SDAA_CONV_USE_FP32": "1", "TORCH_SDAA_CONV2D_BACKWARD_USE_FP32": "1"}


class SdaaDevice(Accelerator):
    """Tecorigin accelerators; each core of an accelerator that has its own memory is one device."""

    name = torch_type = "sdaa"
    dispatch_key = "PrivateUse1"
    ddp_backend = "tccl"
    visible_env = "SDAA_VISIBLE_DEVICES"

    def probe(self) -> Probe:
        """Count the devices that torch_sdaa finds."""
        return probe_vendor("torch_sdaa", _torch_sdaa, "sdaa", _INSTALL)

    def open(self, index: int) -> torch.device:
        """Claim a device; convolutions of float32 stay float32 unless the environment sets it otherwise."""
        _torch_sdaa()
        return super().open(index)

    def switches(self) -> dict[str, str]:
        """Return the variables that keep convolutions in float32, as set or as `open` will set them."""
        return {name: os.environ.get(name, value) for name, value in EXACT_CONVOLUTIONS.items()}

    def autocast_dtypes(self) -> tuple[torch.dtype, ...]:
        """Return fp16: bf16 is computed on the same unit, clipped to its range."""
        return (torch.float16,)

    def fast_dtype(self) -> tuple[torch.dtype | None, str]:
        """Return fp16."""
        return torch.float16, "the device multiplies fp16, with loss scaling"

    def inference_dtype(self, precision: PrecisionName) -> tuple[torch.dtype | None, str]:
        """Return float32 unless another is requested: the vendor documents inference in no other type."""
        if precision == "auto":
            return None, "the vendor documents inference in float32 alone"
        return super().inference_dtype(precision)

    def autocast(self, dtype: torch.dtype) -> AbstractContextManager[object]:
        """Return the vendor's context."""
        context: AbstractContextManager[object] = self.module.amp.autocast(dtype=dtype)
        return context

    def grad_scaler(self, *, enabled: bool) -> torch.amp.GradScaler:
        """Return the vendor's scaler."""
        scaler: torch.amp.GradScaler = self.module.amp.GradScaler(enabled=enabled)
        return scaler

    def register_kernels(self) -> dict[str, str]:
        """Register operators made of what torch_sdaa has, tried on the device first; what fails runs on the CPU."""
        _torch_sdaa()
        own = kernels_in(__name__) | fixed_sizes.KERNELS
        tried = host.tried(own, torch.device(self.torch_type, self.module.current_device()))
        lacking = host.round_trips("roi_align", "roi_align_backward")  # sums of rows that the device does not document
        register(self.dispatch_key, tried.kernels | lacking | host.KERNELS)
        reasons = dict.fromkeys(REQUIRED, "reference (operators of torch that the vendor documents)")
        reasons |= dict.fromkeys(own, "torch (gathered rows, fixed sizes)") | dict.fromkeys(
            fixed_sizes.KERNELS, fixed_sizes.REASON
        )
        trips = dict.fromkeys(lacking, "CPU round trip (the device documents no sums of rows)")
        return reasons | tried.failures | trips | dict.fromkeys(host.KERNELS, host.REASON)

    def compile(self, network: nn.Module) -> nn.Module:
        """Raise ConfigError: the vendor's compiler is known to fail on whole networks."""
        raise ConfigError(
            "sdaa does not compile networks",
            reason="the vendor's compiler is known to fail on whole networks",
            hint="leave --compile out",
        )


def _torch_sdaa() -> Any:
    for name, value in EXACT_CONVOLUTIONS.items():  # read when the package is imported
        os.environ.setdefault(name, value)
    import torch_sdaa

    return torch_sdaa


def device() -> SdaaDevice:
    """Return the plug-in."""
    return SdaaDevice()
