"""Mending a COCO json: what it does, and what it leaves to people."""

import json
from pathlib import Path

import numpy as np
import pytest

import spoiled
from ctnet.data.checks.check import check
from ctnet.data.checks.repair import fix
from ctnet.data.dataset import open_dataset
from ctnet.errors import ConfigError, DataError
from spoiled import HEIGHT, WIDTH, Broken


@pytest.fixture
def data(tmp_path):
    return Broken(tmp_path)


MECHANICAL = [
    spoiled.missing,
    spoiled.empty_file,
    spoiled.cut_short,
    spoiled.other_size,
    spoiled.no_size,
    spoiled.unknown_category,
    spoiled.zero_size_box,
    spoiled.negative_box,
    spoiled.nan_box,
    spoiled.three_numbers,
    spoiled.area_in_words,
    spoiled.outside,
    spoiled.far_outside,
    spoiled.corners,
    spoiled.normalised,
    spoiled.repeated_annotation_id,
    spoiled.unknown_image,
    spoiled.half_an_image,
    spoiled.no_object,
    spoiled.repeated_category_id,
]


@pytest.mark.parametrize("spoil", MECHANICAL, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("place", ["annotations/repaired.json", "elsewhere/repaired.json"])
def test_mechanical_problems_are_repaired(data, spoil, place):
    spoil(data)
    source = data.save() / "annotations" / "instances_train.json"
    before = source.read_bytes()
    done = fix(source, data.root / place)
    assert done
    assert source.read_bytes() == before
    assert check(data.root / place).count("error") == 0


def test_repaired_boxes_are_the_meant_ones(data):
    spoiled.corners(data)
    source = data.save() / "annotations" / "instances_train.json"
    assert fix(source, data.root / "out.json") == ["4 boxes converted from xyxy"]
    repaired = json.loads((data.root / "out.json").read_text())
    assert [annotation["bbox"] for annotation in repaired["annotations"]] == [[40, 30, 40, 25]] * 4
    assert repaired["annotations"][0]["area"] == 1000


def test_repairing_clips_and_keeps_other_fields(data):
    spoiled.outside(data)
    data.box.update(area=70, segmentation=[[1, 2, 3]], note="seen twice")
    data.train["info"] = {"year": 2020}
    source = data.save() / "annotations" / "instances_train.json"
    assert fix(source, data.root / "out.json") == ["1 boxes clipped to their image"]
    repaired = json.loads((data.root / "out.json").read_text())
    assert repaired["annotations"][1] == {**data.box, "bbox": [60, 40, 33, 12]}
    assert repaired["info"] == {"year": 2020}
    assert [annotation["id"] for annotation in repaired["annotations"]] == [10, 20, 30, 40]


def test_sound_data_is_left_as_it_is(data):
    source = data.save() / "annotations" / "instances_train.json"
    assert fix(source, data.root / "annotations" / "out.json") == []
    assert json.loads((data.root / "annotations" / "out.json").read_text()) == data.train


def test_repairing_needs_one_coco_file_and_another_name(data):
    data.save()
    with pytest.raises(ConfigError, match="one file at a time"):
        fix(data.root, data.root / "out.json")
    with pytest.raises(ConfigError, match="not empty"):
        fix(data.root, data.root / "annotations")
    source = data.root / "annotations" / "instances_train.json"
    (data.root / "notes.json").write_text("kept")
    for existing in (source, data.root / "notes.json"):
        with pytest.raises(ConfigError, match="a new file"):
            fix(source, existing)
    assert (data.root / "notes.json").read_text() == "kept"


def test_repairing_never_empties_a_file_whose_images_were_not_found(data):
    source = data.save() / "annotations" / "instances_train.json"
    (data.root / "images").rename(data.root / "somewhere")
    with pytest.raises(DataError, match="none of 4 images") as caught:
        fix(source, data.root / "out.json")
    assert "YAML" in str(caught.value)
    assert not (data.root / "out.json").exists()


def test_ids_that_are_no_numbers_and_areas_that_are_not_stated_are_no_obstacle(data):
    data.box["id"] = [20]
    data.train["annotations"][0]["area"] = None
    source = data.save() / "annotations" / "instances_train.json"
    assert fix(source, data.root / "annotations" / "out.json") == ["1 annotation ids numbered anew"]
    assert check(data.root / "annotations" / "out.json").count("error") == 0
    first, second, *_ = open_dataset(data.root / "annotations" / "out.json", "train").images
    assert first.areas.tolist() == [np.prod(first.boxes_xyxy[0, 2:] - first.boxes_xyxy[0, :2])]
    assert second.annotation_ids.tolist() == [41]


@pytest.mark.parametrize("reaches_out", [True, False])
@pytest.mark.parametrize("stated", [2, 0.5])
def test_boxes_are_scaled_with_their_images_unless_they_fit_the_real_ones_alone(data, stated, reaches_out):
    """Boxes beyond the smaller of both sizes tell on which images all were drawn."""
    for image in data.train["images"]:
        image.update(width=int(stated * WIDTH), height=int(stated * HEIGHT))
    for annotation in data.train["annotations"]:
        annotation["bbox"] = [5, 5, 20, 10]  # in the smaller size too
    if reaches_out:
        data.box["bbox"] = [100, 60, 40, 30] if stated == 2 else [40, 20, 30, 20]
    before = [annotation["bbox"] for annotation in data.train["annotations"]]
    source = data.save() / "annotations" / "instances_train.json"
    fix(source, data.root / "annotations" / "out.json")
    repaired = json.loads((data.root / "annotations" / "out.json").read_text())
    factor = WIDTH / int(stated * WIDTH) if (stated == 2) == reaches_out else 1
    for annotation, box in zip(repaired["annotations"], before, strict=True):
        assert annotation["bbox"] == pytest.approx([side * factor for side in box], abs=1.1)
    assert {(image["width"], image["height"]) for image in repaired["images"]} == {(WIDTH, HEIGHT)}


@pytest.mark.parametrize("upright", [False, True])
def test_boxes_of_a_turned_image_are_turned_unless_they_were_drawn_on_the_upright_one(data, upright):
    spoiled.turned_by_exif(data)  # by a quarter to the right
    if upright:
        data.box["bbox"] = [5, 60, 30, 20]  # beyond the 61 rows of the stored image, within the 93 of the seen one
    source = data.save() / "annotations" / "instances_train.json"
    fix(source, data.root / "annotations" / "out.json")
    assert check(data.root / "annotations" / "out.json").count("error") == 0
    repaired = json.loads((data.root / "annotations" / "out.json").read_text())
    turned = [5, 60, 30, 20] if upright else [HEIGHT - 10 - 25, 20, 25, 30]
    assert repaired["annotations"][1]["bbox"] == turned
    assert (repaired["images"][1]["width"], repaired["images"][1]["height"]) == (HEIGHT, WIDTH)


def test_an_image_without_rights_is_no_broken_one(data, monkeypatch):
    """As root reads everything, the refusal is the system's in words only."""
    read = Path.read_bytes

    def refusing(path):
        if path.name == "train_2.png":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    source = data.save() / "annotations" / "instances_train.json"
    monkeypatch.setattr(Path, "read_bytes", refusing)
    (finding,) = (f for f in check(source).findings if f.severity == "error")
    assert (finding.code, "train_2.png" in finding.message) == ("image-forbidden", True)
    with pytest.raises(DataError, match="no rights"):
        fix(source, data.root / "out.json")
