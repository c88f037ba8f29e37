"""The wire format of protocol buffers, read with every length checked against the bytes that are left.

Format: https://protobuf.dev/programming-guides/encoding. Each function raises ValueError with the byte offset.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ctnet.limits import NAME_BYTES, TENSOR_DIMS

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
LONGEST_VARINT = 10


class Span(NamedTuple):
    """Bytes of the file, the second bound left out."""

    start: int
    stop: int


def fields(data: memoryview, span: Span) -> Iterator[tuple[int, int | Span, int]]:
    """Yield number, value and byte offset of each field; a value of bytes is the span it lies in."""
    at = span.start
    while at < span.stop:
        here = at
        key, at = varint(data, Span(at, span.stop))
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = varint(data, Span(at, span.stop))
            yield number, value, here
            continue
        if wire == BYTES:
            length, at = varint(data, Span(at, span.stop))
        elif wire in (FIXED32, FIXED64):
            length = 4 if wire == FIXED32 else 8
        else:
            raise ValueError(f"no field can begin with {key} at byte {here}")
        if length > span.stop - at:
            raise ValueError(f"{length} bytes are announced at byte {here} and {span.stop - at} are left")
        yield number, Span(at, at + length), here
        at += length


def varint(data: bytes | memoryview, span: Span) -> tuple[int, int]:
    """Return the number and the place after it."""
    number = 0
    for i, at in enumerate(range(span.start, min(span.stop, span.start + LONGEST_VARINT))):
        number |= (data[at] & 0x7F) << (7 * i)
        if data[at] < 0x80:
            return number, at + 1
    raise ValueError(f"the number at byte {span.start} does not end")


def as_span(value: int | Span, at: int) -> Span:
    """Return the value of a field that must hold bytes; `at` is where the field begins."""
    if isinstance(value, int):
        raise ValueError(f"a number where bytes belong at byte {at}")
    return value


def text(data: memoryview, span: Span) -> str:
    """Return a name."""
    if span.stop - span.start > NAME_BYTES.most:
        raise ValueError(f"a name of {span.stop - span.start} bytes at byte {span.start}")
    try:
        return str(data[span.start : span.stop], "utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"a name that is no text at byte {span.start}") from None


def signed(data: memoryview, value: int | Span) -> list[int]:
    """Return the sizes in one field, packed or single; they are signed numbers of 64 bits."""
    numbers = [value] if isinstance(value, int) else []
    if isinstance(value, Span):
        at = value.start
        while at < value.stop and len(numbers) <= TENSOR_DIMS.most:
            number, at = varint(data, Span(at, value.stop))
            numbers.append(number)
    return [n - (1 << 64) if n >= 1 << 63 else n for n in numbers]
