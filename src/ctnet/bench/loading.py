"""Training samples per second of the loader, by its number of processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice

from ctnet.bench.document import Row
from ctnet.bench.timing import Iterations, latency
from ctnet.config import Recipe
from ctnet.data.loader import EpochOrder, explaining_deaths, raising, training_loader
from ctnet.engine.trainer import training_samples
from ctnet.types import AnnotationSet

PREFETCHED = 4  # batches that each process makes ahead of their use


def measure_loading(
    annotations: AnnotationSet,
    recipe: Recipe,
    workers: tuple[int, ...],
    iterations: Iterations,
    tell: Callable[[str], None],
) -> list[Row]:
    """Return a row per number of processes: samples a second over all timed batches, and how long each was waited for.

    Batches that the processes prepared ahead do not count. Raises DataError for an image that cannot be read,
    LoaderDied for a process that was killed.
    """
    with explaining_deaths():
        return [_row(annotations, recipe, number, iterations, tell) for number in workers]


def _row(
    annotations: AnnotationSet, recipe: Recipe, workers: int, iterations: Iterations, tell: Callable[[str], None]
) -> Row:
    batch = recipe.train.images_per_process()
    tell(_words(workers))
    untimed = iterations.warmup + PREFETCHED * workers
    samples = training_samples(annotations, recipe)
    batches_per_epoch = -(-len(samples) // batch)
    epochs = -(-(untimed + iterations.timed + PREFETCHED * workers) // batches_per_epoch)
    order = EpochOrder(len(samples), batch, epochs, recipe.seed)
    batches = raising(training_loader(samples, order, workers, pin_memory=False))
    for _ in islice(batches, untimed):
        pass
    seconds, images = [], 0
    for _ in range(iterations.timed):
        start = time.perf_counter()
        images += len(next(batches).images)
        seconds.append(time.perf_counter() - start)
    return Row(_words(workers), batch, images_per_s=images / sum(seconds), latency=latency(seconds))


def _words(workers: int) -> str:
    return "in the trainer" if workers == 0 else f"{workers} processes" if workers > 1 else "1 process"
