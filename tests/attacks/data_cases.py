"""Annotations, labels, lists and images."""

import json
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any

from attacks import spoiling
from attacks.running import Case, Place
from attacks.weights_cases import CUTS, cut
from fuzz.readers import COCO, VOC, exif, image

ENTITIES = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9)
)


def cases() -> Iterator[Case]:
    yield from _coco()
    yield from _names()
    yield from _voc()
    yield from _yolo()
    yield from _images()


def _put_images(place: Place) -> None:
    for name in ("a.png", "b.png", "images/a.png", "JPEGImages/a.png"):
        place.put(name, image(".png"))


def _coco_set(content: Any, command: str, place: Place) -> list[object]:
    _put_images(place)
    text = content if isinstance(content, str) else json.dumps(content)
    file = place.put("instances_train.json", text)
    return {
        "check": ["data", "check", file],
        "fix": ["data", "check", file, "--fix", place.work / "fixed.json"],
        "convert": ["data", "convert", file, "--out", place.work / "out"],
        "view": ["data", "view", file, "--out", place.work / "sheet.png"],
        "train": [
            "train",
            "centernet_mobilenetv2",
            "--data",
            file,
            "--max-steps",
            "1",
            "--image-size",
            "64",
            "--batch-size",
            "1",
            "data.workers=0",
        ],
    }[command]


def _coco() -> Iterator[Case]:
    commands = ("check", "fix", "convert", "view", "check", "fix", "train")
    for number, (name, content) in enumerate(spoiling.spoiled(COCO, per_place=9)):
        command = commands[number % len(commands)]
        yield Case("coco", f"{command}: {name}", partial(_coco_set, content, command))
    for depth in spoiling.DEPTHS:
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            deep = spoiling.nested(opening, closing, depth, "1")
            yield Case("depth", f"coco {opening} {depth}", partial(_coco_set, deep, "check"))
            inside = json.dumps(COCO).replace('"segmentation": [[', f'"more": {deep}, "segmentation": [[')
            yield Case("depth", f"inside coco {opening} {depth}", partial(_coco_set, inside, "fix"))
    many = {**COCO, "categories": [{"id": i, "name": f"c{i}"} for i in range(10**6)]}
    crowd = {**COCO, "annotations": [{**COCO["annotations"][0], "id": i} for i in range(10**5)]}
    far = {**COCO, "images": [{**COCO["images"][0], "width": 10**9, "height": 10**9}, COCO["images"][1]]}
    for name, content in (("categories", many), ("annotations", crowd), ("sizes", far)):
        for command in ("check", "convert", "view"):
            yield Case("claims", f"coco {name}, {command}", partial(_coco_set, content, command))
    for at in CUTS:
        yield Case(
            "cut short", f"coco at {at}", partial(_coco_set, cut(json.dumps(COCO).encode(), at).decode(), "check")
        )


def _names() -> Iterator[Case]:
    """Names of images and classes that lead out or that terminals obey, through each layout and command."""

    def coco(what: str, text: str, command: str, place: Place) -> list[object]:
        content = json.loads(json.dumps(COCO))
        text = spoiling.traversal(text, place)
        if what == "file":
            content["images"][0]["file_name"] = text
            (place.outside / "x").write_bytes(image(".png")) if "x" in text else None
        else:
            content["categories"][0]["name"] = text
        return _coco_set(content, command, place)

    def yolo(what: str, text: str, place: Place) -> list[object]:
        names = ["cat", text] if what == "class" else ["cat", "dog"]
        _put_images(place)
        place.put("labels/a.txt", f"0 .5 .5 .2 .2\n{text}\n" if what == "line" else "0 .5 .5 .2 .2\n")
        place.put("list.txt", f"images/a.png\n{text}\n" if what == "list" else "images/a.png\n")
        split = text if what == "split" else "list.txt"
        return ["data", "check", place.put("data.yaml", json.dumps({"train": split, "names": names}))]

    def voc(what: str, text: str, place: Place) -> list[object]:
        _put_images(place)
        spelt = {"class": b"<name>cat", "file": b"<filename>a.png", "corner": b"<xmin>1"}[what]
        escaped = text.replace("\x1b", "&#27;").encode("utf-8", "replace")
        place.put("Annotations/a.xml", VOC.replace(spelt, spelt[: spelt.index(b">") + 1] + escaped))
        return ["data", "check", place.files]

    for text in (*spoiling.TRAVERSALS, *spoiling.ESCAPES):
        family = "paths" if text in spoiling.TRAVERSALS else "terminal"
        for what in ("file", "class"):
            for command in ("check", "convert", "view", "train"):
                if command in ("check", "convert") or text in (*spoiling.TRAVERSALS[:3], *spoiling.ESCAPES[:2]):
                    yield Case(
                        family, f"coco, {command}, {what}: {ascii(text)[:30]}", partial(coco, what, text, command)
                    )
        for what in ("class", "line", "list", "split"):
            yield Case(family, f"yolo {what}: {ascii(text)[:30]}", partial(yolo, what, text))
        for what in ("class", "file", "corner"):
            yield Case(family, f"voc {what}: {ascii(text)[:30]}", partial(voc, what, text))

    def file_name(text: str, command: str, place: Place) -> list[object]:
        path = place.put(f"{text}.png", b"no image" if command == "broken" else image(".png"))
        return ["predict", path, "--weights", place.material / "best.safetensors"]

    for text in (*spoiling.ESCAPES, "[red]x", "a\nb", "\udcff", "%s"):
        for command in ("broken", "predict"):
            yield Case("terminal", f"file name, {command}: {text!a}", partial(file_name, text, command))


