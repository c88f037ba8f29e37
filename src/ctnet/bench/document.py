"""Figures as one JSON document, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ctnet.bench.machine import describe_machine
from ctnet.bench.memory import Memory
from ctnet.bench.timing import Iterations, Latency
from ctnet.devices import OpenDevice

SCHEMA = "ctnet.bench/1"


@dataclass(frozen=True)
class Row:
    """The measurement of one runtime at one batch size, or why there is none (`failure`).

    `stages` are parts of the whole `latency` by name. `limit_share` is the part (0..1) of the machine's matmul rate
    that the arithmetic reached; `deviation` is the largest distance from torch's float32 outputs relative to
    their range.
    """

    runtime: str
    batch: int
    precision: str | None = None
    images_per_s: float | None = None
    latency: Latency | None = None
    stages: Mapping[str, Latency] = field(default_factory=dict)
    memory: Memory | None = None
    limit_share: float | None = None
    deviation: float | None = None
    failure: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {
            "runtime": self.runtime,
            "batch": self.batch,
            "precision": self.precision,
            "images_per_s": _rounded(self.images_per_s),
            "latency_ms": _milliseconds(self.latency),
            "stages_ms": {name: _milliseconds(stage) for name, stage in self.stages.items()},
            "memory": None if self.memory is None else self.memory._asdict(),
            "limit_share": _rounded(self.limit_share),
            "deviation": None if self.deviation is None else float(f"{self.deviation:.2g}"),
            "failure": self.failure,
        }


def bench_document(
    kind: str,
    subject: Mapping[str, Any],
    settings: Mapping[str, Any],
    iterations: Iterations,
    device: OpenDevice,
    rates: Mapping[str, float],
    rows: Sequence[Row],
) -> dict[str, Any]:
    """Return the document of `ctnet bench`: `kind` is inference, train or data, `subject` what was measured."""
    return {
        "schema": SCHEMA,
        "kind": kind,
        "subject": dict(subject),
        "settings": {**settings, "warmup": iterations.warmup, "iterations": iterations.timed},
        "machine": describe_machine(device),
        "matmul_gflops": {name: _rounded(rate) for name, rate in rates.items()},
        "rows": [row.to_dict() for row in rows],
    }


def to_csv(document: Mapping[str, Any]) -> str:
    """Return the rows of a document as CSV: nested values as columns such as `latency_ms.p90`."""
    flat = [dict(_flatten(row)) for row in document["rows"]]
    names = list(dict.fromkeys(name for row in flat for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flatten(row: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in row.items():
        pairs += _flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return pairs


def _milliseconds(latency: Latency | None) -> dict[str, float] | None:
    return None if latency is None else {name: round(value, 3) for name, value in latency._asdict().items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
