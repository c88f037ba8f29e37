"""Weights of each container, and ctnet's own with other words about themselves."""

import io
import json
import struct
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from attacks import spoiling
from attacks.pickles import hostile_pickles, legacy_around, zip_around
from attacks.running import Case, Place
from attacks.spoiling import predict_with

LONG = {"export": 60, "train": 30, "eval": 20}  # seconds of commands that compute
CUTS = (0, 1, 7, 8, 9, 100, 0.1, 0.5, 0.9, 0.999)


def cases() -> Iterator[Case]:
    yield from _pickles()
    yield from _about()
    yield from _headers()
    yield from _cut()
    yield from _zips()
    yield from _mindspore()


def _inspect(name: str, content: bytes) -> Any:
    return lambda place: ["weights", "inspect", place.put(name, content)]


def _pickles() -> Iterator[Case]:
    for name, content in hostile_pickles().items():
        yield Case("pickles", f"bare: {name}", _inspect("a.pkl", content))
        yield Case("pickles", f"zip: {name}", _inspect("a.pth", zip_around(content)))
        if "protocol 4" not in name:
            yield Case("pickles", f"legacy: {name}", _inspect("a.pth", legacy_around(content)))

    def resumed(content: bytes, place: Place) -> list[object]:
        run = place.copy("run")
        (run / "checkpoints/last.pt").write_bytes(zip_around(content))
        return ["train", "--resume", run]

    for name in ("os.system, protocol 0", "eval, protocol 4", "bytearray of 8 GB", "loop"):
        yield Case("pickles", f"resumed: {name}", partial(resumed, hostile_pickles()[name]))


def about_of(place: Place) -> dict[str, Any]:
    header, _ = spoiling.header_and_rest((place.material / "best.safetensors").read_bytes())
    return json.loads(header["__metadata__"]["ctnet"])


def _example() -> dict[str, Any]:
    """Return what ctnet's weights say about themselves, without a file of them."""
    from ctnet.config import Recipe

    recipe = Recipe().model_dump(mode="json")
    return {
        "schema": 1,
        "ctnet": 1,
        "recipe": recipe,
        "categories": [[1, "a"], [2, "b"]],
        "info": {"step": 1, "metrics": {}},
    }


def _about() -> Iterator[Case]:
    def write(spoil: int, command: str, place: Place) -> list[object]:
        about = list(spoiling.spoiled(about_of(place), per_place=3))[spoil][1]
        return _with(place, about, command)

    names = [name for name, _ in spoiling.spoiled(_example(), per_place=3)]
    for number, name in enumerate(names):
        command = "predict" if number % 3 == 0 else "inspect"
        yield Case("own weights", f"{command}: {name}", partial(write, number, command))

    def named(key: str, text: str, command: str, place: Place) -> list[object]:
        about = about_of(place)
        text = spoiling.traversal(text, place)
        if key == "class":
            about["categories"][0][1] = text
        elif key == "info":
            about["info"] = {text: text}
        else:
            about["recipe"][key] = text
        return _with(place, about, command)

    for command in ("predict", "inspect", "train", "eval", "convert", "export"):
        for text in (*spoiling.TRAVERSALS, *spoiling.ESCAPES):
            for key in ("name", "class") if command != "inspect" else ("name", "class", "info"):
                if command in ("predict", "inspect") or (text in spoiling.TRAVERSALS[:4] + spoiling.ESCAPES[:2]):
                    family = "paths" if text in spoiling.TRAVERSALS else "terminal"
                    name = f"weights, {command}, {key}: {ascii(text)[:30]}"
                    yield Case(family, name, partial(named, key, text, command), LONG.get(command, 10))
    values = {
        "top_k": ("evaluation", 10**9),
        "batch": ("evaluation", 10**30),
        "image_size": ("data", [2**20, 2**20]),
        "scales": ("evaluation", [float("inf")]),
    }
    more = {
        "big scales": ("evaluation", [1000.0] * 50),
        "side 32768": ("data", [32768, 32768]),
        "neck": ("model", [10**6, 10**6, 10**6]),
        "head": ("model", 10**8),
        "enlarge": ("evaluation", 1e9),
        "many scales": ("evaluation", [1.0] * 10**5),
    }
    keys = {
        "batch": "batch_size",
        "big scales": "scales",
        "side 32768": "image_size",
        "neck": "neck_channels",
        "head": "head_channels",
        "many scales": "scales",
    }

    def huge(name: str, command: str, place: Place) -> list[object]:
        section, value = (values | more)[name]
        about = about_of(place)
        about["recipe"][section][keys.get(name, name)] = value
        return _with(place, about, command)

    for name in (*values, *more):
        for command in ("inspect", "predict", "eval", "export"):
            yield Case("claims", f"weights, {command}: {name}", partial(huge, name, command), LONG.get(command, 10))
    for depth in spoiling.DEPTHS:
        for text in (spoiling.nested("[", "]", depth), spoiling.nested('{"a":', "}", depth, "1")):
            yield Case("depth", f"metadata {depth} {text[0]}", lambda p, t=text: _with(p, t, "inspect"))

    def crowd(count: int, command: str, place: Place) -> list[object]:
        return _with(place, about_of(place) | {"categories": [[i, f"c{i}"] for i in range(count)]}, command)

    for count in (0, 1, 10**5, 10**6):
        for command in ("inspect", "predict"):
            yield Case("claims", f"{count} categories, {command}", partial(crowd, count, command))


