"""Reading on after a mistake in the annotations, for those who want to know all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ctnet.errors import DataError

T = TypeVar("T")


class Tolerant:
    """Calls what may raise DataError; with someone to tell, such a call returns None instead."""

    def __init__(self, tell: Callable[[DataError], None] | None) -> None:
        self._tell = tell

    def __call__(self, read: Callable[[], T]) -> T | None:
        """Return what `read` returns, None where it raised DataError and that was told."""
        try:
            return read()
        except DataError as error:
            if self._tell is None:
                raise
            self._tell(error)
            return None
