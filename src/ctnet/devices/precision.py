"""Which type a device computes in: one policy for training and inference."""

from __future__ import annotations

from typing import Protocol

import torch

from ctnet.devices.base import REDUCED
from ctnet.errors import ConfigError
from ctnet.precision import PrecisionName


class _Computing(Protocol):
    """The members of a device that decide."""

    @property
    def name(self) -> str: ...
    def fast_dtype(self) -> tuple[torch.dtype | None, str]: ...
    def autocast_dtypes(self) -> tuple[torch.dtype, ...]: ...


def choose_dtype(device: _Computing, precision: PrecisionName) -> tuple[torch.dtype | None, str]:
    """Return the reduced type to compute in, or None for float32, and the reason in a few words.

    `auto` takes what the device runs fast. Raises ConfigError for a type that the device cannot autocast to.
    """
    if precision == "auto":
        return device.fast_dtype()
    if precision == "fp32":
        return None, "as requested"
    if REDUCED[precision] not in device.autocast_dtypes():
        raise ConfigError(f"{device.name} does not compute in {precision}", hint="use --precision auto or fp32")
    return REDUCED[precision], "as requested"
