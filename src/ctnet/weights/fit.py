"""Load tensors into a network and report exactly which were loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ctnet.errors import WeightsError

SHOWN = 5  # names of a kind in an error message


@dataclass(frozen=True)
class FitReport:
    """Names of tensors: taken from the file, of another shape (with both), absent, left over."""

    loaded: tuple[str, ...]
    other_shape: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Every tensor of the network is there and nothing is left over."""
        return not (self.other_shape or self.missing or self.unexpected)

    def sentence(self) -> str:
        """Return the outcome as one line that names every tensor left random."""
        text = f"{len(self.loaded)} tensors loaded"
        afresh = [*self.other_shape, *self.missing]
        if afresh:
            text += f"; {len(afresh)} stay random: {', '.join(afresh)}"
        if self.unexpected:
            text += f"; {len(self.unexpected)} not used: {', '.join(self.unexpected)}"
        return text


def fit(network: nn.Module, tensors: Mapping[str, Tensor], file_names: Mapping[str, str] | None = None) -> FitReport:
    """Return what of the tensors fits the network, loading nothing; absent ones under the names of their file."""
    own, file_names = network.state_dict(), file_names or {}
    known = [n for n in own if n in tensors]
    return FitReport(
        loaded=tuple(n for n in known if own[n].shape == tensors[n].shape),
        other_shape=tuple(
            f"{n} {tuple(tensors[n].shape)} -> {tuple(own[n].shape)}" for n in known if own[n].shape != tensors[n].shape
        ),
        missing=tuple(file_names.get(n, n) for n in own if n not in tensors),
        unexpected=tuple(n for n in tensors if n not in own),
    )


def require_fit(
    network: nn.Module, tensors: Mapping[str, Tensor], source: object, file_names: Mapping[str, str] | None = None
) -> None:
    """Raise WeightsError unless every tensor is there with the right shape and none is left over."""
    report = fit(network, tensors, file_names)
    if not report.complete:
        raise _misfit(report, source, "use the recipe that the weights were trained with, or --allow-partial")
    odd = [name for name, tensor in network.state_dict().items() if tensors[name].dtype != tensor.dtype]
    if odd:
        raise WeightsError(
            "a tensor is of another type than its layer", file=source, key=odd[0], got=tensors[odd[0]].dtype
        )


def load_exactly(
    network: nn.Module, tensors: Mapping[str, Tensor], source: object, file_names: Mapping[str, str] | None = None
) -> None:
    """Load into the network; every tensor must be there with the right shape. Raises WeightsError otherwise."""
    require_fit(network, tensors, source, file_names)
    network.load_state_dict(tensors)


def load_partially(
    network: nn.Module, tensors: Mapping[str, Tensor], source: object, file_names: Mapping[str, str] | None = None
) -> FitReport:
    """Load what fits and leave the rest unchanged. Raises WeightsError when nothing fits."""
    report = fit(network, tensors, file_names)
    if not report.loaded:
        raise _misfit(report, source, "these weights are for another network")
    network.load_state_dict({name: tensors[name] for name in report.loaded}, strict=False)
    return report


def load_for_finetuning(
    network: nn.Module, tensors: Mapping[str, Tensor], source: object, file_names: Mapping[str, str] | None = None
) -> FitReport:
    """Load into the network except for its heads of another shape, or that the file lacks, which stay random.

    Heads that the network lacks are not used. Raises WeightsError when anything outside the heads does not fit: the
    file belongs to another architecture.
    """
    report = fit(network, tensors, file_names)
    own = {_head_of(name) for name in network.state_dict()}
    theirs = {_head_of(name) for name in tensors}
    missing = [name for name in report.missing if _head_of(name) is None or _head_of(name) in theirs]
    unexpected = [name for name in report.unexpected if _head_of(name) is None or _head_of(name) in own]
    if missing or unexpected or any(not name.startswith("heads.") for name in report.other_shape):
        raise _misfit(report, source, "choose the recipe that the weights were trained with")
    return load_partially(network, tensors, source)


def _head_of(name: str) -> str | None:
    """Return the head that a tensor belongs to, such as `size`, whatever stack it is of; None for other tensors."""
    match = re.match(r"heads\.(?:\d+\.)?(\w+)\.", name)
    return match[1] if match else None


def _misfit(report: FitReport, source: object, hint: str) -> WeightsError:
    def some(names: tuple[str, ...]) -> str | None:
        if not names:
            return None
        return f"{len(names)}: {', '.join(names[:SHOWN])}" + (", ..." if len(names) > SHOWN else "")

    return WeightsError(
        "the weights do not fit the network",
        file=source,
        loaded=len(report.loaded),
        other_shape=some(report.other_shape),
        missing=some(report.missing),
        unexpected=some(report.unexpected),
        hint=f"{hint}; ctnet weights inspect shows what the file holds",
    )
