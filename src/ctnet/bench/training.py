"""Time of a training step: forward, loss, backward and update, on batches of real samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ctnet.bench.document import Row
from ctnet.bench.machine import matmul_rates, precision_name
from ctnet.bench.memory import Memory, peak_memory, resident_bytes
from ctnet.bench.operations import operations_per_image
from ctnet.bench.process import Remote
from ctnet.bench.timing import Iterations, durations, latency, take_turns
from ctnet.config import Recipe
from ctnet.data.loader import collate
from ctnet.devices import OpenDevice, open_device
from ctnet.engine.precision import choose_precision
from ctnet.engine.processes.world import World
from ctnet.engine.state import new_state
from ctnet.engine.step import Updater
from ctnet.engine.trainer import training_samples
from ctnet.families import family_of
from ctnet.types import AnnotationSet

LR = 1e-6  # the rate does not affect the time; a small one keeps the loss finite
BACKWARD = 2  # operations of the backward pass relative to the forward pass


@dataclass(frozen=True)
class Training:
    """A row per batch size, and the matmul rate in the step's precision, in 10^9/s."""

    rows: tuple[Row, ...]
    rates: dict[str, float]


class StepRunner:
    """Network, optimizer and averaged weights of a new training, in the measured process."""

    def __init__(self, annotations: AnnotationSet, recipe: Recipe, device: str, world: World | None = None) -> None:
        family = family_of(recipe, annotations.keypoints)
        self.samples = training_samples(annotations, recipe)
        self.before = resident_bytes()
        self.device = open_device(device)
        self._precision = choose_precision(recipe.train.amp, self.device, recipe.train.loss_scale)
        state = new_state(family, len(annotations.categories), self.device, self._precision, LR)
        self.updater = Updater(state, self.device, self._precision, world or World())

    def precision(self) -> str:
        """Return the precision of the forward pass: fp32, bf16 or fp16."""
        return precision_name(self._precision.dtype)

    def warm_up(self, batch: int, runs: int) -> None:
        """Run untimed steps."""
        step = self._step(batch)
        for _ in range(runs):
            step()

    def measure(self, batch: int, runs: int) -> list[float]:
        """Return the seconds of each step, after an untimed one."""
        return durations(self._step(batch), runs)

    def memory(self) -> Memory | None:
        """Return the peak memory so far."""
        return peak_memory(self.device, self.before)

    def _step(self, batch: int) -> Callable[[], None]:
        samples = collate([self.samples[0, i % len(self.samples)] for i in range(batch)])

        def step() -> None:
            self.updater.update([samples], LR)
            self.device.plugin.synchronize()

        return step


def measure_training(
    annotations: AnnotationSet,
    recipe: Recipe,
    batch_sizes: tuple[int, ...],
    iterations: Iterations,
    device: OpenDevice,
    tell: Callable[[str], None],
) -> Training:
    """Return how long steps of these batch sizes take, without loading. Raises BenchError when one fails."""
    operations = (1 + BACKWARD) * operations_per_image(
        recipe.model, len(annotations.categories), recipe.data.image_size
    )
    rows = []
    with Remote(StepRunner, annotations, recipe, str(device.torch_device)) as runner:
        precision = runner.call("precision")
        tell("matmul rate")
        rates = matmul_rates({precision}, device)
        for batch in batch_sizes:
            tell(f"batch {batch}")
            runner.call("warm_up", batch, iterations.warmup)
            found = take_turns({"step": partial(runner.call, "measure", batch)}, iterations)
            spread = latency(found["step"])
            share = operations * batch / spread.median / 1e6 / rates[precision]
            rate = 1e3 * batch / spread.median
            memory = runner.call("memory")
            rows.append(Row("step", batch, precision, rate, spread, memory=memory, limit_share=share))
    return Training(tuple(rows), rates)


def measure_shared_training(
    annotations: AnnotationSet,
    recipe: Recipe,
    batch_sizes: tuple[int, ...],
    iterations: Iterations,
    device: OpenDevice,
    world: World,
    tell: Callable[[str], None],
) -> Training:
    """Return how long steps take that several processes take together, with these batches in each of them.

    All call it; rates are of all images, times those of the first process, and no limit is measured.
    """
    runner = StepRunner(annotations, recipe, str(device.torch_device), world)
    precision = runner.precision()
    rows = []
    for batch in batch_sizes:
        if world.leads:
            tell(f"batch {batch} in each of {world.size} processes")
        runner.warm_up(batch, iterations.warmup)
        world.largest(0)  # all begin together
        spread = latency(runner.measure(batch, iterations.timed))
        rate = 1e3 * batch * world.size / spread.median
        rows.append(Row("step", batch, precision, rate, spread, memory=runner.memory()))
    return Training(tuple(rows), {})
