"""A data layout from outside the package is one row: it is found, checked, trained on and converted."""

import csv
import json
from collections import defaultdict

import numpy as np
import pytest

from ctnet.data.checks.check import check
from ctnet.data.convert import convert
from ctnet.data.dataset import has_split, open_dataset
from ctnet.data.image_size import read_image_size
from ctnet.data.layouts import table
from ctnet.data.layouts.layout import Layout, SplitFiles, by_split
from ctnet.data.layouts.names import ImageFinder
from ctnet.data.layouts.records import Records
from ctnet.data.layouts.tolerant import Tolerant
from ctnet.errors import ConfigError, DataError
from ctnet.types import AnnotationSet, Category


def find_boxes(path):
    return by_split((f.stem, SplitFiles(f, (path / "photos",))) for f in sorted(path.glob("*.boxes")))


def read_boxes(files, split, tolerate):
    tolerant, records, rows_of, names = Tolerant(tolerate), Records(), defaultdict(list), set()
    for number, row in enumerate(csv.DictReader(files.file.read_text().splitlines()), 2):
        if (box := tolerant(lambda row=row, number=number: corners(row, f"{files.file}:{number}"))) is not None:
            rows_of[row["image"]].append((row["class"], box))
            names.add(row["class"])
    label_of = {name: label for label, name in enumerate(sorted(names))}
    find_image = ImageFinder(files.image_folders)
    for image_id, (name, rows) in enumerate(rows_of.items(), 1):
        path = find_image(name)
        boxes = np.array([box for _, box in rows], np.float32)
        records.add(path, read_image_size(path), boxes, np.array([label_of[c] for c, _ in rows]), image_id)
    categories = tuple(Category(label + 1, name) for name, label in label_of.items())
    return AnnotationSet(files.file, split, categories, tuple(records.images))


def corners(row, where):
    try:
        return [float(row[side]) for side in ("x1", "y1", "x2", "y2")]
    except ValueError:
        raise DataError("the row has no box", file=where, expected="four numbers", got=row) from None


@pytest.fixture
def boxes_set(small_set, tmp_path, monkeypatch):
    """The demo set as tables of its own, and the table with a row for them."""
    root = tmp_path / "as_boxes"
    (root / "photos").mkdir(parents=True)
    for split, file in (("train", "Training.boxes"), ("val", "validation.boxes")):
        annotations = open_dataset(small_set, split)
        with (root / file).open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["image", "class", "x1", "y1", "x2", "y2"])
            for image in annotations.images:
                (root / "photos" / image.path.name.upper()).write_bytes(image.path.read_bytes())
                for label, box in zip(image.labels, image.boxes_xyxy.tolist(), strict=True):
                    writer.writerow([image.path.name, annotations.categories[label].name, *box])
    monkeypatch.setattr(
        table, "LAYOUTS", [*table.LAYOUTS, Layout("boxes", "boxes", ("*.boxes",), find_boxes, read_boxes)]
    )
    return root


def test_it_is_read_under_the_names_of_ctnet(boxes_set, small_set):
    for split in ("train", "val"):
        old, new = open_dataset(small_set, split), open_dataset(boxes_set, split)
        assert new.num_boxes == old.num_boxes
        assert {c.name for c in new.categories} <= {c.name for c in old.categories}
    assert has_split(boxes_set, "validation")
    assert not has_split(boxes_set, "test")


def test_it_is_checked_by_the_same_rules(boxes_set):
    assert check(boxes_set).count("error") == 0
    with (boxes_set / "Training.boxes").open("a") as stream:
        stream.write("train_00000.jpg,disc,1,2,3,four\n")
        stream.write("train_00000.jpg,disc,1,2,9999,50\n")
    codes = {finding.code: finding for finding in check(boxes_set).findings if finding.severity == "error"}
    assert set(codes) == {"annotations-unreadable", "box-outside"}
    assert "four numbers" in codes["annotations-unreadable"].message


def test_a_network_trains_on_it(boxes_set, ctnet, tmp_path):
    tiny = ("model.neck_channels=[16,16,16]", "model.head_channels=16", "data.image_size=64", "data.workers=0")
    out = tmp_path / "run"
    code, stdout, stderr = ctnet("train", "--data", boxes_set, "--max-steps", 2, "--out", out, "--json", *tiny)
    assert code == 0, stderr
    assert json.loads(stdout)["steps"] == 2


def test_it_is_converted_by_name_and_not_written(boxes_set, tmp_path):
    sets = convert(boxes_set, tmp_path / "coco", "boxes", link=True)
    assert open_dataset(tmp_path / "coco", "val").num_boxes == sets["val"].num_boxes
    with pytest.raises(ConfigError, match="cannot write 'boxes'"):
        convert(boxes_set, tmp_path / "again", to="boxes")


def test_without_the_row_the_error_says_what_every_layout_needs(boxes_set, monkeypatch):
    monkeypatch.setattr(table, "LAYOUTS", table.LAYOUTS[:-1])
    with pytest.raises(table.NoLayout) as caught:
        open_dataset(boxes_set, "train")
    for words in ("COCO needs", "instances_*.json", "YOLO needs", "Pascal VOC needs", str(boxes_set)):
        assert words in str(caught.value)
