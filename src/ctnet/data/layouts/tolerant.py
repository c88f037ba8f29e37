"""Reading on after a mistake in the annotations, to list all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from ctnet.data.layouts.layout import Tolerate
from ctnet.errors import DataError

A = TypeVar("A")
T = TypeVar("T")


class Tolerant:
    """Calls functions that may raise DataError; `tolerate`, if there is one, gets the error instead of the caller."""

    def __init__(self, tolerate: Tolerate | None) -> None:
        self.tolerate = tolerate

    def __call__(self, read: Callable[[], T]) -> T | None:
        """Return what `read` returns, None when it raised a DataError that was tolerated."""
        try:
            return read()
        except DataError as error:
            self.accept(error)
            return None

    def each(self, read: Callable[[A], T], items: Iterable[A]) -> list[T]:
        """Return what `read` returns for each item, without those that raised a DataError that was tolerated."""
        return [found for item in items if (found := self(partial(read, item))) is not None]

    def accept(self, error: DataError) -> None:
        """Raise the error unless it is tolerated."""
        if self.tolerate is None:
            raise error
        self.tolerate(error)
