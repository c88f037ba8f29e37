"""The contract of a device, built-in or third-party."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ctnet.precision import PrecisionName

REDUCED = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Probe:
    """The number of such devices in this machine, or in one sentence why there is none."""

    count: int
    reason: str
    device_names: tuple[str, ...] = ()
    """name of each device"""
    versions: Mapping[str, str] = field(default_factory=dict)
    """versions of drivers and packages, by name"""


@dataclass(frozen=True)
class Prepared:
    """A network ready for inference: float32 images in, float32 head outputs out."""

    network: nn.Module
    precision: str  # such as `bfloat16` or `float32, compiled`
    reason: str  # of the precision, in a few words


class Device(Protocol):
    """One kind of device. An entry point in the group `ctnet.devices` names a factory that returns one.

    Loading the entry point must not import the vendor's package; `probe` and `open` may.
    """

    @property
    def name(self) -> str:
        """Name of the device for --device."""

    @property
    def dispatch_key(self) -> str:
        """The dispatch key of the device's kernels in torch: `CPU`, `CUDA`, `PrivateUse1`."""

    @property
    def ddp_backend(self) -> str:
        """The backend of torch.distributed that joins processes on this device: gloo, nccl, hccl, tccl."""

    @property
    def visible_env(self) -> str | None:
        """The environment variable that chooses among the devices, or None where there is nothing to choose."""

    @property
    def static_shapes(self) -> bool:
        """True where a new size of input costs a compilation: batches and targets are then filled up to one size."""

    @property
    def pinned_memory(self) -> bool:
        """True where copies from page-locked host memory overlap with work."""

    @property
    def fused_optimizer(self) -> bool:
        """True where torch updates all weights in one pass over memory (`fused=True` of its optimizers)."""

    def probe(self) -> Probe:
        """Return how many of them this machine has, and why. Never raises, allocates nothing."""

    def open(self, index: int) -> torch.device:
        """Claim one device for this process and set the switches its numerics need."""

    def switches(self) -> dict[str, str]:
        """Return the settings that change numbers on this device, by name, as `open` leaves or will leave them."""

    def ddp_device_ids(self, index: int) -> list[int] | None:
        """Return the `device_ids` of DistributedDataParallel, or None where processes share the one device."""

    def fast_dtype(self) -> tuple[torch.dtype | None, str]:
        """Return the reduced precision that trains faster here, or None, and the reason in a few words."""

    def autocast_dtypes(self) -> tuple[torch.dtype, ...]:
        """Return the reduced precisions that autocast supports here, best first."""

    def autocast(self, dtype: torch.dtype) -> AbstractContextManager[object]:
        """Return the context in which forward passes compute in a reduced precision where that is safe."""

    def grad_scaler(self, *, enabled: bool) -> torch.amp.GradScaler:
        """Return the loss scaler that fp16 needs; its `state_dict` is the one of `torch.amp.GradScaler`.

        A checkpoint can therefore be resumed on another kind of device. A scaler that is not enabled does nothing.
        """

    def register_kernels(self) -> dict[str, str]:
        """Register this device's operator kernels; return per operator which implementation runs and why."""

    def arrange(self, network: nn.Module, *, channels_last: bool) -> nn.Module:
        """Return the network in the memory format that trains well on this device, on the host."""

    def prepare(self, network: nn.Module, where: torch.device, *, precision: PrecisionName, compile: bool) -> Prepared:
        """Return the network made ready for inference on `where`; the original is not changed.

        Raises ConfigError for a precision that the device lacks.
        """

    def synchronize(self) -> None:
        """Wait until all work handed to the device is done."""

    def fetch(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Begin to copy a small tensor to the host; the function that comes back waits for that copy alone.

        Work that is handed to the device afterwards goes on meanwhile.
        """

    def profiler(self, folder: Path, wait: int, warmup: int, recorded: int) -> Any:
        """Return a profiler with `start`, `step` and `stop`, which writes a trace into the folder.

        It lets `wait` steps pass, warms up for `warmup` steps and records the next ones.
        """

    def peak_memory(self) -> int | None:
        """Return the most bytes allocated so far, or None where the device does not count."""

    def rng_state(self) -> Tensor | None:
        """Return the state of the device's own random generator, on the host, or None where the host's serves."""

    def set_rng_state(self, state: Tensor) -> None:
        """Restore what `rng_state` of the same kind of device returned."""
