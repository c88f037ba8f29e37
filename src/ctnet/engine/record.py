"""What a run has recorded so far: a part of its state, which the files of its folder are made to agree with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctnet.errors import WeightsError


@dataclass
class LossSums:
    """The losses of some steps, added up in float64 and in their order: interruptions do not change the sums.

    Steps that were skipped because of an overflow are counted apart: their losses may be infinite.
    """

    steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    skipped: int = 0

    def add(self, losses: Mapping[str, float], *, skipped: bool = False) -> None:
        """Add the losses of one step."""
        if skipped:
            self.skipped += 1
            return
        self.steps += 1
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Return the mean of each loss over the steps; empty without a step."""
        return {name: value / self.steps for name, value in self.sums.items()}


@dataclass
class Record:
    """The epochs' rows, the running sums of losses, the seconds of training, and the sizes of the growing files.

    `files` maps names in the run folder (`log.jsonl`, TensorBoard's) to bytes; None in a state that knows none.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    since_log: LossSums = field(default_factory=LossSums)
    this_epoch: LossSums = field(default_factory=LossSums)
    logged: dict[str, float] = field(default_factory=dict)
    wall_s: float = 0.0
    files: dict[str, int] | None = field(default_factory=dict)
    overflows: int = 0
    """steps skipped before the last line of the log, since the line before"""
    _on_device: list[dict[str, Tensor]] = field(default_factory=list)
    _skipped: list[bool] = field(default_factory=list)

    def add_step(self, losses: dict[str, Tensor]) -> None:
        """Remember the losses of a step, which stay on their device for now."""
        self._on_device.append(losses)
        self._skipped.append(False)

    def skip_last(self, *, before: int = 0) -> None:
        """Mark the last step, or one so many steps before it, as skipped."""
        if len(self._skipped) > before:
            self._skipped[-1 - before] = True

    def collect(self) -> None:
        """Bring the losses to the host, which waits for the device."""
        if not self._on_device:
            return
        names = list(self._on_device[0])
        steps = (
            torch.stack([torch.stack([losses[name] for name in names]) for losses in self._on_device]).cpu().tolist()
        )
        for values, skipped in zip(steps, self._skipped, strict=True):
            losses = dict(zip(names, values, strict=True))
            self.since_log.add(losses, skipped=skipped)
            self.this_epoch.add(losses, skipped=skipped)
        self._on_device, self._skipped = [], []

    def take_logged(self) -> dict[str, float]:
        """Return the means since the last call, and begin anew."""
        self.collect()
        self.overflows = self.since_log.skipped
        self.logged, self.since_log = self.since_log.means(), LossSums()
        return self.logged

    def begin_row(self, epoch: int, **values: Any) -> None:
        """Add the row of an epoch, in the place of one that `max_steps` ended within the epoch."""
        if self.rows and str(self.rows[-1]["epoch"]) == str(epoch):
            self.rows.pop()
        self.rows.append({"epoch": epoch, **values})

    def complete_row(self, epoch: int, **values: Any) -> None:
        """Add values to the row of an epoch, the last one."""
        if not self.rows or str(self.rows[-1]["epoch"]) != str(epoch):  # a state without a record
            self.begin_row(epoch)
        self.rows[-1].update(values)

    def content(self) -> dict[str, Any]:
        """Return plain containers, as `restored` takes them."""
        self.collect()
        sums = {name: [one.steps, dict(one.sums), one.skipped] for name, one in self._sums().items()}
        return {"rows": self.rows, **sums, "logged": self.logged, "wall_s": self.wall_s, "files": self.files}

    def _sums(self) -> dict[str, LossSums]:
        return {"since_log": self.since_log, "this_epoch": self.this_epoch}

    @classmethod
    def restored(cls, content: Any, source: Path | str = "last.pt") -> Record:
        """Return the record that `content` describes. Raises WeightsError when it describes none."""
        if content is None:  # of a version that kept no record
            return cls(files=None)
        try:
            return cls(
                rows=[{"epoch": row["epoch"], **row} for row in content["rows"]],
                since_log=_sums(content["since_log"]),
                this_epoch=_sums(content["this_epoch"]),
                logged=_numbers(content["logged"]),
                wall_s=float(content["wall_s"]),
                files=None if content["files"] is None else {k: int(v) for k, v in content["files"].items()},
            )
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise WeightsError("the record of the run cannot be read", file=source, got=repr(error)) from None


def _numbers(content: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in content.items()}


def _sums(content: Any) -> LossSums:
    skipped = int(content[2]) if len(content) > 2 else 0  # earlier versions have no third entry
    return LossSums(int(content[0]), _numbers(content[1]), skipped)
