"""What a check is and what it yields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ctnet.devices.vendor import first_line

Check = Callable[[], str]
"""Returns what was seen, in a few words; raises `Skip` where there is nothing to check, else what is wrong."""


class Skip(Exception):
    """There is nothing to check on this device, for the reason in the text."""


class Nonconforming(Exception):
    """The device breaks the contract."""


class Result(NamedTuple):
    """One row of the table."""

    check: str
    outcome: Literal["passed", "failed", "skipped"]
    detail: str


def run(checks: Iterable[tuple[str, Check]]) -> Iterator[Result]:
    """Yield a result per check; whatever a check raises is its result."""
    for name, check in checks:
        try:
            yield Result(name, "passed", check())
        except Skip as reason:
            yield Result(name, "skipped", str(reason))
        except Nonconforming as fault:
            yield Result(name, "failed", str(fault))
        except Exception as error:
            yield Result(name, "failed", first_line(error))


def need(condition: bool, otherwise: str) -> None:
    """Raise Nonconforming with a text unless the condition holds."""
    if not condition:
        raise Nonconforming(otherwise)


def deviation(got: Tensor, expected: Tensor, what: str, bound: float) -> float:
    """Return the largest difference relative to the largest expected value.

    Numbers that are not finite have to be in the same places; NaN and infinity count as equal. Raises Nonconforming
    where they are elsewhere, and above the bound.
    """
    need(got.shape == expected.shape, f"{what}: shape {tuple(got.shape)}, expected {tuple(expected.shape)}")
    finite, seen = expected.detach().isfinite(), got.detach().cpu()
    need(torch.equal(seen.isfinite(), finite), f"{what}: other numbers than expected are not finite")
    if not finite.any():
        return 0.0
    exact = expected.detach()[finite].double()
    found = float((seen[finite].double() - exact).abs().max()) / (float(exact.abs().max()) or 1.0)
    need(found <= bound, f"{what}: deviates by {found:.1e}, at most {bound:.0e} is allowed")
    return found
