"""The first steps of the same training on several devices, each in a process of its own.

Weights, order and augmentation follow from the seed alone, so the losses differ only by what the devices compute.
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
from ctnet.engine.precision import choose_precision
from ctnet.engine.schedule import lr_factor, peak_lr
from ctnet.engine.start import start_from_data
from ctnet.engine.state import new_state, seed_generators
from ctnet.engine.step import Updater
from ctnet.engine.trainer import training_samples, updates
from ctnet.engine.world import World
from ctnet.errors import ConfigError, Diverged
from ctnet.families import family_of
from ctnet.types import AnnotationSet

PRECISIONS = {"auto": "auto", "fp32": "off", "bf16": "bf16", "fp16": "fp16"}
"""by what is typed after --precision, what `train.amp` calls it"""
_WITHOUT_END = 2**31  # epochs: the steps that are asked for may be more than the recipe's


def parse_devices(text: str) -> list[str]:
    """Return the one or two devices of a list such as `cpu,npu:1`. Raises ConfigError, also for unknown ones."""
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(names) > 2:
        raise ConfigError("--devices takes one device to record, or two to compare", got=text, expected="cpu,npu")
    for name in set(names) - {"auto"}:
        load_plugin(name.partition(":")[0])  # which imports no vendor's package: two of those may not share a process
    return names


def parse_precisions(text: str, devices: int) -> list[str]:
    """Return what each device computes in, from one name for all or one for each. Raises ConfigError."""
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in PRECISIONS]
    if unknown:
        raise ConfigError(f"unknown precision {unknown[0]!r}", known=", ".join(PRECISIONS))
    if len(names) not in (1, devices):
        raise ConfigError("--precision takes one for all devices or one for each", got=text, devices=devices)
    return names * devices if len(names) == 1 else names


class SeededRun:
    """A training from its recipe's seed on, in the process that takes its steps.

    Every batch is whole, on all devices: some can take no other, and the rest must see the same pictures.
    """

    def __init__(self, annotations: AnnotationSet, recipe: Recipe, device: str) -> None:
        self._recipe = recipe
        self._device = open_device(device)
        index = self._device.torch_device.index
        self._name = self._device.plugin.name + ("" if index is None else f":{index}")
        self._precision = choose_precision(recipe.train.amp, self._device)
        train = recipe.train
        self._order = EpochOrder(len(annotations.images), train.batch_size, _WITHOUT_END, recipe.seed, fill=True)
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

        Raises Diverged when one is not finite, and DataError for a picture that cannot be read.
        """
        batches = next(self._updates)
        for batch in batches:
            self._checksum = zlib.crc32(batch.image_ids.numpy().tobytes(), self._checksum)
            self._pixels.append(float(batch.images.float().mean()))
        result = self._updater.update(batches, lr)
        losses = {name: float(f"{float(value):.9g}") for name, value in result.losses.items()}
        if not bool(result.finite):
            raise Diverged(
                f"step {number} on {self._name}: the loss or its gradient is not finite",
                losses=", ".join(f"{name} {value:g}" for name, value in losses.items()),
                precision=self._precision.sentence(),
            )
        return losses

    def inputs(self) -> Inputs:
        """Return what it began with and has been shown so far."""
        return Inputs(self._weights, self._checksum, sum(self._pixels) / len(self._pixels))


def peak_rate(recipe: Recipe) -> float:
    """Return the learning rate that the schedule is relative to, for one process."""
    return peak_lr(recipe.optimizer, recipe.train.batch_size * recipe.train.accumulate)[0]


def rates(recipe: Recipe, pictures: int, steps: int) -> list[float]:
    """Return the learning rate of each step: those of the recipe's training; after its end the last one stays."""
    per_epoch = math.ceil(math.ceil(pictures / recipe.train.batch_size) / recipe.train.accumulate)
    planned = per_epoch * recipe.schedule.epochs
    return [peak_rate(recipe) * lr_factor(recipe.schedule, step, per_epoch, planned) for step in range(steps)]


def take_runs(
    annotations: AnnotationSet,
    recipes: Sequence[tuple[str, Recipe]],
    lrs: Sequence[float],
    tell: Callable[[str], None],
    show: Callable[[int], None],
) -> list[Run]:
    """Return the runs of (device, recipe) pairs, a step for each learning rate; `show` is told the steps done.

    Devices are opened before the first step and take turns from step to step. Raises what `open_device` and
    `SeededRun.step` do, and BenchError when a process dies.
    """
    with ExitStack() as stack:
        remotes = [stack.enter_context(Remote(SeededRun, annotations, recipe, device)) for device, recipe in recipes]
        abouts = [remote.call("about") for remote in remotes]
        for about in abouts:
            tell(f"{about['device']} {about['precision']}: {about['machine']['device_name'] or 'this processor'}")
        losses: list[list[dict[str, float]]] = [[] for _ in remotes]
        for number, lr in enumerate(lrs, 1):
            for remote, found in zip(remotes, losses, strict=True):
                found.append(remote.call("step", number, lr))
            show(number)
        return [
            Run(**about, inputs=remote.call("inputs"), losses=tuple(found))
            for about, remote, found in zip(abouts, remotes, losses, strict=True)
        ]
