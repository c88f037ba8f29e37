"""Inference by several runtimes: each in a process of its own, checked against torch, timed in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ctnet.bench.document import Row
from ctnet.bench.machine import DTYPES, matmul_rates
from ctnet.bench.process import Remote, unexpected
from ctnet.bench.runners import STAGES, Entry, InferenceRunner
from ctnet.bench.runtimes import format_for, precision_for, runtime_of
from ctnet.bench.subject import Subject
from ctnet.bench.timing import Iterations, latency, take_turns
from ctnet.data.image import read_image
from ctnet.detect.views import network_input, render_views
from ctnet.devices import OpenDevice, PrecisionName
from ctnet.errors import BenchError, ConfigError, CtnetError
from ctnet.export.export import export
from ctnet.export.options import ExportOptions
from ctnet.weights.ctnet_file import save_weights

CHECKED = 2  # images on which the outputs of a runtime must equal those of torch
TOLERANCE = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.1, "int8": 0.15}  # relative to an output's range
TOLERANCE_OF_CARDS = 1e-2  # their float32 products may round to ten bits

Tell = Callable[[str], None]
Outputs = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class InferencePlan:
    """What to measure: runtimes, rising batch sizes, precision, and how often."""

    runtimes: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    precision: PrecisionName
    iterations: Iterations


@dataclass(frozen=True)
class Measured:
    """A row per runtime and batch size, the matmul rate per precision in 10^9/s, and why runtimes failed."""

    rows: tuple[Row, ...]
    rates: Mapping[str, float]
    failures: Mapping[str, CtnetError]


def measure_inference(
    subject: Subject, plan: InferencePlan, device: OpenDevice, images: Sequence[Path], tell: Tell
) -> Measured:
    """Return how fast each runtime is over the images, which are repeated to fill a batch.

    A runtime that fails is in the rows with its reason. `tell` is called with a sentence when a step begins.
    """
    with tempfile.TemporaryDirectory(prefix="ctnet-bench-") as folder, ExitStack() as stack:
        contestants = []
        for runtime in plan.runtimes:
            tell(f"{runtime}: opening")
            contestant = Contestant(runtime)
            stack.callback(contestant.close)
            contestant.open(partial(_entry, subject, runtime, plan.precision, device, images, Path(folder)))
            contestants.append(contestant)
        _check(contestants, subject, device, images)
        tell("matmul rate")
        rates = matmul_rates({c.precision for c in contestants if c.precision in DTYPES}, device)
        rows: list[Row] = []
        for batch in plan.batch_sizes:
            tell(f"batch {batch}")
            rows += _batch_rows(contestants, batch, plan.iterations, subject.operations_per_image, rates)
    return Measured(tuple(rows), rates, {c.runtime: c.failure for c in contestants if c.failure})


class Contestant:
    """A runtime in its process; after a failure the process has ended and `failure` is the error."""

    def __init__(self, runtime: str) -> None:
        self.runtime = runtime
        self.remote: Remote | None = None
        self.failure: CtnetError | None = None
        self.precision: str | None = None
        self.deviation: float | None = None

    def open(self, prepare: Callable[[], Entry]) -> None:
        """Start the process over what `prepare` returns."""
        try:
            self.remote = Remote(InferenceRunner, prepare())
        except CtnetError as error:
            self.fail(error)
        except Exception as error:  # exporters raise classes of their own for networks that they do not understand
            self.fail(unexpected(error))
        self.precision = self.ask("precision")

    def ask(self, method: str, *arguments: object) -> Any:
        """Return what the runner's method returns, None after a failure."""
        try:
            return None if self.remote is None else self.remote.call(method, *arguments)
        except CtnetError as error:
            self.fail(error)

    def fail(self, error: CtnetError) -> None:
        """End the process and keep the error."""
        self.failure = error
        self.close()

    def close(self) -> None:
        """End the process if it runs."""
        if self.remote is not None:
            self.remote.close()
            self.remote = None


