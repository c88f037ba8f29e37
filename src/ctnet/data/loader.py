"""Batches of training samples, in an order that depends on the seed alone and can be entered at any step."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ctnet.data.repeat import Factors, draw
from ctnet.data.sample import Sample, TrainingSamples
from ctnet.devices.machine import usable_cores
from ctnet.errors import CtnetError, LoaderDied
from ctnet.parent import end_with_parent
from ctnet.types import Targets


class Batch(NamedTuple):
    """Images (B,H,W,3) BGR uint8, colour shifts or maps, targets, and ids (B,) of records, shown and wanted.

    Colours are shifted by (B,3) float32 or mapped by (B,3,4).
    """

    images: Tensor
    lighting: Tensor
    targets: Targets
    image_ids: Tensor
    wanted_ids: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device; copies overlap with work where the host memory is pinned."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return self._replace(images=move(self.images), lighting=move(self.lighting), targets=self.targets.change(move))


@dataclass(frozen=True)
class EpochOrder:
    """Batches of (epoch, index) keys: each epoch a new permutation, if wanted; nothing dropped, nothing repeated.

    With `factors` some images are repeated; the keys of repetitions have their number, from 1, as a third.
    Starts at batch `first_batch` of epoch `first_epoch` and ends after epoch `epochs - 1`. `ranks` processes share
    each batch of `batch_size` images; this is the part of one of them. The last batch of an epoch may be smaller: it
    is shared as evenly as can be, and a rank may get nothing. With `fill` it is made up to size by the epoch's first
    samples, for devices on which another size costs a compilation.
    """

    samples: int
    batch_size: int
    epochs: int
    seed: int
    first_epoch: int = 0
    first_batch: int = 0
    fill: bool = False
    rank: int = 0
    ranks: int = 1
    shuffle: bool = True
    factors: Factors | None = None
    """how often each image is drawn; their sum is about `samples`"""

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches in a whole epoch; the last may be smaller."""
        return -(-self.samples // self.batch_size)

    @property
    def last_batch(self) -> int:
        """Images in the last batch of an epoch, over all ranks."""
        return self.batch_size if self.fill else self.samples - (self.batches_per_epoch - 1) * self.batch_size

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        for epoch in range(self.first_epoch, self.epochs):
            rng = np.random.default_rng((self.seed, epoch))
            order = rng.permutation(self.samples)
            keys: list[tuple[int, ...]] = [(epoch, index) for index in range(self.samples)]
            if self.factors is not None:  # a repetition is a sample of its own
                drawn = zip(*draw(self.factors, self.samples, rng), strict=True)
                keys = [(epoch, int(image), *([int(again)] if again else [])) for image, again in drawn]
            if not self.shuffle:
                order = np.arange(self.samples)
            if self.fill:
                order = np.resize(order, self.batches_per_epoch * self.batch_size)
            start = self.first_batch if epoch == self.first_epoch else 0
            for batch in range(start, self.batches_per_epoch):
                indices = order[batch * self.batch_size : (batch + 1) * self.batch_size]
                yield [keys[index] for index in np.array_split(indices, self.ranks)[self.rank]]

    def __len__(self) -> int:
        return (self.epochs - self.first_epoch) * self.batches_per_epoch - self.first_batch


@dataclass(frozen=True)
class Mapped(Dataset[Any]):
    """A map-style data set of torch's loader: applies a function to keys.

    A user's error is returned, not raised: torch would wrap it in the traceback of the worker process. `raising` raises
    it in the training process.
    """

    function: Callable[[Any], Any]
    length: int = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.function(key)
        except CtnetError as error:
            return error


def raising(items: Iterable[Any]) -> Iterator[Any]:
    """Yield the items until one is a user's error, and raise that."""
    for item in items:
        if isinstance(item, CtnetError):
            raise item
        yield item


@contextmanager
def explaining_deaths() -> Iterator[None]:
    """Raise LoaderDied where a loader process is killed during the block.

    Torch raises that wherever the program happens to be, in a signal handler, so the block is all of the work that the
    images are for.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise LoaderDied(
            "a process that reads images died",
            got=str(error).partition("\n")[0],
            hint="most often the machine, or /dev/shm, ran out of memory: take fewer loader processes (data.workers, "
            "--workers) or smaller batches; a training goes on with --resume",
        ) from error


def training_loader(
    samples: TrainingSamples, order: EpochOrder, workers: int, *, pin_memory: bool, objects: int | None = None
) -> DataLoader[Batch]:
    """Return a loader over all epochs of the order, to be read through `raising`; its processes live until the end.

    Targets have room for `objects` an image, or for as many as the batch needs.
    """
    return DataLoader(
        Mapped(samples.__getitem__),
        batch_sampler=order,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=partial(_collate_or_error, samples, objects=objects),
        pin_memory=pin_memory,
        worker_init_fn=start_worker,
        generator=worker_seeds(),
        prefetch_factor=4 if workers else None,
    )


def worker_count(setting: int | None, processes: int = 1) -> int:
    """Return the loader processes of each of `processes` training processes on this machine.

    That is `setting` (`data.workers`) where it is given, else one per two cores, at most eight.
    """
    return max(1, min(8, usable_cores() // 2 // processes)) if setting is None else setting


def worker_seeds() -> torch.Generator:
    """Return a generator for torch's loader, which would otherwise draw from, and so move, the global one."""
    return torch.Generator().manual_seed(0)


def start_worker(_: int) -> None:
    """Make a loader process leave signals to its parent and threads to the network."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # launchers signal whole groups; this process ends with its parent
    started_by = multiprocessing.parent_process()
    if started_by is not None and started_by.pid is not None:
        # a fork server, which ends with the training process, stands between the two
        served = multiprocessing.get_start_method() == "forkserver"
        end_with_parent(os.getppid() if served else started_by.pid)
    cv2.setNumThreads(0)


def _collate_or_error(
    samples: TrainingSamples, items: Sequence[Sample | CtnetError], objects: int | None
) -> Batch | CtnetError:
    if not items:
        return _empty_batch(samples)
    errors = [item for item in items if isinstance(item, CtnetError)]
    return errors[0] if errors else collate([item for item in items if not isinstance(item, CtnetError)], objects)


def _empty_batch(samples: TrainingSamples) -> Batch | CtnetError:
    """Return a batch of no images, otherwise shaped like any."""
    try:
        like = collate([samples[0, 0]])
    except CtnetError as error:
        return error
    return Batch(
        like.images[:0],
        like.lighting[:0],
        like.targets.change(lambda t: t[:0]),
        like.image_ids[:0],
        like.wanted_ids[:0],
    )


def collate(samples: Sequence[Sample], objects: int | None = None) -> Batch:
    """Return the samples stacked; objects are padded to so many, or to the most that one sample has, at least one."""
    targets = [sample.targets for sample in samples]
    most = objects or max(1, *(len(rows) for t in targets for rows in t.rows.values()))

    def stack(arrays: Sequence[np.ndarray[Any, Any]]) -> Tensor:
        return torch.from_numpy(np.stack(arrays))

    def pad(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.pad(rows, [(0, most - len(rows))] + [(0, 0)] * (rows.ndim - 1))

    return Batch(
        images=stack([s.image for s in samples]),
        lighting=stack([s.lighting for s in samples]),
        targets=Targets(
            {name: stack([t.maps[name] for t in targets]) for name in targets[0].maps},
            {name: stack([pad(t.rows[name]) for t in targets]) for name in targets[0].rows},
        ),
        image_ids=torch.tensor([s.image_id for s in samples]),
        wanted_ids=torch.tensor([s.wanted_id for s in samples]),
    )
