"""Automatic mixed precision: which type, why, and the loss scaling that fp16 needs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

from ctnet.devices import REDUCED, OpenDevice
from ctnet.errors import ConfigError


@dataclass(frozen=True)
class Precision:
    """The autocast type of a run, or None for float32, and why."""

    device_type: str
    dtype: torch.dtype | None
    reason: str

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context that the forward pass runs in."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device_type, self.dtype)

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Return the loss scaler; it does nothing unless the type is fp16."""
        return torch.amp.GradScaler(self.device_type, enabled=self.dtype == torch.float16)

    def sentence(self) -> str:
        """Return the choice in a few words."""
        name = "float32" if self.dtype is None else str(self.dtype).removeprefix("torch.")
        return f"{name} ({self.reason})"


def choose_precision(mode: Literal["auto", "off", "bf16", "fp16"], device: OpenDevice) -> Precision:
    """Return the precision of a run; `auto` takes what the device runs fast.

    Raises ConfigError when the device cannot autocast to the type asked for.
    """
    kind = device.torch_device.type
    if mode == "off":
        return Precision(kind, None, "amp is off")
    if mode == "auto":
        return Precision(kind, *device.plugin.fast_dtype())
    if REDUCED[mode] not in device.plugin.autocast_dtypes():
        raise ConfigError(f"{device.plugin.name} has no autocast to {mode}", hint="use --amp auto or off")
    return Precision(kind, REDUCED[mode], "asked for")
