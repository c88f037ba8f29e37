"""The first steps of the same training on several devices, each in its own process.

Weights, order and augmentation follow from the seed alone, so losses differ only by the arithmetic of the devices.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from ctnet.bench.curves import Inputs, Run
from ctnet.bench.machine import describe_machine, precision_name
from ctnet.bench.process import Remote
from ctnet.config import Recipe
from ctnet.data.loader import EpochOrder, raising, training_loader
from ctnet.devices import open_device
from ctnet.devices.registry import load_plugin
from ctnet.engine.initial_sizes import start_from_data
from ctnet.engine.precision import choose_precision
from ctnet.engine.processes.world import World
from ctnet.engine.schedule import lr_factor, peak_lr
from ctnet.engine.state import new_state, seed_generators
from ctnet.engine.step import Updater
from ctnet.engine.trainer import training_samples, updates
from ctnet.errors import ConfigError, Diverged
from ctnet.families import family_of
from ctnet.precision import PrecisionName, parse_precision
from ctnet.types import AnnotationSet, Progress

_WITHOUT_END = 2**31  # epochs: --steps may exceed the recipe's schedule


def parse_devices(text: str) -> list[str]:
    """Return the one or two devices of a list such as `cpu,npu:1`. Raises ConfigError, also for unknown ones."""
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(names) > 2:
        raise ConfigError("--devices takes one device to record, or two to compare", got=text, expected="cpu,npu")
    for name in set(names) - {"auto"}:
        load_plugin(name.partition(":")[0])  # imports no vendor's package: two of them may not work in one process
    return names


def parse_precisions(text: str, devices: int) -> list[PrecisionName]:
    """Return the precision of each device, from one name for all or one for each. Raises ConfigError."""
    names = [parse_precision(name.strip()) for name in text.split(",")]
    if len(names) not in (1, devices):
        raise ConfigError("--precision takes one for all devices or one for each", got=text, devices=devices)
    return names * devices if len(names) == 1 else names


class SeededRun:
    """A training that starts from the seed of its recipe, in the process that runs its steps.

    Every batch is full, on all devices: some need fixed shapes, and the others must see the same images.
    """

    def __init__(self, annotations: AnnotationSet, recipe: Recipe, device: str) -> None:
        self._recipe = recipe
        self._device = open_device(device)
        index = self._device.torch_device.index
        self._name = self._device.plugin.name + ("" if index is None else f":{index}")
        self._precision = choose_precision(recipe.train.amp, self._device, recipe.train.loss_scale)
        train = recipe.train
        self._order = EpochOrder(
            len(annotations.images), train.images_per_process(), _WITHOUT_END, recipe.seed, fill=True
        )
        objects = recipe.data.max_objects if self._device.plugin.static_shapes else None
        family = family_of(recipe, annotations.keypoints)
        samples = training_samples(annotations, recipe)
        loader = training_loader(samples, self._order, 0, pin_memory=False, objects=objects)
        self._updates = updates(raising(loader), self._order, train.accumulate)
        seed_generators(recipe.seed)
        classes = len(annotations.categories)
        state = new_state(family, classes, self._device, self._precision, peak_rate(recipe))
        start_from_data(family, state.network, samples)
        self._weights = sum(float(p.detach().cpu().double().abs().sum()) for p in state.network.parameters())
        self._updater = Updater(state, self._device, self._precision, World())
        self._checksum = 0
        self._pixels: list[float] = []

    def about(self) -> dict[str, Any]:
        """Return device, precision and machine."""
        return {
            "device": self._name,
            "precision": precision_name(self._precision.dtype),
            "machine": describe_machine(self._device),
        }

    def step(self, number: int, lr: float) -> dict[str, float]:
        """Take the next step, number `number` from 1, and return its losses.

        Raises Diverged when one is not finite, and DataError for an image that cannot be read.
        """
        batches = next(self._updates)
        for batch in batches:
            self._checksum = zlib.crc32(batch.image_ids.numpy().tobytes(), self._checksum)
            self._pixels.append(float(batch.images.float().mean()))
        result = self._updater.update(batches, lr)
        losses = {name: float(f"{float(value):.9g}") for name, value in result.losses.items()}
        if not bool(result.finite()):
            raise Diverged(
                f"step {number} on {self._name}: the loss or its gradient is not finite",
                losses=", ".join(f"{name} {value:g}" for name, value in losses.items()),
                precision=self._precision.sentence(),
            )
        return losses

    def inputs(self) -> Inputs:
        """Return the initial weights and the images so far, as sums."""
        return Inputs(self._weights, self._checksum, sum(self._pixels) / len(self._pixels))


def peak_rate(recipe: Recipe) -> float:
    """Return the learning rate that the schedule is relative to, for one process."""
    return peak_lr(recipe.optimizer, recipe.train.images_per_process() * recipe.train.accumulate)[0]


def rates(recipe: Recipe, images: int, steps: int) -> list[float]:
    """Return the learning rate of each step: that of the recipe's schedule; after its end, the last one."""
    per_epoch = math.ceil(math.ceil(images / recipe.train.images_per_process()) / recipe.train.accumulate)
    planned = per_epoch * recipe.schedule.epochs
    return [peak_rate(recipe) * lr_factor(recipe.schedule, step, per_epoch, planned) for step in range(steps)]


def take_runs(
    annotations: AnnotationSet,
    recipes: Sequence[tuple[str, Recipe]],
    lrs: Sequence[float],
    tell: Callable[[str], None],
    progress: Progress,
) -> list[Run]:
    """Return the runs of (device, recipe) pairs, a step for each learning rate; `progress` counts the steps.

    Devices are opened before the first step and take turns from step to step. Raises what `open_device` and
    `SeededRun.step` do, and BenchError when a process dies.
    """
    with ExitStack() as stack:
        remotes = [stack.enter_context(Remote(SeededRun, annotations, recipe, device)) for device, recipe in recipes]
        abouts = [remote.call("about") for remote in remotes]
        for about in abouts:
            tell(f"{about['device']} {about['precision']}: {about['machine']['device_name'] or 'this CPU'}")
        losses: list[list[dict[str, float]]] = [[] for _ in remotes]
        for number, lr in enumerate(lrs, 1):
            for remote, found in zip(remotes, losses, strict=True):
                found.append(remote.call("step", number, lr))
            progress(number, len(lrs))
        return [
            Run(**about, inputs=remote.call("inputs"), losses=tuple(found))
            for about, remote, found in zip(abouts, remotes, losses, strict=True)
        ]