def _with(place: Place, about: Any, command: str) -> list[object]:
    file = place.put("w.safetensors", spoiling.with_about((place.material / "best.safetensors").read_bytes(), about))
    data = place.material / "set"
    return {
        "inspect": ["weights", "inspect", file],
        "predict": predict_with(place, file),
        "train": [
            "train",
            "--weights",
            file,
            "--data",
            data,
            "--max-steps",
            "1",
            "--image-size",
            "64",
            "--batch-size",
            "2",
            "data.workers=0",
        ],
        "eval": ["eval", "--weights", file, "--data", data, "--report", place.work / "report"],
        "convert": ["weights", "convert", file, "--to", "centernet"],
        "export": ["export", "onnx", "--weights", file],
    }[command]


def _headers() -> Iterator[Case]:
    tensor = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    for name, spoiled in spoiling.spoiled(
        {"a": tensor, "b": {**tensor, "data_offsets": [16, 32]}, "__metadata__": {"by": "x"}}, per_place=6
    ):
        yield Case("safetensors", name, _inspect("a.safetensors", spoiling.with_header(spoiled, bytes(32))))
    odd = {
        "header of 2^63": struct.pack("<Q", 2**63) + b"{}",
        "header of 90 MB": struct.pack("<Q", 90 * 10**6) + b"{",
        "spaces": spoiling.with_header(b"{" + b" " * 10**6 + b"}", b""),
        "not UTF-8": spoiling.with_header(b'{"\xff": 1}', b""),
        "twice": spoiling.with_header(b'{"a":1,"a":2}', b""),
        "one million tensors": spoiling.with_header(
            {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(10**5)}, b""
        ),
        "shape of 2^64": spoiling.with_header({"a": {**tensor, "shape": [2**32, 2**32]}}, bytes(16)),
        "many dims": spoiling.with_header(
            {"a": {"dtype": "F32", "shape": [1] * 10**4, "data_offsets": [0, 4]}}, bytes(4)
        ),
    }
    for name, content in odd.items():
        yield Case("safetensors", name, _inspect("a.safetensors", content))
    for text in spoiling.ESCAPES:
        header = {text: tensor, "__metadata__": {"by": text}}
        yield Case(
            "terminal", f"tensor name {text!a}", _inspect("a.safetensors", spoiling.with_header(header, bytes(16)))
        )


def cut(content: bytes, at: float) -> bytes:
    return content[: int(at * len(content)) if isinstance(at, float) else at]


