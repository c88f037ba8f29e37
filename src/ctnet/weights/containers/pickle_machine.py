"""Pickles of every protocol, interpreted as data: no class is looked up, nothing that a file names is called.

A pickle is a program for a machine with a stack and a memo (Python's Lib/pickletools.py describes each instruction).
This machine knows lists, dictionaries, tuples and plain values. A global is a `Name`; where the program calls one, a
function of a table makes a value in its place, and a name that is not in the table ends the reading. What the program
asks for can be neither larger than the file nor endless (`ctnet.limits`).
"""

from __future__ import annotations

import codecs
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from ctnet.limits import KEY_PARTS, PICKLE_STEPS, TooMuch

Builder = Callable[..., Any]
"""Called with a function that takes a number of bytes to be made, which raises when all are more than the file has,
and with the arguments that the pickle gives."""


class Stream(Protocol):
    """Bytes in order: a file, a mapped file, bytes in memory."""

    def read(self, size: int, /) -> bytes: ...  # noqa: D102
    def readline(self) -> bytes: ...  # noqa: D102
    def tell(self) -> int: ...  # noqa: D102


class Name(NamedTuple):
    """What a pickle calls by a name."""

    full: str


class Foreign(Exception):
    """The pickle refers to code; `name` is its name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Inert:
    """A value that a builder made. State that a pickle sets on it is dropped unless a class below keeps it."""

    def set_state(self, spend: Callable[[int], None], state: Any) -> None:
        """Take the state that the pickle gives."""


class Opaque(Inert):
    """An unused object; its arguments and state are dropped."""

    def __init__(self, *_: Any) -> None: ...


class Machine:
    """Reads pickles out of a stream of `size` bytes; `names` maps each global to its substitute.

    `stored` makes the value behind a persistent id, which torch uses for the content of tensors.
    """

    def __init__(
        self, stream: Stream, size: int, names: Mapping[str, Builder], stored: Callable[[Any], Any] | None = None
    ) -> None:
        self._stream, self._names, self._stored = stream, names, stored
        # protocol 2 writes bytes as text, from which an array is made in two steps
        self._left, self._steps = 4 * size, 0

    def load(self) -> Any:
        """Return the value of the next pickle, the stream after its end.

        Raises Foreign for a global that is not in the table, and ValueError with the byte where it makes no sense.
        """
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []  # the stacks below each mark
        self._memo: dict[int, Any] = {}
        read = self._stream.read
        name = ""
        try:
            while name != "STOP":
                code = read(1)
                name, argument, carry_out = _OPCODES[code]
                self._steps += 1
                if self._steps > PICKLE_STEPS.most:
                    PICKLE_STEPS.check(self._steps)
                carry_out(self, argument(self._stream) if argument else None)
            return self._stack.pop()
        except (IndexError, KeyError):
            at = f"before byte {self._stream.tell()}"
            if code not in _OPCODES:
                got = f"{code!r} is no instruction of a pickle" if code else "the pickle has no end"
                raise ValueError(f"{got}, {at}") from None
            raise ValueError(f"the instruction {name} lacks what it works on, {at}") from None
        except (ValueError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
            raise ValueError(f"{error}, before byte {self._stream.tell()}") from None

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _put(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    def _get(self, place: int) -> None:
        self._stack.append(self._memo[place])

    def _tuple(self, count: int) -> None:
        """Put a tuple in the place of the last `count` of the stack."""
        if len(self._stack) < count:
            raise IndexError
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _since_mark(self) -> list[Any]:
        """Return what lies above the last mark, which goes."""
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _mark(self, _: Any) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._since_mark()

    def _memoise(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _append(self, item: list[Any]) -> None:
        """Add to the list, or the set, on top of the stack."""
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(item)
        elif not isinstance(target, Opaque):
            raise ValueError(f"items for a {type(target).__name__}")

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if len(items) % 2:
            raise IndexError
        if isinstance(target, dict):
            for key in items[::2]:
                _check_key(key)
            target.update(zip(items[::2], items[1::2], strict=True))
        elif not isinstance(target, Opaque):
            raise ValueError(f"entries for a {type(target).__name__}")

    def _dictionary(self, items: list[Any]) -> None:
        self._stack.append({})
        self._set_items(items)

    def _global(self, full: str) -> None:
        full = full.replace("__builtin__.", "builtins.", 1) if full.startswith("__builtin__.") else full
        if full not in self._names:
            raise Foreign(full)
        self._stack.append(Name(full))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a name that is no text")
        self._global(f"{module}.{name}")

    def _extension(self, code: int) -> None:
        raise Foreign(f"copyreg extension {code}")

    def _call(self, called: Any, arguments: Any) -> None:
        if not isinstance(called, Name):
            raise ValueError(f"a call of a {type(called).__name__}")
        if not isinstance(arguments, tuple):
            raise ValueError("a call without its arguments")
        self._stack.append(self._names[called.full](self._spend, *arguments))

    def _reduce(self, _: Any) -> None:
        arguments, called = self._stack.pop(), self._stack.pop()
        self._call(called, arguments)

    def _new_with_keywords(self, _: Any) -> None:
        self._stack.pop()  # no builder has a use for them
        self._reduce(_)

    def _object(self, items: list[Any]) -> None:
        self._call(items[0], tuple(items[1:]))

    def _instance(self, full: str) -> None:
        items = self._since_mark()
        self._global(full.replace(" ", ".", 1))
        self._call(self._stack.pop(), tuple(items))

    def _build(self, _: Any) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Inert):  # attributes of dictionaries and tensors are of no use here
            target.set_state(self._spend, state)

    def _elsewhere(self, _: Any) -> None:
        raise ValueError("a content that is kept outside of the file")

    def _persistent(self, _: Any) -> None:
        if self._stored is None:
            self._elsewhere(_)
            return
        self._stack.append(self._stored(self._stack.pop()))

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise TooMuch("a pickle that makes more than it holds")


def _check_key(key: Any) -> None:
    """Raise TooMuch for a key of which the hash would take long: the same tuple may lie in it a billion times."""
    waiting, parts = [key], 0
    while waiting:
        part = waiting.pop()
        parts += 1
        if isinstance(part, tuple):
            KEY_PARTS.check(parts + len(waiting) + len(part))
            waiting += part
        elif isinstance(part, int) and part.bit_length() > 8 * KEY_PARTS.most:
            raise TooMuch(f"a number of {part.bit_length()} bits as a key")
        KEY_PARTS.check(parts)


def _text_of_python_2(stream: Stream) -> str:
    line = stream.readline().strip()  # pickletools wants ASCII here, and Python 2 wrote any bytes
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError("a text without quotation marks")
    return codecs.escape_decode(line[1:-1])[0].decode("latin1")  # type: ignore[attr-defined, no-any-return]


_SAME = """INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE
    SHORT_BINUNICODE BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"""

_INSTRUCTIONS: dict[str, Callable[[Machine, Any], None]] = {
    "PROTO": lambda m, _: None,
    "FRAME": lambda m, _: None,
    "STOP": lambda m, _: None,
    **dict.fromkeys(_SAME.split(), Machine._push),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine._put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine._get),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), Machine._extension),
    **dict.fromkeys(("PERSID", "NEXT_BUFFER", "READONLY_BUFFER"), Machine._elsewhere),
    "NONE": lambda m, _: m._push(None),
    "NEWTRUE": lambda m, _: m._push(True),
    "NEWFALSE": lambda m, _: m._push(False),
    "EMPTY_TUPLE": lambda m, _: m._push(()),
    "TUPLE1": lambda m, _: m._tuple(1),
    "TUPLE2": lambda m, _: m._tuple(2),
    "TUPLE3": lambda m, _: m._tuple(3),
    "MARK": Machine._mark,
    "POP": Machine._pop,
    "POP_MARK": lambda m, _: m._since_mark().clear(),
    "DUP": lambda m, _: m._push(m._stack[-1]),
    "MEMOIZE": Machine._memoise,
    "EMPTY_LIST": lambda m, _: m._push([]),
    "EMPTY_DICT": lambda m, _: m._push({}),
    "EMPTY_SET": lambda m, _: m._push(Opaque()),
    "LIST": lambda m, _: m._push(m._since_mark()),
    "TUPLE": lambda m, _: m._push(tuple(m._since_mark())),
    "DICT": lambda m, _: m._dictionary(m._since_mark()),
    "FROZENSET": lambda m, _: m._push(Opaque(m._since_mark())),
    "APPEND": lambda m, _: m._append([m._stack.pop()]),
    "APPENDS": lambda m, _: m._append(m._since_mark()),
    "ADDITEMS": lambda m, _: m._append(m._since_mark()),
    "SETITEM": lambda m, _: m._set_items([m._stack.pop(-2), m._stack.pop()]),
    "SETITEMS": lambda m, _: m._set_items(m._since_mark()),
    "GLOBAL": lambda m, full: m._global(full.replace(" ", ".", 1)),
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "NEWOBJ": Machine._reduce,
    "NEWOBJ_EX": Machine._new_with_keywords,
    "OBJ": lambda m, _: m._object(m._since_mark()),
    "INST": Machine._instance,
    "BUILD": Machine._build,
    "BINPERSID": Machine._persistent,
}

_OPCODES: dict[bytes, tuple[str, Any, Callable[[Machine, Any], None]]] = {
    op.code.encode("latin1"): (
        op.name,
        _text_of_python_2 if op.name == "STRING" else op.arg and op.arg.reader,
        _INSTRUCTIONS[op.name],
    )
    for op in pickletools.opcodes
}
