"""What ctnet needs of a device. Built-in and third-party devices look the same from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Probe:
    """Whether this machine has the device: how many, or in one sentence why not."""

    count: int
    reason: str


class Device(Protocol):
    """One kind of device. An entry point in the group `ctnet.devices` names a factory that returns one."""

    @property
    def name(self) -> str:
        """What is typed after --device."""

    def probe(self) -> Probe:
        """Say whether this machine can use it and why. Never raises, allocates nothing."""

    def open(self, index: int) -> torch.device:
        """Claim one card for this process and set the switches its numerics need."""

    def fast_dtype(self) -> tuple[torch.dtype | None, str]:
        """Return the reduced precision that trains faster here, or None, and the reason in a few words."""

    def autocast_dtypes(self) -> tuple[torch.dtype, ...]:
        """Return the reduced precisions that autocast supports here, best first."""

    def register_kernels(self) -> dict[str, str]:
        """Register this device's operator kernels; return per operator which implementation runs and why."""

    def prepare(self, network: nn.Module, *, channels_last: bool) -> nn.Module:
        """Return the network in the memory format that suits this device, on the host."""

    def synchronize(self) -> None:
        """Wait until all work handed to the device is done."""

    def peak_memory(self) -> int | None:
        """Return the most bytes allocated so far, or None where the device does not count."""

    def rng_state(self) -> Tensor | None:
        """Return the state of the device's own random generator, or None where the host's serves."""

    def set_rng_state(self, state: Tensor) -> None:
        """Restore what `rng_state` returned."""


class TorchDevice:
    """What devices that torch itself supports have in common."""

    def autocast_dtypes(self) -> tuple[torch.dtype, ...]:
        """Return what torch's autocast accepts."""
        return (torch.bfloat16, torch.float16)

    def register_kernels(self) -> dict[str, str]:
        """Register nothing: the references run."""
        return {}

    def prepare(self, network: nn.Module, *, channels_last: bool) -> nn.Module:
        """Return the network with channels-last weights if asked for."""
        return network.to(memory_format=torch.channels_last) if channels_last else network  # type: ignore[call-overload,no-any-return]
