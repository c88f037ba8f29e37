"""Small files that ask for much: generators by kind, each `name: function(path)` writing one file."""

import json
import os
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

Write = Callable[[Path], None]

LEGACY_HEAD = b"".join(pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))


def peak_megabytes() -> int:
    """The most memory of this program; getrusage's figure includes that of the process which started it."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word.encode())) + word.encode()


def call(name: str, arguments: bytes) -> bytes:
    module, _, function = name.rpartition(".")
    return f"c{module}\n{function}\n".encode() + arguments + b"R"


def doubling(levels: int, end: bytes = b"\x86") -> bytes:
    """A tuple (or, with the end of APPENDS, a list) that holds the one before twice."""
    if end == b"\x86":
        return b")" + b"2\x86" * levels
    return b"]q\0" + b"".join(b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(levels))


def storage(count: int, kind: str = "FloatStorage") -> bytes:
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text("0") + text("cpu") + number(count) + b"tQ"


def number(value: int) -> bytes:
    raw = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def sizes(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(count: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    arguments = b"(" + storage(count) + number(offset) + sizes(*size) + sizes(*stride) + b"\x89}t"
    return call("torch._utils._rebuild_tensor_v2", arguments)


def entry(value: bytes, key: bytes = text("w")) -> bytes:
    return b"}" + key + value + b"s"


_MEGABYTE = b"X" + struct.pack("<I", 1 << 20) + b"x" * (1 << 20)

_PLACES = [struct.pack("<I", i) for i in range(100_000)]

PICKLES: dict[str, bytes] = {
    **{
        f"{name.rpartition('.')[2]}-of-8-GB": entry(call(name, number(8_000_000_000) + b"\x85"))
        for name in ("__builtin__.bytearray", "__builtin__.bytes", "__builtin__.list", "__builtin__.range")
    },
    "zeros": entry(call("torch.zeros", number(8_000_000_000) + b"\x85")),
    "repeat": entry(call("operator.mul", b"]N a".replace(b" ", b"") + number(8_000_000_000) + b"\x86")),
    "storage-of-8-GB": entry(tensor(2_000_000_000, (2,), (1,))),
    "storage-of-2^59": entry(tensor(1 << 59, (2,), (1,))),
    "negative-storage": entry(tensor(-5, (2,), (1,))),
    "size-of-8-GB": entry(tensor(4, (2_000_000_000,), (1,))),
    "size-of-2^62": entry(tensor(4, (1 << 62, 4), (0, 0))),
    "negative-size": entry(tensor(4, (-1,), (1,))),
    "stride-of-2^62": entry(tensor(4, (2, 2), (1 << 62, 1 << 62))),
    "offset-of-2^59": entry(tensor(4, (2,), (1,), 1 << 59)),
    "expanded": entry(tensor(4, (1_000_000, 1_000_000), (0, 0))),
    "a-thousand-dimensions": entry(tensor(4, (1,) * 1000, (1,) * 1000)),
    "storage-resized": entry(tensor(4, (2,), (1,)) + b"(" + storage(4) + number(0) + sizes(1 << 31) + sizes(1) + b"tb"),
    "items-of-a-tensor": entry(tensor(4, (1 << 40,), (0,)) + b"K\0K\1s"),
    "tuple-as-key-2^60": entry(b"N", doubling(60)),
    "tuple-as-key-2^60-in-a-set": entry(b"\x8f(" + doubling(60) + b"\x90"),
    "frozensets": entry(b"N", b"(" + doubling(60) + b"\x91"),
    "list-2^60": entry(doubling(60, b"e")),
    "deep-tuple-as-key": entry(b"N", b")" + b"\x85" * 200_000),
    "deep-lists": entry(b"]" * 200_000 + b"a" * 199_999),
    "memo-chain": entry(b"]" + b"".join(b"r" + place + b"]j" + place + b"a" for place in _PLACES)),
    "long-text-often": entry(b"](" + _MEGABYTE + b"q\0" + b"h\0" * 100_000 + b"e"),
    "long-text-encoded-often": entry(b"](" + _MEGABYTE + b"q\0" + b"c_codecs\nencode\nq\1h\0\x85R" * 20_000 + b"e"),
    "long-number-as-key": b"}(\x8b"
    + struct.pack("<I", 1 << 20) + b"\x7f" * (1 << 20) + b"q\0N" + b"h\0N" * 100_000 + b"u",
    "array-of-8-GB": entry(
        call("numpy.core.multiarray._reconstruct", b"cnumpy\nndarray\nK\0\x85U\1b\x87")
        + b"(K\1" + sizes(2_000_000_000) + call("numpy.dtype", text("f4") + b"K\0K\1\x87")
        + b"(K\3" + text("<") + b"NNNK\0K\0K\0tb\x89U\4abcdtb"
    ),
    "array-of-texts": entry(call("numpy.dtype", text("U2000000000") + b"K\0K\1\x87")),
    "array-often": entry(
        b"](" + b"B" + struct.pack("<I", 1 << 20) + b"\0" * (1 << 20) + b"q\0"
        + call("numpy.dtype", text("u1") + b"K\0K\1\x87") + b"q\1" + sizes(1 << 20) + b"q\2"
        + b"cnumpy.core.numeric\n_frombuffer\nq\3"
        + b"h\3(h\0h\1h\2X\1\0\0\0CtR" * 20_000 + b"e"
    ),
    "announced-2^60": b"\x8e" + struct.pack("<Q", 1 << 60),
    "announced-bytearray-2^60": b"\x96" + struct.pack("<Q", 1 << 60),
    "frame-of-2^62": b"\x95" + struct.pack("<Q", 1 << 62) + entry(b"N"),
    "memo-2^32": b"}r" + struct.pack("<I", 0xFFFFFFF0),
    "memo-of-text": b"}p" + b"9" * 4000 + b"\n",
    "number-of-a-million-digits": b"L" + b"9" * 1_000_000 + b"L\n",
    "nothing-five-million-times": b"N0" * 2_500_000 + b"}",
    "buffer-elsewhere": b"\x97",
    "extension": b"\x82\1",
    "counter": entry(call("collections.Counter", text("x" * 1000) + b"\x85")),
    "pairs-often": entry(
        b"](](](" + text("k") + b"Ne" + b"2" * 100_000 + b"eq\0"
        + call("collections.OrderedDict", b"h\0\x85") * 5_000 + b"e"
    ),
    "partial": entry(call("functools.partial", call("operator.attrgetter", text("a") + b"\x85") + b"\x85")),
    "system": entry(call("posix.system", text("touch canary") + b"\x85")),
    "eval": entry(call("__builtin__.eval", text("open('canary','w')") + b"\x85")),
    "getattr": entry(call("__builtin__.getattr", b"cos\nsystem\n" + text("x") + b"\x86")),
}  # fmt: skip
"""Pickles without the first two bytes and without the end."""


def zipped(content: bytes) -> Write:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02" + content + b".")
            archive.writestr("archive/data/0", bytes(16))
            archive.writestr("archive/version", "3\n")

    return write


def legacy(content: bytes) -> Write:
    return lambda path: (
        path.write_bytes(LEGACY_HEAD + b"\x80\x02" + content + b"." + pickle.dumps(["0"], 2) + bytes(24)) and None
    )


def plain(content: bytes) -> Write:
    return lambda path: path.write_bytes(b"\x80\x02" + content + b".") and None


def compressed(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("archive/data.pkl", "w", force_zip64=True) as file,
    ):
        for _ in range(300):
            file.write(bytes(1 << 20))


def million_entries(path: Path) -> None:
    entry = b"PK\1\2" + bytes(24) + struct.pack("<HHHHHII", 1, 0, 0, 0, 0, 0, 0) + b"a"
    content = entry * 1_000_000
    path.write_bytes(content + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, len(content), 0, 0))


def header(content: bytes, announced: int | None = None) -> Write:
    """A safetensors file: the length of its header, the header, nothing."""
    size = len(content) if announced is None else announced
    return lambda path: path.write_bytes(struct.pack("<Q", size) + content) and None


def _claims(**fields: object) -> bytes:
    return json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **fields}}).encode()


SAFETENSORS: dict[str, Write] = {
    "header-of-2^63": header(b"{}", 1 << 63),
    "header-of-99-MB": header(b"{}", 99_000_000),
    "shape-of-8-GB": header(_claims(shape=[2_000_000_000], data_offsets=[0, 8_000_000_000])),
    "shape-of-2^63": header(_claims(shape=[1 << 62, 1 << 62], data_offsets=[0, 8])),
    "offsets-backwards": header(_claims(data_offsets=[8, 0])),
    "deep": header(b'{"w":' + b"[" * 100_000),
    "a-million-tensors": header(
        b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(500_000)) + b"}"
    ),
}

WEIGHTS: dict[str, Write] = {
    **{f"zip-{name}": zipped(content) for name, content in PICKLES.items()},
    **{f"legacy-{name}": legacy(content) for name, content in PICKLES.items()},
    **{f"pickle-{name}": plain(content) for name, content in PICKLES.items()},
    **{f"safetensors-{name}": write for name, write in SAFETENSORS.items()},
    "zip-compressed": compressed,
    "zip-a-million-entries": million_entries,
    "pipe": os.mkfifo,
    "endless": lambda path: path.symlink_to("/dev/zero"),
}
"""Files of weights: each has to end in a WeightsError, at the latest because it holds no network."""

HARMLESS = {f"{kind}-storage-resized" for kind in ("zip", "legacy")}
"""What such a file asks for is left out, and the rest is read."""


def png(width: int, height: int) -> Write:
    """A black image whose pixels pack to a thousandth."""

    def write(path: Path) -> None:
        packer = zlib.compressobj(9)
        row = bytes(1 + (width + 7) // 8)
        parts = [packer.compress(row * min(64, height - y)) for y in range(0, height, 64)]
        chunks = (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)),
            (b"IDAT", b"".join(parts) + packer.flush()),
            (b"IEND", b""),
        )
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks))

    return write


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def many_scans(path: Path) -> None:
    """A progressive JPEG whose last scan comes 1,000 times; each goes over all pixels."""
    _, encoded = cv2.imencode(".jpg", np.zeros((5000, 5000, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    content = encoded.tobytes()[:-2]
    path.write_bytes(content + content[content.rfind(b"\xff\xda") :] * 1000 + b"\xff\xd9")


def raw(content: bytes) -> Write:
    return lambda path: path.write_bytes(content) and None


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


_SIDE = 100_000

IMAGES: dict[str, Write] = {
    "png-30000": png(30_000, 30_000),
    "png-side": png(1 << 24, 1),
    "jpeg": raw(b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\3" + b"\1\x11\0" * 3 + b"\xff\xda\0\2\xff\xd9"),
    "jpeg-segment-of-0": raw(b"\xff\xd8\xff\xe0\0\0" + b"\xff\xda\0\2\xff\xd9"),
    "jpeg-many-scans": many_scans,
    "bmp": raw(b"BM" + bytes(12) + struct.pack("<IiiHHII", 40, _SIDE, -_SIDE, 1, 24, 0, 0) + bytes(12)),
    "gif": raw(b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6) + b","),
    "webp": raw(b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\xff\0" * 2),
    "tiff": raw(b"II*\0" + struct.pack("<IHHHIIHHIII", 8, 2, 256, 4, 1, _SIDE, 257, 4, 1, _SIDE, 0)),
    "ppm": raw(b"P6 # 3 4\n100000 # no\n100000 255\n"),
    "pam": raw(b"P7\nHEIGHT 100000\nWIDTH 100000\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n"),
    "sun": raw(struct.pack(">8I", 0x59A66A95, _SIDE, _SIDE, 24, 0, 1, 0, 0)),
    "hdr": raw(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 100000 +X 100000\n"),
    "jp2": raw(b"\xff\x4f\xff\x51" + struct.pack(">HH8I", 47, 0, _SIDE, _SIDE, 0, 0, _SIDE, _SIDE, 0, 0)),
    "pipe": os.mkfifo,
    "endless": endless,
    "sparse": sparse,
}
"""Images: each has to end in a DataError."""

_DEEP = 100_000
_ALIASES = "a: &a [x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(20)
)
_MERGED = "a: &a {x: 1}\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} {{<<: [{','.join(['*' + chr(97 + i)] * 10)}]}}\n" for i in range(20)
)

YAML: dict[str, Write] = {
    "deep": raw(b"model: " + b"[" * 20_000),
    "deep-closed": raw(b"names: " + b"[" * 20_000 + b"]" * 20_000),
    "deep-dashes": raw(b"- " * 20_000),
    "deep-keys": raw(b"{a: " * 20_000),
    "aliases": raw(_ALIASES.encode()),
    "aliased-names": raw(_ALIASES.encode() + b"names: *u\ntrain: .\n"),
    "merged": raw(_MERGED.encode()),
    "long": raw(b"names:\n" + b"- a\n" * 2_000_000),
    "number": raw(b"seed: " + b"9" * 500_000),
    "no-date": raw(b"seed: !!timestamp x"),
    "code": raw(b"name: !!python/object/apply:os.system ['touch canary']"),
    "latin": raw(b"name: \xff\xfe\xfa"),
    "pipe": os.mkfifo,
    "endless": endless,
    "sparse": sparse,
}
"""Recipes or descriptions of data: each has to end in a ConfigError or a DataError."""

JSON: dict[str, Write] = {
    "deep-lists": raw(b"[" * _DEEP),
    "deep-lists-closed": raw(b"[" * _DEEP + b"]" * _DEEP),
    "deep-objects": raw(b'{"images":' * _DEEP + b"1" + b"}" * _DEEP),
    "deep-annotation": raw(b'{"images":[],"categories":[],"annotations":[{"bbox":' + b"[" * 900 + b"]" * 900 + b"}]}"),
    "deep-among-texts": raw(b'{"a":"]]]\\\\\\"[[", "b":' + b"[1," * 500 + b"1" + b"]" * 500 + b"}"),
    "number": raw(b'{"images":[],"annotations":[{"id":' + b"9" * 1_000_000 + b'}],"categories":[]}'),
    "no-lists": raw(b"[]" * 100_000),
    "pipe": os.mkfifo,
    "endless": endless,
    "sparse": sparse,
}
"""COCO annotations: each has to end in a DataError."""


def environment() -> dict[str, str]:
    """The environment of a program that imports this file."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
