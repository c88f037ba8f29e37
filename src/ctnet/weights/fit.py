"""Putting tensors into a network, and saying exactly which of them went in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ctnet.errors import WeightsError


@dataclass(frozen=True)
class FitReport:
    """Names of tensors: taken from the file, started afresh (with the two shapes), absent, left over."""

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    def sentence(self) -> str:
        """Return the outcome in a line, naming every tensor that starts afresh."""
        text = f"{len(self.loaded)} tensors loaded"
        return f"{text}; these start afresh: {', '.join(self.fresh)}" if self.fresh else text


def load_exactly(network: nn.Module, tensors: Mapping[str, Tensor], source: object) -> None:
    """Fill the network; every tensor must be there with the right shape. Raises WeightsError otherwise."""
    report = _compare(network, tensors)
    if report.fresh or report.missing or report.unexpected:
        raise _misfit(report, source)
    network.load_state_dict(tensors)


def load_for_finetuning(network: nn.Module, tensors: Mapping[str, Tensor], source: object) -> FitReport:
    """Fill the network except for heads of another shape (other classes, other width), which stay random.

    Raises WeightsError when anything outside the heads does not fit: the file belongs to another architecture.
    """
    report = _compare(network, tensors)
    if report.missing or report.unexpected or any(not name.startswith("heads.") for name in report.fresh):
        raise _misfit(report, source)
    network.load_state_dict({name: tensors[name] for name in report.loaded}, strict=False)
    return report


def _compare(network: nn.Module, tensors: Mapping[str, Tensor]) -> FitReport:
    own = network.state_dict()
    same = [n for n in own if n in tensors and own[n].shape == tensors[n].shape]
    other = [n for n in own if n in tensors and own[n].shape != tensors[n].shape]
    return FitReport(
        loaded=tuple(same),
        fresh=tuple(f"{n} {tuple(tensors[n].shape)} -> {tuple(own[n].shape)}" for n in other),
        missing=tuple(n for n in own if n not in tensors),
        unexpected=tuple(n for n in tensors if n not in own),
    )


def _misfit(report: FitReport, source: object) -> WeightsError:
    def some(names: tuple[str, ...]) -> str | None:
        return f"{len(names)}, first {names[0]}" if names else None

    return WeightsError(
        "the weights belong to another architecture",
        file=source,
        fitting=len(report.loaded),
        other_shape=some(report.fresh),
        missing=some(report.missing),
        unexpected=some(report.unexpected),
        hint="choose the recipe that the weights were trained with",
    )
