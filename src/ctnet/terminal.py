"""Text from files is escaped before it reaches a terminal, which would obey control characters.

A class, a file or a recipe may be called anything. `printable` is the one place where characters that move a cursor,
set a title, ring, hide or turn text around are written out; `guarded` puts it before the process's streams, so that
what anybody prints passes it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_UNSEEN = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # controls of ASCII and of ISO 8859, some of which begin sequences (ESC, CSI, OSC, DCS)
    "\xad\u180e\u200b\u2060-\u2064\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # zero-width characters
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # bidirectional controls
    "\u2028\u2029"  # ends of lines and paragraphs
    "\ud800-\udfff"  # halves of characters: bytes of a file name that are no text
    "]"
)


def printable(text: object, keep: str = "") -> str:
    r"""Return the text with every character that cannot be seen written out, such as `\x1b` or `\n`.

    Characters in `keep` stay. Without any, the result is one line that a terminal shows as it is; what it returned once
    it returns again.
    """
    return _UNSEEN.sub(lambda found: found[0] if found[0] in keep else _written_out(found[0]), str(text))


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class _Guard:
    """A text stream that escapes control characters except newlines and tabs; rich writes to the stream behind it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"a text stream takes str, not {type(text).__name__}")
        self._stream.write(printable(text, keep="\n\t"))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    @property
    def rich_proxied_file(self) -> TextIO:
        """The stream for rich consoles: ctnet's escape the text they show and add their own sequences."""
        stream = self._stream
        while (behind := getattr(stream, "rich_proxied_file", None)) is not None:
            stream = behind
        return stream

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # a way around
            raise AttributeError(name)
        return getattr(self._stream, name)


@contextmanager
def guarded() -> Iterator[None]:
    """Put a guard before standard output and standard error while the block runs.

    Characters that the streams' encoding lacks are written out too, instead of ending the command.
    """
    before = sys.stdout, sys.stderr
    for stream in before:
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors="backslashreplace")
    guards: tuple[Any, Any] = (_Guard(before[0]), _Guard(before[1]))
    sys.stdout, sys.stderr = guards
    try:
        yield
    finally:
        # a stream that somebody else has put in place stays: after a broken pipe it keeps the exit quiet
        sys.stdout = before[0] if sys.stdout is guards[0] else sys.stdout
        sys.stderr = before[1] if sys.stderr is guards[1] else sys.stderr
