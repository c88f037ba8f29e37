"""The cpu device."""

from __future__ import annotations

import torch
from torch import Tensor

from ctnet.devices.base import Probe, TorchDevice


class CpuDevice(TorchDevice):
    """The processor itself; every operator runs its reference here."""

    name = "cpu"

    def probe(self) -> Probe:
        """Say that there is always one."""
        return Probe(1, f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")

    def open(self, index: int) -> torch.device:
        """Return torch's cpu."""
        return torch.device("cpu")

    def fast_dtype(self) -> tuple[torch.dtype | None, str]:
        """Return bf16 where the processor multiplies it in hardware; elsewhere emulating it is many times slower."""
        if torch.cpu._is_amx_tile_supported():
            return torch.bfloat16, "the processor has AMX"
        if torch.cpu._is_avx512_bf16_supported():
            return torch.bfloat16, "the processor has AVX-512 bf16"
        return None, "the processor has no bf16 instructions"

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


def device() -> CpuDevice:
    """Return the plug-in."""
    return CpuDevice()
