"""Decisions read off a string of bytes, which Hypothesis draws at once and shortens when a case fails."""

from collections.abc import Sequence
from typing import Any


class Choices:
    """A source of decisions that answers 0 once its bytes are used up."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    @property
    def left(self) -> bool:
        return self._at < len(self._content)

    def byte(self) -> int:
        self._at += 1
        return self._content[self._at - 1] if self._at <= len(self._content) else 0

    def below(self, bound: int) -> int:
        """Return a number of 0..bound-1; 0 when there is none."""
        if bound <= 1:
            return 0
        number = self.byte()
        if bound > 256:
            number |= self.byte() << 8
        return number % bound

    def pick(self, things: Sequence[Any]) -> Any:
        return things[self.below(len(things))]

    def span(self, length: int, longest: int = 64) -> slice:
        """Return a part of something of this length, which may be empty."""
        start = self.below(length + 1)
        return slice(start, min(start + self.below(longest), length))
