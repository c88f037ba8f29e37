"""The state of training, in memory and on disk."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ctnet._version import __version__
from ctnet.config import Recipe
from ctnet.data.loader import explaining_deaths
from ctnet.devices import OpenDevice
from ctnet.engine.freeze import freeze
from ctnet.engine.optimizer import WeightAverage, build_optimizer, restore_optimizer
from ctnet.engine.precision import Precision
from ctnet.engine.record import Record
from ctnet.errors import WeightsError
from ctnet.families import Family
from ctnet.files import replacing
from ctnet.nn import synchronise_norms
from ctnet.types import Category
from ctnet.weights.containers.torch_file import explaining_full_disks
from ctnet.weights.ctnet_file import STATE_SCHEMA, described


@dataclass
class TrainingState:
    """The network, its family, its optimizer and its progress.

    `step` counts finished updates; `evaluation_due` is set while an epoch's evaluation has not been finished; `frozen`
    is a sentence about weights that stay.
    """

    family: Family
    network: nn.Module
    average: WeightAverage | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    evaluation_due: bool = False
    best: dict[str, Any] = field(default_factory=dict)
    record: Record = field(default_factory=Record)
    frozen: str = ""

    @property
    def evaluated_network(self) -> nn.Module:
        """The network whose weights are scored and deployed: the average where there is one."""
        return self.network if self.average is None else self.average.network

    def running_statistics(self) -> list[Tensor]:
        """Return the batch norms' running means and variances, of the average as well: views, not copies.

        Everything else is equal on all ranks without communication.
        """
        averages = [] if self.average is None else _statistics_of(self.average.network)
        return [*self.network_statistics(), *averages]

    def network_statistics(self) -> list[Tensor]:
        """Return those of the network alone."""
        return _statistics_of(self.network)

    def set_statistics(self, values: Tensor) -> None:
        """Set the running statistics to `values`, all of them in one dimension. Raises ValueError for other sizes."""
        statistics = self.running_statistics()
        sizes = [tensor.numel() for tensor in statistics]
        if values.shape != (sum(sizes),):
            raise ValueError(f"{tuple(values.shape)} instead of {sum(sizes)} running statistics")
        with torch.no_grad():
            for tensor, part in zip(statistics, torch.split(values, sizes), strict=True):
                tensor.copy_(part.view_as(tensor))


def _statistics_of(network: nn.Module) -> list[Tensor]:
    return [buffer for buffer in network.buffers() if buffer.is_floating_point()]


def seed_generators(seed: int) -> None:
    """Set the host's random generators, from which the weights of a new network are drawn."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def new_state(
    family: Family, num_classes: int, device: OpenDevice, precision: Precision, lr: float, *, synchronised: bool = False
) -> TrainingState:
    """Return the state of a training that has not begun: random weights on the device, ready to be updated.

    `synchronised` computes norms over the batches of all processes.
    """
    recipe, family.static_shapes = family.recipe, device.plugin.static_shapes
    network = family.build(num_classes)
    if synchronised:
        network = synchronise_norms(network)
    network = device.plugin.arrange(network, channels_last=recipe.train.channels_last).to(device.torch_device).train()
    frozen = freeze(network, recipe.train.freeze)
    return TrainingState(
        family=family,
        network=network,
        average=WeightAverage(network, recipe.train.ema) if recipe.train.ema else None,
        optimizer=build_optimizer(network, recipe.optimizer, lr, fused=device.plugin.fused_optimizer),
        scaler=precision.grad_scaler(),
        frozen=frozen,
    )


def save_state(
    path: Path,
    state: TrainingState,
    recipe: Recipe,
    categories: tuple[Category, ...],
    data: str,
    device: OpenDevice,
    statistics: Sequence[Tensor] = (),
) -> None:
    """Write the state, whole or not at all: tensors and plain containers only. Raises StorageError.

    `statistics` are the running statistics of each of several ranks, (N,), whose means the networks hold.
    """
    content = {
        "schema": STATE_SCHEMA,
        "ctnet": __version__,
        **described(recipe, categories, state.family.keypoints),
        "data": data,
        "world_size": len(statistics) or 1,
        "step": state.step,
        "evaluation_due": state.evaluation_due,
        "best": state.best,
        "record": state.record.content(),
        "model": state.network.state_dict(),
        "ema": {} if state.average is None else state.average.network.state_dict(),
        "ema_updates": 0 if state.average is None else state.average.updates,
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "rng": _rng_state(device),
    } | ({"statistics": torch.stack(list(statistics))} if statistics else {})
    with replacing(path) as temporary, explaining_full_disks(), explaining_deaths():
        torch.save(_on_host(content), temporary)


