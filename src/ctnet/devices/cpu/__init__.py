"""The cpu device."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from ctnet.devices.base import Probe, TorchDevice
from ctnet.devices.cpu import boxes, deform_conv, peaks, upsample
from ctnet.devices.cpu.native import select


class CpuDevice(TorchDevice):
    """The processor itself; operators run the compiled kernels where they were built, else the references."""

    name = "cpu"

    def probe(self) -> Probe:
        """Say that there is always one."""
        return Probe(1, f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")

    def open(self, index: int) -> torch.device:
        """Return torch's cpu."""
        return torch.device("cpu")

    def ddp_device_ids(self, index: int) -> list[int] | None:
        """Return None: any number of processes share the processor."""
        return None

    def fast_dtype(self) -> tuple[torch.dtype | None, str]:
        """Return bf16 where the processor multiplies it in hardware; elsewhere emulating it is many times slower."""
        if torch.cpu._is_amx_tile_supported():
            return torch.bfloat16, "the processor has AMX"
        if torch.cpu._is_avx512_bf16_supported():
            return torch.bfloat16, "the processor has AVX-512 bf16"
        return None, "the processor has no bf16 instructions"

    def register_kernels(self) -> dict[str, str]:
        """Put the compiled kernels behind the operators of this device, where there are any.

        Raises ConfigError when the environment names an instruction set that cannot run here.
        """
        status = select()
        if status.isa is None:
            return dict.fromkeys(KERNELS, f"reference ({status.reason})")
        _register()
        return dict.fromkeys(KERNELS, f"{status.isa} ({status.reason})")

    def synchronize(self) -> None:
        """Return at once: work on the cpu is done when a call returns."""

    def peak_memory(self) -> int | None:
        """Return None: torch does not count host memory."""
        return None

    def rng_state(self) -> Tensor | None:
        """Return None: the host's generator is saved anyway."""
        return None

    def set_rng_state(self, state: Tensor) -> None:
        """Ignore a state saved on another device."""


KERNELS: dict[str, Callable[..., object]] = {
    "deform_conv2d": deform_conv.forward,
    "deform_conv2d_backward": deform_conv.backward,
    "depthwise_upsample": upsample.forward,
    "depthwise_upsample_backward": upsample.backward,
    "decode_peaks": peaks.decode_peaks,
    "nms": boxes.nms,
    "soft_nms": boxes.soft_nms,
}


@functools.cache
def _register() -> None:
    for name, kernel in KERNELS.items():
        torch.library.impl(f"ctnet::{name}", "CPU", kernel)


def device() -> CpuDevice:
    """Return the plug-in."""
    return CpuDevice()