def _voc() -> Iterator[Case]:
    def write(content: bytes, command: str, place: Place) -> list[object]:
        _put_images(place)
        place.put("Annotations/a.xml", content)
        return {
            "check": ["data", "check", place.files],
            "convert": ["data", "convert", place.files, "--out", place.work / "out"],
        }[command]

    texts = (
        b"",
        b"-1",
        b"nan",
        b"inf",
        b"1e400",
        b"x",
        b"0",
        b"99999999999999999999",
        b"1e39",
        b"9" * 5000,
        b"1_0",
        b"\xd9\xa3",
    )
    for spelt in (b"<xmin>1<", b"<ymax>7<", b"<width>12<", b"<height>9<", b"<name>cat<", b"<filename>a.png<"):
        for text in texts:
            start = spelt[: spelt.index(b">") + 1]
            yield Case(
                "voc",
                f"{spelt.decode()} {text[:20]!r}",
                partial(write, VOC.replace(spelt, start + text + b"<"), "check"),
            )
    for name, content in {
        "entities": ENTITIES.encode() + b"]><annotation>&j;</annotation>",
        "outside": b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
        "entities in UTF-16": (ENTITIES + "]><annotation>&j;</annotation>").encode("utf-16"),
        "UTF-7": b"<?xml version='1.0' encoding='utf-7'?><a/>",
        "no encoding": b"<?xml version='1.0' encoding='no'?><a/>",
        "attributes": b"<a " + b" ".join(b"a%d='1'" % i for i in range(10**5)) + b"/>",
        "10^5 objects": b"<annotation>"
        + VOC[VOC.index(b"<object>") : VOC.index(b"</object>") + 9] * 10**5
        + b"</annotation>",
        "long name": VOC.replace(b"cat", b"x" * 10**6),
        "NUL": VOC.replace(b"cat", b"c\0t"),
        "not UTF-8": VOC.replace(b"cat", b"c\xfft"),
    }.items():
        for command in ("check", "convert"):
            yield Case("voc", f"{command}: {name}", partial(write, content, command))
    for depth in spoiling.DEPTHS:
        for inside in ("", VOC.decode()):
            yield Case(
                "depth",
                f"xml {depth} {len(inside)}",
                partial(write, spoiling.nested("<a>", "</a>", depth, inside).encode(), "check"),
            )