def _cut() -> Iterator[Case]:
    def write(file: str, at: float, place: Place) -> list[object]:
        content = cut((place.material / file).read_bytes(), at)
        path = place.put(Path(file).name, content)
        if path.suffix == ".xml":
            place.copy("a.bin")
        return predict_with(place, path)

    for file in ("best.safetensors", "run/checkpoints/last.pt", "a.onnx", "a.pt2", "a.xml"):
        for at in CUTS:
            yield Case("cut short", f"{file} at {at}", partial(write, file, at))


def _zips() -> Iterator[Case]:
    def deflated(count: int) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", bytes(count))
        return stream.getvalue()

    empty = b"\x80\x02}."
    for name, content in {
        "bomb of 200 MB": deflated(2 * 10**8),
        "traversal": _renamed("../../../../outside/x"),
        "absolute": _renamed("/outside/x"),
        "no entries": b"PK\5\6" + bytes(18),
        "only PK": b"PK\3\4",
        "end of another": zip_around(empty)[:-22] + b"PK\5\6" + b"\xff" * 18,
        "TorchScript": zip_around(empty, **{"code/x.py": b"1", "constants.pkl": empty}),
        "twice": _renamed("archive/data.pkl"),
        "zip in zip": zip_around(zip_around(empty)),
        "version": zip_around(empty, version=b"9" * 10**6),
        "byteorder": zip_around(empty, byteorder=b"x"),
        "escape in name": _renamed("archive/\x1b]0;x\x07"),
        "comment": zip_around(empty)[:-2] + b"\xff\xff" + b"x" * 65535,
    }.items():
        yield Case("zips", name, _inspect("a.pth", content))
        yield Case("zips", f"predict: {name}", lambda p, c=content: predict_with(p, p.put("a.pt", c)))
        yield Case("zips", f"pt2: {name}", lambda p, c=content: predict_with(p, p.put("a.pt2", c)))


def _renamed(name: str) -> bytes:
    import warnings

    stream = io.BytesIO(zip_around(b"\x80\x02}."))
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(name, b"\x80\x02}.")
    return stream.getvalue()


def _mindspore() -> Iterator[Case]:
    def number(value: int) -> bytes:
        out = b""
        while value > 127:
            out, value = out + bytes([value & 127 | 128]), value >> 7
        return out + bytes([value])

    def part(key: int, content: bytes) -> bytes:
        return number(key << 3 | 2) + number(len(content)) + content

    def value(tag: str, kind: str, dims: bytes, content: bytes) -> bytes:
        return part(1, part(1, tag.encode()) + part(2, dims + part(2, kind.encode()) + part(3, content)))

    good = value("a", "Float32", b"\x08\x02", bytes(8))
    for name, content in {
        "good": good,
        "dims of 2^62": value("a", "Float32", b"\x08" + number(2**62), bytes(8)),
        "negative": value("a", "Float32", b"\x08" + b"\xff" * 9 + b"\1", bytes(8)),
        "10^5 dims": value("a", "Float32", b"\x08\x01" * 10**5, bytes(4)),
        "type": value("a", "\x1b]0;x\x07", b"\x08\x02", bytes(8)),
        "tag": value("\x1b[2J", "Float32", b"\x08\x02", bytes(8)),
        "length": good[:1] + b"\xff" * 9 + b"\x7f" + good[2:],
        "10^5 values": good * 10**5,
        "10^5 tags": b"".join(value(f"t{i}", "Float32", b"\x08\x02", bytes(8)) for i in range(10**5)),
        "string": value("s", "str", b"", b"\xff" * 99),
        "map": part(1, part(1, b"a") + part(3, b"x")),
        "checksum": good + b"crc_num" + bytes(10),
        "group": b"\x0b\x0c" * 99,
        "endless": b"\x0a" + b"\xff" * 50,
    }.items():
        yield Case("mindspore", name, _inspect("a.ckpt", content))
