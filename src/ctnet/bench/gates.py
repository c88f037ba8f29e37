"""Compare two documents row by row: is any row slower?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ctnet.bench.document import SCHEMA
from ctnet.errors import BenchError, ConfigError
from ctnet.files import read_file
from ctnet.limits import parse_json

SAME_SUBJECT = ("recipe", "image_size", "classes")
_PARTS = {"subject": dict, "machine": dict, "rows": list}
_ROW = {"runtime": (str,), "batch": (int,), "precision": (str, type(None)), "images_per_s": (int, float, type(None))}
SAME_MACHINE = ("processor", "cores", "instruction_sets", "threads", "device", "device_name")


@dataclass(frozen=True)
class Comparison:
    """Images a second then and now (None where a row is missing or failed), and whether that passes."""

    runtime: str
    batch: int
    baseline: float
    now: float | None
    passed: bool

    @property
    def change(self) -> float | None:
        """Relative change: -0.1 is a tenth slower."""
        return None if self.now is None else self.now / self.baseline - 1


@dataclass(frozen=True)
class Gate:
    """All rows of a baseline against those of a document."""

    max_regress: float
    comparisons: tuple[Comparison, ...]

    @property
    def passed(self) -> bool:
        """Whether every row exists and is fast enough."""
        return all(comparison.passed for comparison in self.comparisons)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {
            "max_regress": self.max_regress,
            "passed": self.passed,
            "rows": [{**asdict(row), "change": row.change} for row in self.comparisons],
        }

    def require(self) -> None:
        """Raise BenchError, naming each row that does not pass."""
        bad = [row for row in self.comparisons if not row.passed]
        if bad:
            lines = "; ".join(f"{row.runtime} at {row.batch}: {_words(row)}" for row in bad)
            raise BenchError(
                f"{len(bad)} of {len(self.comparisons)} rows of the baseline are not reached",
                allowed=f"{100 * self.max_regress:g} % slower", got=lines,
            )  # fmt: skip


def _words(row: Comparison) -> str:
    if row.change is None:
        return f"not measured, was {row.baseline:.2f} images/s"
    return f"{row.now:.2f} images/s, was {row.baseline:.2f} ({100 * row.change:+.1f} %)"


def parse_max_regress(text: str) -> float:
    """Return the fraction of a text such as `5%` or `0.05`. Raises ConfigError."""
    percent = text.endswith("%")
    try:
        value = float(text.removesuffix("%")) / (100 if percent else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise ConfigError("--max-regress is a part below 1 or a percentage", got=text, expected="5% or 0.05")
    return value


def read_baseline(path: Path, kind: str) -> dict[str, Any]:
    """Return the document of an earlier run. Raises BenchError for a file that is none, or of another kind."""
    try:
        content = parse_json(read_file(path))
    except OSError as error:
        raise BenchError("cannot read the baseline", file=path, got=error.strerror) from None
    except (ValueError, RecursionError) as error:
        raise BenchError("the baseline is not JSON", file=path, got=error) from None
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise BenchError(
            "the baseline was not written by ctnet bench", file=path, expected=SCHEMA, got=schema,
            hint="ctnet bench --json > FILE makes one",
        )  # fmt: skip
    if content.get("kind") != kind:
        raise BenchError("the baseline measured something else", file=path, expected=kind, got=content.get("kind"))
    wrong = None if kind == "align" else _wrong_part(content)  # recorded_run looks at the parts of that kind
    if wrong is not None:
        raise BenchError("the baseline is damaged", file=path, at=wrong, hint="ctnet bench --json > FILE makes one")
    return dict(content)


def _wrong_part(content: Mapping[str, Any]) -> str | None:
    """Return the first of the parts that a comparison reads that is absent or of another kind."""
    for name, kind in _PARTS.items():
        if not isinstance(content.get(name), kind):
            return name
    for number, row in enumerate(content["rows"]):
        if not isinstance(row, dict):
            return f"rows.{number}"
        for name, kinds in _ROW.items():
            value = row.get(name, ...)
            if type(value) not in kinds or (name == "images_per_s" and value is not None and not 1e-12 < value < 1e12):
                return f"rows.{number}.{name}"
    return None


def require_same_subject(baseline: Mapping[str, Any], subject: Mapping[str, Any]) -> None:
    """Raise BenchError unless the baseline is of the same network at the same size."""
    for name in SAME_SUBJECT:
        before, now = baseline["subject"].get(name), subject.get(name)
        if before != now:
            raise BenchError(f"the baseline is of another {name.replace('_', ' ')}", expected=before, got=now)


def other_machine(baseline: Mapping[str, Any], machine: Mapping[str, Any]) -> list[str]:
    """Return the differences between the machines as sentences, none when they are equal."""
    before = baseline["machine"]
    return [
        f"{name.replace('_', ' ')} {before.get(name)} there, {machine.get(name)} here"
        for name in SAME_MACHINE
        if before.get(name) != machine.get(name)
    ]


def compare(baseline: Mapping[str, Any], document: Mapping[str, Any], max_regress: float) -> Gate:
    """Return the baseline's measured rows against the document's, by runtime, batch size and precision."""
    now = {_key(row): row["images_per_s"] for row in document["rows"]}
    comparisons = []
    for row in baseline["rows"]:
        before = row["images_per_s"]
        if before is None:
            continue
        reached = now.get(_key(row))
        passed = reached is not None and reached >= before * (1 - max_regress)
        comparisons.append(Comparison(row["runtime"], row["batch"], before, reached, passed))
    return Gate(max_regress, tuple(comparisons))


def _key(row: Mapping[str, Any]) -> tuple[str, int, str | None]:
    return row["runtime"], row["batch"], row["precision"]