def _yolo() -> Iterator[Case]:
    def labels(content: bytes, command: str, place: Place) -> list[object]:
        _put_images(place)
        place.put("labels/a.txt", content)
        file = place.put("data.yaml", "train: images\nnames: [cat, dog]\n")
        return {"check": ["data", "check", file], "convert": ["data", "convert", file, "--out", place.work / "out"]}[
            command
        ]

    def described(content: str, place: Place) -> list[object]:
        _put_images(place)
        place.put("instances.json", json.dumps(COCO))
        return ["data", "check", place.put("data.yaml", content)]

    for number, text in enumerate(
        (
            "nan .5 .5 .2 .2",
            "0 nan .5 .2 .2",
            "inf .5 .5 .2 .2",
            "0 1e400 .5 .2 .2",
            "-1 .5 .5 .2 .2",
            "0.5 .5 .5 .2 .2",
            "1e30 .5 .5 .2 .2",
            "0 .5 .5",
            "0 .5 .5 .2 .2 .9",
            "x",
            "0 .5 .5 -1 .2",
            "0 5 5 2 2",
            "0 " + "9" * 5000,
            "0\t.5\v.5\f.2 .2",
            "\ufeff0 .5 .5 .2 .2",
            "0 .5 .5 .2 .2\0",
            "0 " * 10**6,
            "0 .5 .5 .2 .2\n" * 10**5,
            "x\n" * 10**5,
            "\x85".join(["0 .5 .5 .2 .2"] * 3),
            "\u0663 .5 .5 .2 .2",
            "1_0 .5 .5 .2 .2",
            "٣",
            "0x1 .5 .5 .2 .2",
        )
    ):
        for command in ("check", "convert"):
            yield Case("yolo", f"{command} {number}: {ascii(text)[:30]}", partial(labels, text.encode(), command))
    yield Case("yolo", "not UTF-8", partial(labels, b"\xff\xfe\0", "check"))
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
    )
    for number, text in enumerate(
        (
            "train: images\nnames: {0: cat, x: dog}",
            "train: images\nnames: 5",
            "train: images\nnames: [null, true, 1.5, 12:30]",
            "train: 5\nnames: [a]",
            "train: [images, 5]\nnames: [a]",
            "train: []\nnames: [a]",
            "names: [a]",
            "[]",
            "5",
            "",
            "!!python/object/apply:os.system ['touch $CTNET_HOSTILE']",
            "train: !!python/object/apply:os.system ['touch $CTNET_HOSTILE']\nnames: [a]",
            "train: images\nnames: &a [*a]",
            "train: images\nnames: &a {0: *a}",
            bomb + "names: *j",
            bomb + "train: *j\nnames: [a]",
            "train: images\nnames: {18446744073709551616: a, -1: b}",
            "path: /dev\ntrain: .\nnames: [a]",
            "path: [1]\ntrain: images\nnames: [a]",
            "train: images\nnames: {? [a] : b}",
            "train: images\nnames: !!set {a, b}",
            "train: images\nnames: !!int x",
            "train: {annotations: instances.json}",
            "train: {annotations: 5, images: 6}",
            "train: {annotations: /dev/zero, images: .}",
            "train: x",
            'train: {annotations: instances.json, images: "\\0"}',
            "? {a: b}\n: c",
            "<<: 5",
            "<<: [{a: b}]",
            "a: *b",
            'train: "\\ud800"\nnames: [a]',
            "2001-99-99: a",
            "train: images\nnames: [" + "a," * 10**5 + "]",
            "train: images\nnames: ['" + "x" * 10**6 + "']",
            "path: ''\ntrain: images\nnames: {}",
            "\x1b[2J: a",
            "'\\x1b': a",
            'train: images\nnames: ["\\x1b[2J"]',
            'train: "\\x1b[2J"\nnames: [a]',
            '"\\x1b[2J": {a: b}',
            "train: 2001-13-41\nnames: [1:30]",
            "train: images\nnames: {0x10: a}",
        )
    ):
        yield Case("data yaml", f"{number}: {ascii(text)[:40]}", partial(described, text))
    for depth in spoiling.DEPTHS:
        for opening, closing in (("[", "]"), ("{a: ", "}"), ("- ", "x"), ("? ", "")):
            closing = closing if closing != "x" else ""
            yield Case(
                "depth", f"data yaml {opening} {depth}", partial(described, spoiling.nested(opening, closing, depth))
            )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(width: int, height: int, bits: int = 1, colour: int = 0, rows: bytes | None = None) -> bytes:
    """Return an image of these sides, all black: a few kilobytes, however large."""
    if rows is None:
        pack = zlib.compressobj(9)
        line = bytes(1 + (width * bits * (3 if colour == 2 else 1) + 7) // 8)
        parts = [pack.compress(line * min(height, 1000)) for _ in range(-(-min(height, 40_000) // 1000))]
        rows = b"".join(parts) + pack.flush()
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def odd_images() -> dict[str, bytes]:
    jpg, png, bmp, webp, tiff = (image(suffix) for suffix in (".jpg", ".png", ".bmp", ".webp", ".tiff"))
    start = jpg.index(b"\xff\xc0")
    found = {
        "30000 x 30000.png": _png(30000, 30000),
        "2^31 x 1.png": _png(2**31 - 1, 1, rows=zlib.compress(bytes(9))),
        "1 x 100000.png": _png(1, 100_000),
        "100000 x 1.png": _png(100_000, 1),
        "16 bit.png": _png(20000, 9000, 16, 2),
        "0 x 0.png": _png(0, 0),
        "1 x 1.png": _png(1, 1),
        "no rows.png": _png(99, 99, rows=b""),
        "65535 x 65535.jpg": jpg[: start + 5] + b"\xff\xff\xff\xff" + jpg[start + 9 :],
        "0 x 0.jpg": jpg[: start + 5] + bytes(4) + jpg[start + 9 :],
        "segment of 0.jpg": jpg[:2] + b"\xff\xe5\0\0" + jpg[2:],
        "segment of 1.jpg": jpg[:2] + b"\xff\xe5\0\1" + jpg[2:],
        "only markers.jpg": b"\xff\xd8" + b"\xff" * 10**6,
        "many segments.jpg": b"\xff\xd8" + b"\xff\xe5\0\2" * 10**6 + jpg[2:],
        "broken exif.jpg": jpg[:2] + exif(6).replace(b"II*\0", b"XX*\0") + jpg[2:],
        "exif far.jpg": jpg[:2] + exif(6)[:14] + b"\xff\xff\xff\xff" + exif(6)[18:] + jpg[2:],
        "exif 99.jpg": jpg[:2] + exif(99) + jpg[2:],
        "wide.bmp": bmp[:18] + struct.pack("<ii", 2**31 - 1, 1) + bmp[26:],
        "negative.bmp": bmp[:18] + struct.pack("<ii", -5, -(2**31)) + bmp[26:],
        "huge.bmp": bmp[:18] + struct.pack("<ii", 60000, 60000) + bmp[26:],
        "huge.webp": webp[:26] + b"\xff\x3f\xff\x3f" + webp[30:],
        "loop.tif": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
        "far.tif": b"II*\0\xff\xff\xff\xff",
        "huge.ppm": b"P6 60000 60000 255\n" + bytes(100),
        "huge.pgm": b"P5 99999999999 1 255\n",
        "huge.hdr": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 100000 +X 100000\n",
        "text.png": b"hello",
        "svg.png": b"<svg/>",
        "html.jpg": b"<html>",
        "gif.gif": b"GIF89a" + b"\xff" * 50,
        "big.gif": b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;",
        "avif.avif": bytes(4) + b"ftypavif" + bytes(40),
        "text chunk.png": png[:33] + _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8))) + png[33:],
        "icc.png": png[:33] + _chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**8))) + png[33:],
        "exif.png": png[:33] + _chunk(b"eXIf", b"MM\0*" + b"\xff" * 99) + png[33:],
        "many chunks.png": png[:33] + _chunk(b"tEXt", b"a\0b") * 10**5 + png[33:],
        "a video.mp4": bytes(4) + b"ftypisom" + bytes(99),
        "text.avi": b"RIFF" + b"\xff" * 99,
        "playlist.mp4": b"#EXTM3U\nfile:///etc/passwd\n",
        "concat.mp4": b"ffconcat version 1.0\nfile /etc/passwd\n",
    }
    for name, content in (("jpg", jpg), ("png", png), ("webp", webp), ("tiff", tiff), ("bmp", bmp)):
        found |= {f"cut at {at}.{name}": cut(content, at) for at in CUTS}
    return found