def _entry(
    subject: Subject,
    runtime: str,
    precision: PrecisionName,
    device: OpenDevice,
    images: Sequence[Path],
    folder: Path,
) -> Entry:
    """Return how the runtime is opened, after writing the file that it opens into the folder."""
    if subject.exported is not None:
        file, format = subject.exported
        if runtime != runtime_of(format):
            raise ConfigError(f"{file.name} is run by {runtime_of(format)} alone", got=runtime)
        return Entry(runtime, file, "cpu", precision, subject.recipe, tuple(images), subject.trust)
    assert subject.weights is not None
    assert subject.network is not None
    target = format_for(runtime)
    chosen = precision_for(runtime, precision, device)
    if target is None:
        file = folder / "network.safetensors"
        if not file.exists():
            save_weights(file, subject.weights)
        return Entry(runtime, file, str(device.torch_device), chosen, subject.recipe, tuple(images))
    if device.torch_device.type != "cpu":
        raise ConfigError(f"{target.title} runs on the CPU", got=f"--device {device.torch_device}")
    file = folder / f"network{target.suffix}"
    options = ExportOptions("raw", subject.recipe.data.image_size)
    export(subject.network, subject.weights, target, file, options, [])
    return Entry(runtime, file, "cpu", chosen, subject.recipe, tuple(images), trust=True)


def _check(contestants: Sequence[Contestant], subject: Subject, device: OpenDevice, images: Sequence[Path]) -> None:
    """Fail every contestant whose outputs differ from those of torch in float32."""
    if subject.network is None:
        return
    expected = _reference_outputs(subject, images[:CHECKED])
    for contestant in contestants:
        got = contestant.ask("outputs", min(CHECKED, len(images)))
        if got is None:
            continue
        contestant.deviation = deviation(expected, got)
        bound = TOLERANCE[contestant.precision or "fp32"]
        if device.torch_device.type != "cpu":
            bound = max(bound, TOLERANCE_OF_CARDS)
        if not contestant.deviation <= bound:
            found = f"deviates by {contestant.deviation:.2g} of the range, at most {bound:g} is right"
            contestant.fail(BenchError("its outputs are not torch's", got=found))


@torch.inference_mode()
def _reference_outputs(subject: Subject, files: Sequence[Path]) -> Outputs:
    assert subject.network is not None
    recipe = subject.recipe
    size, multiple = recipe.data.image_size, recipe.model.size_multiple
    views = [render_views(read_image(file), size, multiple, recipe.evaluation)[0] for file in files]
    heads = subject.network.cpu().float().eval()(network_input(views, recipe.data, torch.device("cpu")))[-1]
    return {name: values.numpy() for name, values in heads.items()}


def deviation(expected: Outputs, got: Outputs) -> float:
    """Return the largest distance relative to the range of an output; infinite for other shapes or NaN."""
    if any(name not in got or got[name].shape != values.shape for name, values in expected.items()):
        return float("inf")
    distances = [np.abs(got[name] - values).max() / np.ptp(values) for name, values in expected.items()]
    return float(np.nan_to_num(distances, nan=np.inf).max())


def _batch_rows(
    contestants: Sequence[Contestant],
    batch: int,
    iterations: Iterations,
    operations: int,
    rates: Mapping[str, float],
) -> list[Row]:
    for contestant in contestants:
        contestant.ask("warm_up", batch, iterations.warmup)
    blocks = {c.runtime: partial(_block, c, batch) for c in contestants if c.remote is not None}
    found = take_turns(blocks, iterations)
    rows = []
    for contestant in contestants:
        row = Row(contestant.runtime, batch, contestant.precision, deviation=contestant.deviation)
        memory = contestant.ask("memory")
        if contestant.failure is not None:
            rows.append(replace(row, failure=reason(contestant.failure)))
            continue
        runs = found[contestant.runtime]
        stages = dict(zip(STAGES, map(latency, zip(*runs, strict=True)), strict=True))
        whole = latency([sum(run) for run in runs])
        rate = rates.get(contestant.precision or "fp32")  # that of int8 is not measured
        rows.append(
            replace(
                row,
                images_per_s=1e3 * batch / whole.median,
                latency=whole,
                stages=stages,
                memory=memory,
                limit_share=operations * batch / stages["forward"].median / 1e6 / rate if rate else None,
            )
        )
    return rows


def reason(error: CtnetError) -> str:
    """Return an error as one line."""
    return ", ".join([error.message, *error.facts.values(), *([error.hint] if error.hint else [])])


def _block(contestant: Contestant, batch: int, runs: int) -> list[tuple[float, ...]]:
    return contestant.ask("measure", batch, runs) or []
