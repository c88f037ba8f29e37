"""Names of tensors here and in other projects' files, as tables of prefixes that serve both directions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module

from ctnet.config import Model

Pairs = Sequence[tuple[str, str]]
"""(ours, theirs): a module or tensor here, and there; dots only between parts, "" is the whole network."""


def foreign_names(names: Iterable[str], pairs: Pairs) -> dict[str, str]:
    """Return the foreign name of each of our tensor names: the longest of our prefixes that fits is replaced.

    Raises KeyError for a name that no pair covers, which is a gap in the table.
    """
    by_length = sorted(pairs, key=lambda pair: -len(pair[0]))
    return {name: _replace(name, by_length) for name in names}


def detector_pairs(project: str, model: Model) -> Pairs:
    """Return the names of a detector's tensors in another project's files; see `Model.foreign`.

    Raises KeyError when the project has no such detector.
    """
    module, _, function = model.foreign[project].partition(":")
    pairs: Pairs = getattr(import_module(f"ctnet.weights.{module}"), function)(model)
    return pairs


def _replace(name: str, pairs: Pairs) -> str:
    for ours, theirs in pairs:
        if not ours or name == ours or name.startswith(f"{ours}."):
            rest = name[len(ours) :].lstrip(".")
            return f"{theirs}.{rest}" if theirs and rest else theirs or rest
    raise KeyError(name)