def restore_state(
    content: dict[str, Any], state: TrainingState, device: OpenDevice, source: object, rank: int = 0, ranks: int = 1
) -> None:
    """Put what `save_state` wrote back into freshly built parts. Raises WeightsError, `source` naming the file.

    Each of as many ranks as saved it gets its own running statistics, each of another number the means.
    """
    # runs of version 0.1 have no record; single processes have no statistics beside the networks'
    average, content = state.average, {"record": None, "statistics": None, **content}
    parts: dict[str, Callable[[Any], object]] = {
        "model": state.network.load_state_dict,
        "ema": average.network.load_state_dict if average else lambda _: None,
        "statistics": lambda saved: _restore_statistics(saved, state, rank, ranks),
        "optimizer": lambda saved: restore_optimizer(state.optimizer, saved),
        "scaler": lambda saved: _restore_scaler(saved, state.scaler),
        "rng": lambda saved: _restore_generators(saved, device),
        "record": lambda saved: setattr(state, "record", Record.restored(saved)),
    }
    for key, restore in parts.items():
        try:
            restore(content[key])
        except MemoryError:
            raise
        except Exception as error:  # torch raises whatever a damaged state leads to
            raise WeightsError(
                "the training state does not fit the run", file=source, key=key,
                got=" ".join(str(error).split())[:300] or type(error).__name__,
                hint="continue from a numbered checkpoint, or train anew with --weights and the best weights",
            ) from None  # fmt: skip
    if average is not None:
        average.updates = content["ema_updates"]
    state.step = content["step"]
    state.evaluation_due = content["evaluation_due"]
    state.best = content["best"]


def _restore_statistics(saved: Tensor | None, state: TrainingState, rank: int, ranks: int) -> None:
    if saved is not None and len(saved) == ranks:
        state.set_statistics(saved[rank])


def _restore_scaler(saved: dict[str, Any], scaler: torch.amp.GradScaler) -> None:
    if saved:
        numbers = {"scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"}
        if not all(type(saved[name]) in (int, float) and 0 <= saved[name] < math.inf for name in numbers):
            raise ValueError("a loss scale that is no number")
        scaler.load_state_dict(saved)


def _restore_generators(rng: dict[str, Any], device: OpenDevice) -> None:
    torch.set_rng_state(rng["torch"])
    kind, keys, position, has_gauss, cached = rng["numpy"]
    if not 0 <= position <= len(keys):  # numpy would read out of bounds
        raise ValueError(f"a position of {position} among {len(keys)} numbers")
    np.random.set_state((kind, np.array(keys, np.uint32), position, has_gauss, cached))
    version, internal, gauss = rng["python"]
    random.setstate((version, tuple(internal), gauss))
    if rng["device"] is not None and rng.get("device_name") == device.plugin.name:
        device.plugin.set_rng_state(rng["device"])


def _on_host(content: Any) -> Any:
    """Return plain containers with every tensor on the host, so that a file names no device and opens anywhere."""
    if isinstance(content, torch.Tensor):
        return content.detach().cpu()
    if isinstance(content, dict):
        return {key: _on_host(value) for key, value in content.items()}
    return [_on_host(value) for value in content] if isinstance(content, list) else content


def _rng_state(device: OpenDevice) -> dict[str, Any]:
    """Return the generators' states as tensors and plain containers, which `weights_only` loading accepts."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "numpy": [str(kind), [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
        "python": [version, list(internal), gauss],
        "device": device.plugin.rng_state(),
        "device_name": device.plugin.name,
    }


def keep_numbered(folder: Path, step: int, keep: int) -> None:
    """Keep a copy of `last.pt` as `step_N.pt` and remove all but the newest `keep` of these."""
    if keep == 0:
        return
    with replacing(folder / f"step_{step:07d}.pt") as temporary:
        try:
            temporary.hardlink_to(folder / "last.pt")
        except OSError:
            shutil.copyfile(folder / "last.pt", temporary)
    for old in sorted(folder.glob("step_*.pt"))[:-keep]:
        old.unlink()
