"""What several families share: values that no setting expects, trees with one of them in each place, odd files."""

import copy
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attacks.running import Place

ESCAPES = ("\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "bell\x07", "back\b\b\bspace", "one\rtwo", "\x9b31m", "‮gnp.exe")
TRAVERSALS = (
    "../../../../outside/x", "../../../../../../outside/x", "../" * 9 + "outside/x", "/OUTSIDE/x", "..", ".", "a/b",
    "a\\..\\b", "nul\0byte", "~/x", "x" * 300, "-rf", "",
)  # fmt: skip
VALUES = (
    None, True, "text", -1, 0, 1e30, 2**70, 10**9, float("nan"), float("inf"), [], {}, [[]], [1, 2, 3, 4, 5, 6],
    {"a": None}, "\x1b[2J", "../../../../outside/x", "9" * 5000, "x" * 100_000,
)  # fmt: skip
DEPTHS = (60, 1000, 5000, 100_000)
_ABSENT = object()


def traversal(text: str, place: Place) -> str:
    """Return a name that leads out, an absolute one into the place's own `outside`."""
    return text.replace("/OUTSIDE", str(place.outside))


def spoiled(tree: Any, values: tuple[Any, ...] = VALUES, *, per_place: int) -> Iterator[tuple[str, Any]]:
    """Yield copies of a tree with `per_place` of the values in each place, in turn, and one without each key."""
    turn = 0
    for path in _paths(tree):
        for _ in range(per_place):
            yield (
                f"{'.'.join(map(str, path))}={_name(values[turn % len(values)])}",
                _with(tree, path, values[turn % len(values)]),
            )
            turn += 1
        yield f"{'.'.join(map(str, path))} absent", _with(tree, path, _ABSENT)


def _paths(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key in tree if isinstance(tree, dict) else range(min(len(tree), 2)) if isinstance(tree, list) else ():
        yield (*path, key)
        yield from _paths(tree[key], (*path, key))


def _with(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    tree = copy.deepcopy(tree)
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    if value is _ABSENT:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return tree


def _name(value: Any) -> str:
    text = ascii(value)
    return text if len(text) < 30 else f"{text[:20]}({len(text)})"


def nested(opening: str, closing: str, depth: int, inside: str = "") -> str:
    return opening * depth + inside + closing * depth


ODD: dict[str, Callable[[Path], None]] = {
    "fifo": lambda path: os.mkfifo(path),
    "folder": lambda path: path.mkdir(),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "link to /dev/full": lambda path: path.symlink_to("/dev/full"),
    "socket": lambda path: socket.socket(socket.AF_UNIX).bind(_short(path)),
    "empty": lambda path: path.write_bytes(b""),
    "noise": lambda path: path.write_bytes(bytes((i * 7919 + i // 251) % 256 for i in range(5000))),
    "zeros": lambda path: path.write_bytes(bytes(5000)),
    "UTF-16": lambda path: path.write_bytes("{}\n".encode("utf-16")),
    "no rights": lambda path: (path.write_bytes(b"x"), path.chmod(0)),
}


def _short(path: Path) -> str:
    """Return the path relative to where we are if need be: a socket's name has 107 bytes."""
    return str(path) if len(str(path)) < 100 else os.path.relpath(path)


def make_odd(path: Path, kind: str) -> Path:
    """Put something that is no ordinary file of its kind at the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() or path.is_symlink():
        path.unlink()
    ODD[kind](path)
    return path


def predict_with(place: Place, weights: Path) -> list[object]:
    """Return the command that uses the weights on an image."""
    return ["predict", place.copy("a.jpg"), "--weights", weights, "--device", "cpu"]


def header_and_rest(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header of a safetensors file as JSON, and its numbers."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(header: Any, rest: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def with_about(content: bytes, about: Any) -> bytes:
    """Return ctnet's weights with other words about themselves."""
    header, rest = header_and_rest(content)
    header["__metadata__"]["ctnet"] = about if isinstance(about, str) else json.dumps(about)
    header["__metadata__"].pop("ctnet.sha256", None)  # whoever changes the words leaves out the digest
    return with_header(header, rest)
