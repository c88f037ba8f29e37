"""Small files of images and annotations that ask for much: one clear error each, in little time and memory."""

import json
import os
import struct
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

import hostile
from ctnet.config import load_recipe
from ctnet.config.load import read_yaml
from ctnet.data.checks.check import check
from ctnet.data.image import read_image, write_image
from ctnet.data.image_header import read_header
from ctnet.data.image_size import read_image_size
from ctnet.data.layouts.yolo import read_yolo
from ctnet.errors import ConfigError, DataError
from ctnet.limits import JSON_DEPTH, parse_json

SECONDS, MEGABYTES = 10, 2000

PROGRAM = """
import json, sys, time
from pathlib import Path
import hostile
from ctnet.config.load import load_recipe
from ctnet.data.checks.check import check
from ctnet.data.layouts.coco import read_coco
from ctnet.data.image import read_image
from ctnet.data.image_size import read_image_size
from ctnet.data.layouts.table import find_splits
from ctnet.errors import CtnetError

READERS = {
    "IMAGES": (".png", [read_image, read_image_size]),
    "YAML": (".yaml", [lambda path: load_recipe(str(path)), lambda path: (find_splits(path), 1 / 0)]),
    "JSON": (".json", [lambda path: read_coco(path, [Path()], "train"), lambda path: (check(path), 1 / 0)]),
}
found = {}
suffix, readers = READERS[sys.argv[1]]
for number, (name, write) in enumerate(getattr(hostile, sys.argv[1]).items()):
    for reader in range(len(readers)):
        path = Path(f"file-{number}-{reader}{suffix}")
        write(path)
        began = time.process_time()
        try:
            ended = f"read: {readers[reader](path)}"
        except CtnetError as error:
            ended = str(error)
        except ZeroDivisionError:
            ended = "a report"
        peak = hostile.peak_megabytes()
        found[f"{name} {reader}"] = (ended, time.process_time() - began, peak)
        path.unlink()
print(json.dumps(found))
"""


@pytest.mark.parametrize("kind", ["IMAGES", "YAML", "JSON"])
def test_small_files_that_ask_for_much(kind, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=hostile.environment(),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for name, (ended, seconds, megabytes) in json.loads(done.stdout).items():
        assert not ended.startswith("read") or name == "jpeg-many-scans 1", (
            name,
            ended[:200],
        )  # its size is quick to read
        assert len(ended) < 1500, name
        assert seconds < SECONDS, name
        assert megabytes < MEGABYTES, name
    assert not list(tmp_path.iterdir())


def test_an_image_beyond_the_limit_says_how_to_raise_it(tmp_path, monkeypatch):
    hostile.png(300, 200)(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (200, 300, 3)
    monkeypatch.setenv("CTNET_MAX_PIXELS", "59999")
    for read in (read_image, read_image_size):
        with pytest.raises(DataError, match=r"300 x 200, more than 59,999 pixels") as caught:
            read(tmp_path / "a.png")
        assert caught.value.facts["file"] == str(tmp_path / "a.png")
        assert "CTNET_MAX_PIXELS=N" in str(caught.value.hint)
    monkeypatch.setenv("CTNET_MAX_PIXELS", "60000")
    assert read_image(tmp_path / "a.png").shape == (200, 300, 3)
    for wrong in ("many", "0", "-5", "1e9", "9" * 30, "²"):
        monkeypatch.setenv("CTNET_MAX_PIXELS", wrong)
        with pytest.raises(ConfigError, match="CTNET_MAX_PIXELS"):
            read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    "suffix", [".jpg", ".png", ".bmp", ".gif", ".webp", ".tiff", ".ppm", ".pgm", ".pam", ".pfm", ".hdr", ".sr", ".jp2"]
)
def test_every_format_states_its_size(suffix, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (37, 91, 3), np.uint8)
    if suffix in (".pfm", ".hdr"):
        image = image.astype(np.float32) / 255
    elif suffix == ".pgm":
        image = image[..., 0]
    path = tmp_path / f"a{suffix}"
    try:
        written = cv2.imwrite(str(path), image)
    except cv2.error:
        written = False
    if not written:
        pytest.skip(f"this OpenCV writes no {suffix}")
    header = read_header(path.read_bytes())
    assert header is not None
    assert header[:2] == (37, 91)
    assert read_image(path).shape == (37, 91, 3)
    assert read_image_size(path) == (37, 91)


def _with_exif(content: bytes, tiff: bytes, between: bytes = b"") -> bytes:
    exif = b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff
    return content[:2] + exif + between + content[2:]


def _orientation(value: int, magic: bytes = b"II*\0", kind: int = 3, count: int = 1) -> bytes:
    order = "<" if magic.startswith(b"II") else ">"
    return magic + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x112, kind, count, value, 0, 0)


@pytest.mark.parametrize("magic", [b"II*\0", b"MM\0*", b"XX*\0", b"II+\0", b"MM*\0", b"ii*\0", b"\0\0\0\0"])
@pytest.mark.parametrize("value", [0, 1, 5, 6, 8, 9])
def test_exif_turns_sides_as_decoding_does(magic, value, tmp_path):
    content = cv2.imencode(".jpg", np.zeros((20, 50, 3), np.uint8))[1].tobytes()
    path = tmp_path / "a.jpg"
    for kind, count, between in ((3, 1, b""), (4, 1, b""), (3, 0, b""), (3, 1, b"\xff\xff")):
        path.write_bytes(_with_exif(content, _orientation(value, magic, kind, count), between))
        assert read_image_size(path) == read_image(path).shape[:2], (kind, count, between)
    for cut in range(0, 26, 5):
        path.write_bytes(_with_exif(content, _orientation(value, magic)[:cut]))
        assert read_image_size(path) == read_image(path).shape[:2], cut


