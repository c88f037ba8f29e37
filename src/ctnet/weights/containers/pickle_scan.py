"""A look over a pickle's instructions before any of them is carried out.

Unpicklers trust three numbers that a file may choose freely: how long the next bytes are, where the memo grows to, and
how deep tuples nest, which hashing follows without a limit. Here each is checked against what is really there.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import Any, Protocol


class Stream(Protocol):
    """Bytes in order: a file, a mapped file, bytes in memory."""

    def read(self, size: int, /) -> bytes: ...  # noqa: D102
    def readline(self) -> bytes: ...  # noqa: D102
    def tell(self) -> int: ...  # noqa: D102


DEEPEST = 200
"""Honest checkpoints stay below twenty."""

_FILLERS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
_PUTS, _GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}
_REFUSED = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}
_MARK = -1
_OPCODES: dict[str, Any] = {op.code: op for op in pickletools.opcodes}


def scan(stream: Stream) -> None:
    """Read the instructions of one pickle, leaving the stream after it. Raises ValueError with the byte offset."""
    depths: list[int] = []  # of the objects on the stack
    memo: dict[int, int] = {}
    for count, (op, arg, at) in enumerate(_instructions(stream)):
        try:
            if op.name in _REFUSED:
                raise ValueError(f"the instruction {op.name}")
            if op.name in _PUTS or op.name == "MEMOIZE":
                place = len(memo) if op.name == "MEMOIZE" else arg
                if place > count:
                    raise ValueError(f"place {place} in a memo of at most {count}")
                memo[place] = depths[-1]
            elif op.name in _GETS:
                depths.append(memo[arg])
            else:
                _step(op, depths)
        except (IndexError, KeyError):
            raise ValueError(f"the instruction {op.name} at byte {at} lacks what it works on") from None
        except ValueError as error:
            raise ValueError(f"{error} at byte {at}") from None


def _instructions(stream: Stream) -> Iterator[tuple[Any, Any, int]]:
    """Yield instruction, argument and byte offset, up to the one that ends the pickle."""
    name = ""
    while name != "STOP":
        at = stream.tell()
        code = stream.read(1).decode("latin1")
        if code not in _OPCODES:
            raise ValueError(
                f"{code!r} is no instruction of a pickle, at byte {at}" if code else "the pickle has no end"
            )
        op = _OPCODES[code]
        name = op.name
        if name == "STRING":  # pickletools wants ASCII here, and Python 2 wrote any bytes
            yield op, stream.readline(), at
        else:
            yield op, op.arg.reader(stream) if op.arg else None, at


def _step(op: Any, depths: list[int]) -> None:
    """Carry out one instruction on depths in place of objects."""
    if op.name == "DUP":
        depths.append(depths[-1])
        return
    wanted = list(op.stack_before)
    taken: list[int] = []
    if pickletools.stackslice in wanted or op.name == "POP_MARK":
        while (depth := depths.pop()) != _MARK:
            taken.append(depth)
        wanted = [kind for kind in wanted if kind not in (pickletools.markobject, pickletools.stackslice)]
    taken += [depths.pop() for _ in wanted]
    if op.name == "MARK":
        depths.append(_MARK)
    elif op.stack_after:
        inner = 1 + max(taken, default=0)
        if op.name in _FILLERS:
            inner = max(taken[-1], 1 + max(taken[:-1], default=0))
        if inner > DEEPEST:
            raise ValueError(f"objects nested more than {DEEPEST} deep")
        depths.append(inner)
