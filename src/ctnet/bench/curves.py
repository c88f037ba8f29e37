"""Loss curves of seeded runs: what makes two comparable, their relative error, and their JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ctnet.bench.document import SCHEMA
from ctnet.config import Recipe, recipe_from_dict
from ctnet.errors import BenchError

KIND = "align"
ROLES = ("first", "second")
_WEIGHTS_BOUND = 1e-5  # relative; sums of the same numbers in another order
# Of 255: versions of image libraries round a pixel here and there, another crop moves the mean more.
_PIXELS_BOUND = 0.1


@dataclass(frozen=True)
class Inputs:
    """The initial weights and the images of a run, as three numbers that hardly depend on the machine."""

    weights: float  # sum of the magnitudes of the first weights
    order: int  # checksum of the image ids in their order
    pixels: float  # mean of their bytes after augmentation, 0..255


@dataclass(frozen=True)
class Run:
    """A run on one device: its inputs, and per step the losses by name (`loss`, the total, and its parts)."""

    device: str
    precision: str
    machine: Mapping[str, Any]
    inputs: Inputs
    losses: tuple[Mapping[str, float], ...]
    recorded: bool = False

    @property
    def label(self) -> str:
        """The name of the run in tables and plots."""
        return f"{self.device} {self.precision}" + (" (recorded)" if self.recorded else "")

    def total(self) -> list[float]:
        """Return the total loss of each step."""
        return [losses["loss"] for losses in self.losses]


@dataclass(frozen=True)
class Alignment:
    """The second run's losses against the first's.

    The relative error of a step is |second - first| / |first|, and 1 where the first alone is 0. The acceptance of
    Tecorigin's ports averages it with its sign, so that errors cancel and a loss that is always lower passes: that
    figure is `bias`.
    """

    first: Run
    second: Run
    tolerance: float

    @cached_property
    def errors(self) -> list[float]:
        """Relative error of the total loss, per step."""
        return [_relative(b, a) for a, b in zip(self.first.total(), self.second.total(), strict=True)]

    @property
    def mean(self) -> float:
        """Mean relative error over the steps, which is compared with the tolerance."""
        return _mean(self.errors)

    @property
    def passed(self) -> bool:
        """Whether the mean relative error is within the tolerance."""
        return self.mean <= self.tolerance

    @property
    def parts_at(self) -> int | None:
        """The first step, from 1, whose error is above the tolerance, or None."""
        return next((step for step, error in enumerate(self.errors, 1) if error > self.tolerance), None)

    @property
    def largest_at(self) -> int:
        """The step, from 1, of the largest error."""
        return 1 + max(range(len(self.errors)), key=self.errors.__getitem__)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        signed = [(b - a) / abs(a) if a else 0.0 for a, b in zip(self.first.total(), self.second.total(), strict=True)]
        names = [name for name in self.second.losses[0] if name != "loss" and name in self.first.losses[0]]
        pairs = list(zip(self.first.losses, self.second.losses, strict=True))
        return {
            "tolerance": self.tolerance,
            "passed": self.passed,
            "mean_relative_error": self.mean,
            "bias": _mean(signed),
            "largest_relative_error": max(self.errors),
            "largest_at": self.largest_at,
            "parts_at": self.parts_at,
            "of_parts": {name: _mean([_relative(b[name], a[name]) for a, b in pairs]) for name in names},
        }

    def require(self) -> None:
        """Raise BenchError with the error and the first step above the tolerance, unless aligned."""
        if self.passed:
            return
        step = self.parts_at or 1  # a mean above the tolerance has a step above it
        first, second = self.first.total()[step - 1], self.second.total()[step - 1]
        raise BenchError(
            f"the losses are not aligned: mean relative error {self.mean:.2g} over {len(self.errors)} steps",
            allowed=f"{self.tolerance:g}",
            first_above=f"step {step}: {first:.6g} on {self.first.label}, {second:.6g} on {self.second.label}",
            largest=f"{max(self.errors):.2g} at step {self.largest_at}",
            hint=self._hint(step),
        )

    def _hint(self, step: int) -> str:
        if self.first.precision != self.second.precision:
            return "the runs have different precisions: --precision fp32 makes them equal"
        suite = f"python -m ctnet.devices.conformance --device {self.second.device.partition(':')[0]}"
        if step == 1:
            return f"weights are equal at step 1: the forward pass of an operator differs; {suite} finds it"
        return f"forward passes agree: compare gradients and the update; {suite} checks each operator"


def _relative(value: float, reference: float) -> float:
    if value == reference:
        return 0.0
    return abs(value - reference) / abs(reference) if reference else 1.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def require_same_inputs(first: Run, second: Run) -> None:
    """Raise BenchError unless both runs started from the same weights and saw the same images."""
    a, b = first.inputs, second.inputs
    versions = "; ".join(f"{run.label}: {_versions(run.machine)}" for run in (first, second))
    if a.order != b.order:
        raise BenchError(
            "the runs saw different images, or in another order", hint="--data names the same data set for both"
        )
    if not math.isclose(a.weights, b.weights, rel_tol=_WEIGHTS_BOUND):
        raise BenchError(
            "the runs started from different weights", got=f"{a.weights} and {b.weights}", versions=versions
        )
    if abs(a.pixels - b.pixels) > _PIXELS_BOUND:
        raise BenchError(
            "the runs saw differently augmented images", mean_pixel=f"{a.pixels} and {b.pixels}",
            versions=versions,
        )  # fmt: skip


def _versions(machine: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {number}" for name, number in machine["versions"].items() if number)


def align_document(
    subject: Mapping[str, Any], settings: Mapping[str, Any], recipe: Recipe, rates: Sequence[float],
    runs: Sequence[Run], alignment: Alignment | None,
) -> dict[str, Any]:  # fmt: skip
    """Return one or two runs as a document like those of the other benchmarks; a row is a step with its rate."""
    rows = []
    for index, rate in enumerate(rates):
        row: dict[str, Any] = {"step": index + 1, "lr": rate}
        row |= {role: dict(run.losses[index]) for role, run in zip(ROLES, runs, strict=False)}
        rows.append({**row, "relative_error": None if alignment is None else alignment.errors[index]})
    facts = [{"device": r.device, "precision": r.precision, "recorded": r.recorded, "inputs": asdict(r.inputs),
              "machine": dict(r.machine)} for r in runs]  # fmt: skip
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "subject": dict(subject),
        "settings": dict(settings),
        "recipe": recipe.model_dump(mode="json"),
        "runs": dict(zip(ROLES, facts, strict=False)),
        "rows": rows,
        "gate": None if alignment is None else alignment.to_dict(),
    }


def recorded_run(document: Mapping[str, Any], file: Path) -> tuple[Recipe, Run]:
    """Return the recipe and the first run of a document. Raises BenchError when parts of it are missing."""
    try:
        facts = document["runs"]["first"]
        losses = tuple({str(k): float(v) for k, v in row["first"].items()} for row in document["rows"])
        seen = facts["inputs"]
        inputs = Inputs(float(seen["weights"]), int(seen["order"]), float(seen["pixels"]))
        run = Run(str(facts["device"]), str(facts["precision"]), facts["machine"], inputs, losses, recorded=True)
        content = dict(document["recipe"])
        complete = _versions(run.machine) != "" and all(
            {"loss"} <= one.keys() == losses[0].keys() and all(map(math.isfinite, one.values())) for one in losses
        )
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError):
        complete = False
    if not complete or not losses:
        raise BenchError("the recorded run is damaged", file=file, hint="ctnet bench align --json > FILE makes one")
    return recipe_from_dict(content, str(file)), run
