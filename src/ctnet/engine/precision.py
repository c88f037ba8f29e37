"""Automatic mixed precision: which type, why, and the loss scaling that fp16 needs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

from ctnet.devices import Device, OpenDevice, PrecisionName, choose_dtype

LossScale = Literal["auto", "dynamic", "off"] | float


@dataclass(frozen=True)
class Precision:
    """The autocast type of a run, or None for float32, and why; `loss_scale` as in the settings of training."""

    plugin: Device
    dtype: torch.dtype | None
    reason: str
    loss_scale: LossScale = "auto"

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context that the forward pass runs in."""
        return nullcontext() if self.dtype is None else self.plugin.autocast(self.dtype)

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Return the loss scaler, which does nothing where no scaling is wanted."""
        wanted = self.dtype == torch.float16 if self.loss_scale == "auto" else self.loss_scale != "off"
        scaler = self.plugin.grad_scaler(enabled=wanted)
        if self.static_scale is not None:
            scaler.load_state_dict({**scaler.state_dict(), "scale": self.static_scale})
        return scaler

    @property
    def static_scale(self) -> float | None:
        """The loss scale that stays, None for one that follows overflows."""
        return None if isinstance(self.loss_scale, str) else self.loss_scale

    def sentence(self) -> str:
        """Return the choice in a few words."""
        name = "float32" if self.dtype is None else str(self.dtype).removeprefix("torch.")
        scaled = {"auto": "", "off": ", no loss scaling", "dynamic": ", dynamic loss scale"}
        return f"{name} ({self.reason}){scaled.get(str(self.loss_scale), f', loss scale {self.loss_scale}')}"


def choose_precision(name: PrecisionName, device: OpenDevice, loss_scale: LossScale = "auto") -> Precision:
    """Return the precision of a run; raises ConfigError for one that the device lacks (see `choose_dtype`)."""
    return Precision(device.plugin, *choose_dtype(device.plugin, name), loss_scale)