def _images() -> Iterator[Case]:
    def predicted(name: str, content: bytes, place: Place) -> list[object]:
        return ["predict", place.put(name.replace(" ", "_"), content), "--weights", place.material / "best.safetensors"]

    def kept(name: str, content: bytes, place: Place) -> list[object]:
        return [*predicted(name, content, place), "--keep-res"]

    def checked(name: str, content: bytes, place: Place) -> list[object]:
        _put_images(place)
        place.put("images/b.png", content)
        place.put("labels/b.txt", "0 .5 .5 .2 .2\n")
        return ["data", "check", place.put("data.yaml", "train: images\nnames: [a]\n")]

    def trained(name: str, content: bytes, place: Place) -> list[object]:
        arguments = checked(name, content, place)
        return [
            "train",
            "centernet_mobilenetv2",
            "--data",
            arguments[-1],
            "--max-steps",
            "1",
            "--image-size",
            "64",
            "--batch-size",
            "1",
            "data.workers=0",
        ]

    odd = odd_images()
    for number, (name, content) in enumerate(odd.items()):
        yield Case("images", f"predict: {name}", partial(predicted, name, content))
        yield Case("images", f"check: {name}", partial(checked, name, content))
        if "cut" not in name:
            yield Case("images", f"keep-res: {name}", partial(kept, name, content))
        if number % 3 == 0 or number < 6:
            yield Case("images", f"train: {name}", partial(trained, name, content))