def test_a_jpeg_whose_segment_has_no_length(tmp_path):
    content = cv2.imencode(".jpg", np.zeros((20, 50, 3), np.uint8))[1].tobytes()
    for length in (0, 1):
        path = tmp_path / "a.jpg"
        path.write_bytes(content[:2] + b"\xff\xe5" + bytes([0, length]) + content[2:])
        with pytest.raises(DataError):
            read_image_size(path)


def test_json_as_deep_as_is_read_and_one_deeper():
    most = JSON_DEPTH.most
    assert parse_json("[" * most + "]" * most) is not None
    assert parse_json(b'{"a": "' + b"[{" * 500 + b'\\" ]} \\\\"}') is not None
    assert parse_json('[[],{},"\ud800"]') == [[], {}, "\ud800"]
    for deep in ("[" * (most + 1) + "]" * (most + 1), '{"a":' * 101 + "1" + "}" * 101, "[1," * 101 + "2" + "]" * 101):
        with pytest.raises(ValueError, match="more than 100 levels of JSON"):
            parse_json(deep)


NAMES = "[1:30, 0x10, yes, null, ~, 1e3, 2001-01-01, 007, .5, 'on', true, 1_0]"
WORDS = ["1:30", "0x10", "yes", "null", "~", "1e3", "2001-01-01", "007", ".5", "on", "true", "1_0"]


@pytest.mark.parametrize("numbered", [False, True])
def test_names_of_classes_are_what_was_written(numbered, tmp_path):
    names = "".join(f"\n  {i}: {word}" for i, word in enumerate(NAMES[1:-1].split(", "))) if numbered else f" {NAMES}"
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images" / "a.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "data.yaml").write_text(f"names:{names}\ntrain: images\nval: null\nnc: 0xC\n")
    read = read_yolo(tmp_path / "data.yaml", "train")
    assert [(c.id, c.name) for c in read.categories] == list(enumerate(WORDS))
    assert list(read_yaml(tmp_path / "data.yaml", "names").items())[1:] == [
        ("train", "images"),
        ("val", None),
        ("nc", 12),
    ]
    for wrong in ("[a, , b]", "[a, '']", "[a, [b]]", "{0: a, b: c}", "{1: }"):
        (tmp_path / "data.yaml").write_text(f"names: {wrong}\ntrain: images\n")
        with pytest.raises(DataError):
            read_yolo(tmp_path / "data.yaml", "train")


def test_a_recipe_has_no_numbers_of_base_60(tmp_path):
    (tmp_path / "a.yaml").write_text("schedule: {epochs: 1:30}")
    with pytest.raises(ConfigError, match=r"schedule.epochs"):
        load_recipe(str(tmp_path / "a.yaml"))
    with pytest.raises(ConfigError, match=r"schedule.epochs"):
        load_recipe(overrides=["schedule.epochs=1:30"])


def test_a_pipe_anywhere_is_refused_at_once(tmp_path, ctnet):
    """Without a writer, opening one waits for ever."""
    root = tmp_path / "set"
    for folder in ("annotations", "images", "labels", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    assert ctnet("config", "show", pipe)[0] == 2
    assert ctnet("train", pipe)[0] == 2
    assert ctnet("data", "check", pipe)[0] == 3
    os.mkfifo(root / "annotations" / "instances_train.json")
    assert ctnet("data", "check", root)[0] == 3
    coco = {"images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}], "annotations": [], "categories": []}
    (root / "annotations" / "instances_train.json").unlink()
    (root / "annotations" / "instances_train.json").write_text(json.dumps(coco))
    os.mkfifo(root / "images" / "a.png")
    assert ctnet("data", "check", root)[0] == 3
    assert ctnet("data", "view", root)[0] == 3
    (root / "annotations" / "instances_train.json").unlink()
    (root / "images" / "a.png").unlink()
    write_image(root / "images" / "a.png", np.zeros((8, 8, 3), np.uint8))
    os.mkfifo(root / "labels" / "a.txt")
    (root / "data.yaml").write_text("names: [cup]\ntrain: images\n")
    assert ctnet("data", "check", root / "data.yaml")[0] == 3
    os.mkfifo(root / "Annotations" / "a.xml")
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    assert ctnet("data", "check", root)[0] == 3
    (root / "ImageSets" / "Main" / "train.txt").unlink()
    os.mkfifo(root / "ImageSets" / "Main" / "train.txt")
    assert ctnet("data", "check", root)[0] == 3


def _categories(count, root):
    (root / "annotations").mkdir(parents=True)
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 2 * i, "name": f"class {i}"} for i in range(count)],
    }
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return root


def test_the_time_of_a_check_is_linear_in_classes_and_small(tmp_path, ctnet):
    count = 100_000
    root = _categories(count, tmp_path / "set")
    began = time.process_time()
    report = check(root)
    assert len(report.splits[0].classes) == count
    assert (time.process_time() - began) / count < 20e-6  # 2 us on an idle machine
    began = time.process_time()
    _, out, _ = ctnet("data", "check", root)
    assert "98,500 classes more" in out
    assert (time.process_time() - began) / count < 40e-6
