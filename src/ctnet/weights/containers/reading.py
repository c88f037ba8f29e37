"""Which kind of file is this? By its first bytes, never by its name."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from ctnet.errors import WeightsError
from ctnet.weights.containers import arrays_pickle, mindspore, torch_file
from ctnet.weights.containers.container import Container

KNOWN = "weights of ctnet (.safetensors), torch (.pth, .pt), detectron2 (.pkl) or MindSpore (.ckpt)"


def read_container(path: Path) -> Container:
    """Return the network's tensors in a file, on the cpu, told apart by content.

    Tensors of large files stay on the disk until they are used. Raises WeightsError, with what the file looks like,
    when it is missing, cut short, damaged or something else.
    """
    if path.is_dir():
        inside = sorted(p.name for p in path.rglob("*") if p.suffix in (".pth", ".pt", ".pkl", ".ckpt", ".safetensors"))
        hint = f"it holds {', '.join(inside[:5])}" if inside else None
        raise WeightsError("a file of weights is expected, this is a folder", file=path, hint=hint)
    try:
        with path.open("rb") as file:
            head = file.read(512)
        size = path.stat().st_size
    except OSError as error:
        raise WeightsError("the weights cannot be read", file=path, got=error.strerror) from None
    if head[:4] == b"PK\x03\x04":
        return torch_file.read_zip(path)
    if head.startswith(torch_file.LEGACY_MAGIC):
        return torch_file.read_legacy(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 27:
        return _read_safetensors(path)
    if (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05") or _old_pickle(path, head, size):
        return arrays_pickle.read(path)
    if mindspore.looks_like(head):
        return mindspore.read(path)
    raise WeightsError("this is no file of weights", file=path, expected=KNOWN, got=_looks_like(head))


def _old_pickle(path: Path, head: bytes, size: int) -> bool:
    """Say whether this is a pickle from before protocols had a mark: a dict or tuple at the start, a dot at the end."""
    if not head.startswith((b"(", b"}", b"c", b"]")) or size < 2:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"."


def _read_safetensors(path: Path) -> Container:
    try:
        with safe_open(path, framework="pt") as file:
            meta = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError("the file is cut short or damaged", file=path, got=error) from None
    return Container("safetensors", tensors, "", meta)


def _looks_like(head: bytes) -> str:
    """Return in words what the first bytes of a file say."""
    if not head:
        return "an empty file"
    for start, what in (
        (b"\x1f\x8b", "a gzip archive; unpack it first"),
        (b"\x08", "an ONNX graph, perhaps"),
        (b"<", "a web page or XML; was the download one?"),
        (b"version https://git-lfs", "a pointer of Git LFS; fetch the file itself"),
    ):
        if head.startswith(start):
            return what
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    try:
        text = head.decode()
    except UnicodeDecodeError:
        return f"bytes that begin with {head[:8].hex(' ')}"
    return f"text that begins with {text[:40]!r}"
