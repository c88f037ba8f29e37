"""All hostile inputs, each made when it is its turn."""

from collections.abc import Iterator

from attacks import data_cases, exported_cases, other_cases, weights_cases
from attacks.running import Case


def every_case() -> Iterator[Case]:
    """Yield the cases, the same ones in the same order each time."""
    for family in (weights_cases, data_cases, other_cases, exported_cases):
        yield from family.cases()
