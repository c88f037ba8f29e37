"""What ctnet needs of a device. Built-in and third-party devices look the same from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, fx, nn

from ctnet.devices.fold import fold_batch_norm
from ctnet.devices.reduced import ReducedPrecision
from ctnet.errors import ConfigError

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
REDUCED = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Probe:
    """Whether this machine has the device: how many, or in one sentence why not."""

    count: int
    reason: str


@dataclass(frozen=True)
class Prepared:
    """A network ready for inference: float32 pictures in, float32 head outputs out."""

    network: nn.Module
    precision: str  # what it computes in, such as `bfloat16` or `float32, compiled`
    reason: str  # why that, in a few words


class Device(Protocol):
    """One kind of device. An entry point in the group `ctnet.devices` names a factory that returns one."""

    @property
    def name(self) -> str:
        """What is typed after --device."""

    def probe(self) -> Probe:
        """Say whether this machine can use it and why. Never raises, allocates nothing."""

    def open(self, index: int) -> torch.device:
        """Claim one card for this process and set the switches its numerics need."""

    @property
    def ddp_backend(self) -> str:
        """The backend of torch.distributed that its processes talk through: gloo, nccl, ..."""

    def ddp_device_ids(self, index: int) -> list[int] | None:
        """Return what DistributedDataParallel is told of a card, or None where processes share the one device."""

    def fast_dtype(self) -> tuple[torch.dtype | None, str]:
        """Return the reduced precision that trains faster here, or None, and the reason in a few words."""

    def autocast_dtypes(self) -> tuple[torch.dtype, ...]:
        """Return the reduced precisions that autocast supports here, best first."""

    def register_kernels(self) -> dict[str, str]:
        """Register this device's operator kernels; return per operator which implementation runs and why."""

    def arrange(self, network: nn.Module, *, channels_last: bool) -> nn.Module:
        """Return the network in the memory format that trains well on this device, on the host."""

    def prepare(self, network: nn.Module, where: torch.device, *, precision: PrecisionName, compile: bool) -> Prepared:
        """Return the network made ready for inference on `where`; the network itself is left as it is.

        Raises ConfigError for a precision that the device lacks.
        """

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

    name = "torch"
    ddp_backend = "gloo"

    def ddp_device_ids(self, index: int) -> list[int] | None:
        """Return the card's number."""
        return [index]

    def autocast_dtypes(self) -> tuple[torch.dtype, ...]:
        """Return what torch's autocast accepts."""
        return (torch.bfloat16, torch.float16)

    def register_kernels(self) -> dict[str, str]:
        """Register nothing: the references run."""
        return {}

    def arrange(self, network: nn.Module, *, channels_last: bool) -> nn.Module:
        """Return the network with channels-last weights if asked for."""
        return network.to(memory_format=torch.channels_last) if channels_last else network  # type: ignore[call-overload,no-any-return]

    def prepare(self, network: nn.Module, where: torch.device, *, precision: PrecisionName, compile: bool) -> Prepared:
        """Fold norms into convolutions, set channels-last and the precision, and compile if asked to."""
        dtype, reason = self._inference_dtype(precision)
        ready: nn.Module = self.arrange(fold_batch_norm(network), channels_last=True).to(where)
        if dtype is not None:
            assert isinstance(ready, fx.GraphModule)
            ready = ReducedPrecision(ready, dtype)
        if compile:
            # frozen weights are constants in the layout that the kernels want
            ready = torch.compile(ready, options={"freezing": True})  # type: ignore[assignment]
        name = "float32" if dtype is None else str(dtype).removeprefix("torch.")
        return Prepared(ready.eval(), f"{name}, compiled" if compile else name, reason)

    def _inference_dtype(self, precision: PrecisionName) -> tuple[torch.dtype | None, str]:
        if precision == "fp32":
            return None, "asked for"
        if precision == "auto":
            return self.fast_dtype()
        dtype = REDUCED[precision]
        if dtype not in self.autocast_dtypes():
            raise ConfigError(f"{self.name} does not compute in {precision}", hint="use --precision auto or fp32")
        return dtype, "asked for"

    def fast_dtype(self) -> tuple[torch.dtype | None, str]:
        """Return float32: what every device has."""
        return None, "nothing faster is known"
