"""Automatic mixed precision: which type, why, and the loss scaling that fp16 needs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from ctnet.devices import Device, OpenDevice, PrecisionName, choose_dtype


@dataclass(frozen=True)
class Precision:
    """The autocast type of a run, or None for float32, and why."""

    plugin: Device
    dtype: torch.dtype | None
    reason: str

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context that the forward pass runs in."""
        return nullcontext() if self.dtype is None else self.plugin.autocast(self.dtype)

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Return the loss scaler; it does nothing unless the type is fp16."""
        return self.plugin.grad_scaler(enabled=self.dtype == torch.float16)

    def sentence(self) -> str:
        """Return the choice in a few words."""
        name = "float32" if self.dtype is None else str(self.dtype).removeprefix("torch.")
        return f"{name} ({self.reason})"


def choose_precision(name: PrecisionName, device: OpenDevice) -> Precision:
    """Return the precision of a run; raises ConfigError for one that the device lacks (see `choose_dtype`)."""
    return Precision(device.plugin, *choose_dtype(device.plugin, name))
