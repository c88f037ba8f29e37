"""The kind of a file, from its first bytes and never from its name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from ctnet.errors import WeightsError
from ctnet.files import POINTER
from ctnet.weights.containers.mindspore_file import begins_like_mindspore
from ctnet.weights.containers.onnx_file import begins_like_onnx
from ctnet.weights.containers.refusals import no_weights

Kind = Literal["torch", "torch-legacy", "pickle", "mindspore", "safetensors", "onnx"]

HEAD = 4096
SUFFIXES = {".pth", ".pt", ".pkl", ".ckpt", ".safetensors"}
LARGEST_HEADER = 100_000_000  # the limit that the safetensors format sets for its header

# torch/serialization.py: MAGIC_NUMBER as a pickled integer, in protocols 2 to 5 and in 1
LEGACY_MAGIC = re.compile(
    rb"\x80.{1,16}\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19|L119547037146038801333356L\n", re.DOTALL
)

# Protocols 2 to 5 begin with their number; 0 and 1 with the first object, here a dictionary, a list or a named class.
_PICKLE = re.compile(rb"\x80[\x00-\x05]|\((?:d|l)p?\d*\n|[}\]]q|c[\w.]+\n[\w.]+\n")

_FOREIGN = (
    (POINTER, "a git-lfs pointer, not the file", "run `git lfs pull`"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ\0|\x28\xb5\x2f\xfd", "a compressed file", "unpack it first"),
    (rb".{257}ustar", "a tar archive", "unpack it first"),
    (rb"\x89HDF", "an HDF5 file (Keras?)", None),
    (rb"\x93NUMPY", "a numpy array", None),
    (rb"(?i)\s*<(?:!doctype|html|\?xml|head|body)", "a web page, as a failed download leaves it", "download it again"),
)


def find_kind(path: Path) -> Kind:
    """Return the kind of the file. Raises WeightsError with the kind that was found, or the reason."""
    head, size = _head(path)
    # asked before the zip archive: a header of 19,280 bytes also begins with PK
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LARGEST_HEADER:
        return "safetensors"
    if head.startswith(b"PK"):
        return "torch"
    if LEGACY_MAGIC.match(head):
        return "torch-legacy"
    if _PICKLE.match(head):
        return "pickle"
    if begins_like_mindspore(head):
        return "mindspore"
    if begins_like_onnx(head):
        return "onnx"
    raise _something_else(path, head, size)


def _head(path: Path) -> tuple[bytes, int]:
    """Return the first bytes and the size."""
    try:
        if path.is_dir():
            inside = [*path.iterdir(), *path.glob("checkpoints/*")]  # of a run
            names = sorted(p.relative_to(path).as_posix() for p in inside if p.suffix in SUFFIXES)
            raise no_weights(path, "a folder", f"name a file in it: {', '.join(names[:5])}" if names else None)
        if path.exists() and not path.is_file():  # reading a pipe would block
            raise no_weights(path, "no ordinary file")
        with path.open("rb") as file:
            head = file.read(HEAD)
            return head, file.seek(0, 2)
    except OSError as error:
        raise WeightsError("the weights cannot be read", file=path, got=error.strerror) from None


def _something_else(path: Path, head: bytes, size: int) -> WeightsError:
    if not head:
        return no_weights(path, "an empty file", "fetch or copy it again")
    for pattern, name, hint in _FOREIGN:
        if re.match(pattern, head, re.DOTALL):
            return no_weights(path, name, hint)
    text = head.decode("utf-8", "ignore")
    if len(text.encode()) + 3 >= len(head) and all(c.isprintable() or c.isspace() for c in text):
        name = "JSON" if text.lstrip()[:1] in ("{", "[") else "text"
        return no_weights(path, f"{name} that begins {text.strip()[:40]!r}")
    return no_weights(path, f"{size} bytes of an unknown format, beginning {head[:8].hex(' ')}")
