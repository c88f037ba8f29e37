"""Every input that once got through a reader, each as the change of a valid file that makes it."""

import json
from collections.abc import Iterator
from functools import cache

from fuzz import readers
from fuzz.mutations import write_zip
from fuzz.readers import BASELINE, COCO, METRICS, VOC, Reader

NAMES = {reader.name: reader for reader in readers.READERS}
DEEP = {"[": b"[" * 20_000 + b"]" * 20_000, "{": b'{"a":' * 20_000 + b"1" + b"}" * 20_000}


@cache
def _first(reader: str) -> bytes:
    return NAMES[reader].seeds()[0]


def _json(reader: str, **changes: object) -> bytes:
    """Return the first valid file with other values; `...` removes a key."""
    content = {**json.loads(_first(reader)), **changes}
    return json.dumps({key: value for key, value in content.items() if value is not ...}).encode()


def _coco(**changes: object) -> bytes:
    images = [{**COCO["images"][0], **changes}, COCO["images"][1]]
    return json.dumps({**COCO, "images": images}).encode()


def _jpeg(segment: bytes) -> bytes:
    plain = readers.image(".jpg")
    return plain[:2] + segment + plain[2:]


def _about_in_weights(text: str) -> bytes:
    tensor = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({"__metadata__": {"ctnet": text}, "t": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


def _one_tensor(*shape: int) -> bytes:
    header = json.dumps({"t": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
    return len(header).to_bytes(8, "little") + header


def _state(**changes: object) -> bytes:
    import io

    import torch

    content = {**torch.load(io.BytesIO(_first("last.pt")), weights_only=True), **changes}
    return readers.saved({key: value for key, value in content.items() if value is not ...})


def found() -> Iterator[tuple[Reader, str, bytes]]:
    """Yield reader, what was wrong, and the content."""
    tiff = readers.image(".tiff")
    yield NAMES["other-images"], "a width of text in a TIFF", tiff.replace(b"\0\1\3\0", b"\0\1\2\0", 1)
    yield NAMES["other-images"], "a directory beyond 64 bits in a TIFF", b"II+\0\x08\0\0\0" + b"\xff" * 200
    yield NAMES["safetensors"], "a side beyond 64 bits of a tensor without numbers", _one_tensor(0, 2**63)
    yield NAMES["data-yaml"], "a path that no file system takes", b'path: "\\uD800"\ntrain: images\nnames: [a]\n'
    for name, deep in DEEP.items():
        for reader in (
            "coco",
            "export-about",
            "bench-baseline",
            "bench-curves",
            "env.json",
            "summary.json",
            "recipe",
            "data-yaml",
        ):
            yield NAMES[reader], f"20,000 deep {name}", deep
        yield NAMES["safetensors"], f"20,000 deep {name}", _about_in_weights(deep.decode())
    for reader, name, content in (*_annotations(), *_settings(), *_own_files()):
        yield NAMES[reader], name, content


def _annotations() -> Iterator[tuple[str, str, bytes]]:
    yield "coco", "a name of 5000 letters", _coco(file_name="a" * 5000)
    yield "coco", "a name with NUL", _coco(file_name="a\0b")
    yield "coco", "half a surrogate pair", _coco(file_name="\ud800")
    surrogate = [{**COCO["categories"][0], "name": "\ud800"}, COCO["categories"][1], None]
    yield "coco", "half a surrogate pair to be repaired", json.dumps({**COCO, "categories": surrogate}).encode()
    yield "coco", "a number of 5000 digits", _coco(width=1).replace(b'"width": 1,', b'"width": ' + b"9" * 5000 + b",")
    yield "voc-xml", "a file name of 5000 letters", VOC.replace(b"a.png", b"a" * 5000)
    yield "voc-list", "a name of 5000 letters", b"a" * 5000 + b"\n"
    yield "voc-list", "NUL", b"a\0b\n"
    yield "yolo-list", "NUL", b"images/a\0.png\n"
    yield "yolo-list", "a name of 5000 letters", b"a" * 5000 + b".png\n"
    yield "yolo-list", "a name of 20,000 folders", b"a/" * 20_000 + b"a.png\n"
    yield "data-yaml", "a folder with NUL", b'train: "\\0"\nnames: [a]\n'
    yield "data-yaml", "a folder of 5000 letters", b"train: " + b"a" * 5000 + b"\nnames: [a]\n"
    yield "jpeg", "a segment of length 0", _jpeg(b"\xff\xe5\0\0")
    yield "jpeg", "a segment of length 1", _jpeg(b"\xff\xe5\0\1")
    yield "jpeg", "EXIF without its magic", _jpeg(readers.exif(6).replace(b"II*\0", b"XX*\0"))


def _settings() -> Iterator[tuple[str, str, bytes]]:
    for text in (
        "!!timestamp x",
        "!!int ''",
        "!!float ''",
        "!!bool x",
        "2001-13-41",
        "&a [*a]",
        "9" * 5000,
        "12:99:99",
    ):
        yield "recipe", text[:20], f"name: {text}\n".encode()
        yield "data-yaml", text[:20], f"train: images\nnames: [{text}]\n".encode()
        yield "overrides", text[:20], f"optimizer.lr={text}".encode()
    yield "recipe", "extends a name of 5000 letters", b"extends: " + b"a" * 5000
    yield "options", "a size of 5000 digits", b"9" * 5000


def _own_files() -> Iterator[tuple[str, str, bytes]]:
    rows = BASELINE["rows"]
    yield "bench-baseline", "no subject", json.dumps({**BASELINE, "subject": None}).encode()
    yield "bench-baseline", "no rows", json.dumps({**BASELINE, "rows": None}).encode()
    yield (
        "bench-baseline",
        "a speed in words",
        json.dumps({**BASELINE, "rows": [{**rows[0], "images_per_s": "x"}]}).encode(),
    )
    yield "bench-baseline", "a speed of 0", json.dumps({**BASELINE, "rows": [{**rows[0], "images_per_s": 0}]}).encode()
    for key in ("precision", "output", "size", "batch", "info", "recipe", "categories"):
        yield "export-about", f"{key} absent", _json("export-about", **{key: ...})
        for value in (None, True, [[]], "x"):
            yield "export-about", f"{key} {value}", _json("export-about", **{key: value})
    yield "safetensors", "a recipe of null", _about_in_weights('{"schema": "ctnet.weights/1", "recipe": null}')
    for key in ("ema", "step", "model", "categories"):
        yield "last.pt", f"{key} absent", _state(**{key: ...})
    yield "metrics.csv", "a step that is no number", METRICS.replace(b"1,3,", b"1,0.1,")
    yield "metrics.csv", "not UTF-8", METRICS + b"\xff"
    yield "summary.json", "cut short", b'{"step": 6'
    yield "summary.json", "a list", b"[1]"
    yield "torch-zip", "an entry without a folder", write_zip([("data.pkl", b"}.")])
