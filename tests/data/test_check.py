import json
import struct

import numpy as np
import pytest

from ctnet.data.check import check
from ctnet.data.check_boxes import Limits
from ctnet.data.dataset import open_dataset
from ctnet.data.demo import write_demo
from ctnet.data.findings import KINDS
from ctnet.data.image import write_image
from ctnet.data.mend import fix
from ctnet.errors import ConfigError, DataError

WIDTH, HEIGHT = 93, 61


class Broken:
    """A sound data set of two splits, to be broken in one place."""

    def __init__(self, root):
        self.root = root
        self.content = {
            split: {
                "images": [self.image(k, f"{split}_{k}.png") for k in (1, 2, 3, 4)],
                "annotations": [
                    {"id": 10 * k, "image_id": k, "category_id": 1 + k % 2, "bbox": [20, 10, 30, 25]}
                    for k in (1, 2, 3, 4)
                ],
                "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            }
            for split in ("train", "val")
        }
        for number, split in enumerate(self.content):
            for k in (1, 2, 3, 4):
                write_image(root / "images" / f"{split}_{k}.png", noise(10 * number + k))

    @staticmethod
    def image(image_id, file_name):
        return {"id": image_id, "file_name": file_name, "width": WIDTH, "height": HEIGHT}

    @property
    def train(self):
        return self.content["train"]

    @property
    def box(self):
        return self.train["annotations"][1]

    def picture(self, k=2, split="train"):
        return self.root / "images" / f"{split}_{k}.png"

    def add_boxes(self, *boxes, **fields):
        for k, box in enumerate(boxes):
            annotation = {"id": 1000 + k, "image_id": 2, "category_id": 1, "bbox": list(box), **fields}
            self.train["annotations"].append(annotation)

    def save(self):
        for split, content in self.content.items():
            path = self.root / "annotations" / f"instances_{split}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content))
        return self.root


def noise(seed, height=HEIGHT, width=WIDTH):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def data(tmp_path):
    return Broken(tmp_path)


def missing(data):
    data.picture().unlink()


def empty_file(data):
    data.picture().write_bytes(b"")


def cut_short(data):
    data.picture().write_bytes(data.picture().read_bytes()[:-200])


def no_picture(data):
    data.picture().write_text("moved to another server")


def wrong_suffix(data):
    write_image(data.root / "a.jpg", noise(5))
    (data.root / "a.jpg").replace(data.picture())


def other_size(data):
    write_image(data.picture(), noise(9, HEIGHT + 2, WIDTH))


def turned_by_exif(data):
    data.train["images"][1]["file_name"] = "train_2.jpg"
    path = data.root / "images" / "train_2.jpg"
    write_image(path, noise(7))
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff
    path.write_bytes(b"\xff\xd8" + exif + path.read_bytes()[2:])


def no_size(data):
    del data.train["images"][1]["width"]


def unknown_category(data):
    data.box["category_id"] = 7


def repeated_category_id(data):
    data.train["categories"].append({"id": 2, "name": "cow"})


def repeated_category_name(data):
    data.train["categories"].append({"id": 3, "name": "dog"})


def ids_with_holes(data):
    for content in data.content.values():
        for category in content["categories"]:
            category["id"] *= 45
        for annotation in content["annotations"]:
            annotation["category_id"] *= 45


def class_only_in_val(data):
    for annotation in data.train["annotations"]:
        annotation["category_id"] = 1


def class_only_in_train(data):
    for annotation in data.content["val"]["annotations"]:
        annotation["category_id"] = 1


def zero_size_box(data):
    data.box["bbox"] = [30, 40, 0, 12]


def negative_box(data):
    data.box["bbox"] = [30, 40, 12, -3]


def nan_box(data):
    data.box["bbox"] = [30, 40, float("nan"), 12]


def three_numbers(data):
    data.box["bbox"] = [30, 40, 12]


def area_in_words(data):
    data.box["area"] = "large"


def outside(data):
    data.box["bbox"] = [60, 40, 50, 12]


def far_outside(data):
    data.box["bbox"] = [-90, -40, 20, 12]


def corners(data):
    for annotation in data.train["annotations"]:
        annotation["bbox"] = [40, 30, 80, 55]


def normalised(data):
    for annotation in data.train["annotations"]:
        annotation["bbox"] = [0.4, 0.3, 0.5, 0.25]


def unannotated(data):
    data.train["annotations"].pop(1)


def more_than_top_k(data):
    data.add_boxes(*[(x, y, 30, 25) for x in range(0, 55, 5) for y in range(0, 30, 3)])


def too_small(data):
    data.add_boxes((70, 40, 0.5, 12))


def same_cell(data):
    data.add_boxes((20.02, 9.98, 30, 25))


def repeated_annotation_id(data):
    data.box["id"] = 10


def repeated_image_id(data):
    data.train["images"].append(data.image(2, "val_1.png"))


def repeated_file(data):
    data.train["images"].append(data.image(9, "train_2.png"))


def unknown_image(data):
    data.box["image_id"] = 77


def half_an_image(data):
    data.train["images"].append({"id": 9})


def no_object(data):
    data.train["annotations"].append("box")


def twin(data):
    data.picture(2, "val").write_bytes(data.picture(2, "train").read_bytes())


ROWS = [
    (missing, "image-missing", "error", "train_2.png"),
    (empty_file, "image-empty", "error", "train_2.png"),
    (cut_short, "image-unreadable", "error", "train_2.png"),
    (no_picture, "image-unreadable", "error", "train_2.png"),
    (wrong_suffix, "image-suffix", "error", "train_2.png is a .jpg picture"),
    (other_size, "image-size-differs", "error", "train_2.png: stated 93 x 61, is 93 x 63"),
    (turned_by_exif, "image-size-differs", "error", "is 61 x 93, turned by its EXIF tag"),
    (no_size, "image-size-differs", "error", "train_2.png: width absent"),
    (unknown_category, "category-unknown", "error", "annotation 20 in train_2.png: category_id 7"),
    (repeated_category_id, "category-repeated", "error", "id 2: dog and cow"),
    (repeated_category_name, "category-repeated", "error", "name dog"),
    (ids_with_holes, "category-ids-mapped", "info", "45 (cat)"),
    (class_only_in_val, "class-missing", "warning", "dog: none in train"),
    (class_only_in_train, "class-missing", "warning", "dog: none in val"),
    (zero_size_box, "box-empty", "error", "annotation 20 in train_2.png (93 x 61): x=30 y=40 w=0 h=12"),
    (negative_box, "box-empty", "error", "h=-3"),
    (nan_box, "box-malformed", "error", "annotation 20 in train_2.png: bbox [30, 40, nan, 12]"),
    (three_numbers, "box-malformed", "error", "bbox [30, 40, 12]"),
    (area_in_words, "area-malformed", "error", "annotation 20 in train_2.png: area 'large'"),
    (outside, "box-outside", "error", "annotation 20 in train_2.png (93 x 61): x=60 y=40 w=50"),
    (far_outside, "box-outside", "error", "x=-90"),
    (corners, "box-corners", "error", "xyxy stored as xywh"),
    (normalised, "box-normalised", "error", "x=0.4 y=0.3"),
    (unannotated, "image-unannotated", "info", "train_2.png"),
    (more_than_top_k, "image-crowded", "warning", "train_2.png: 111 boxes, needs evaluation.top_k=111"),
    (too_small, "box-tiny", "warning", "1 of 5 (20%)"),
    (same_cell, "centres-collide", "warning", "annotation 20 in train_2.png"),
    (repeated_annotation_id, "annotation-id-repeated", "error", "annotation 10"),
    (repeated_image_id, "image-id-repeated", "error", "image 2: train_2.png and val_1.png"),
    (repeated_file, "image-file-repeated", "error", "train_2.png: images 2 and 9"),
    (unknown_image, "image-unknown", "error", "annotation 20: image_id 77"),
    (half_an_image, "entry-malformed", "error", "images[4]"),
    (no_object, "entry-malformed", "error", "annotations[4] = 'box'"),
    (twin, "image-in-two-splits", "warning", "val_2.png is train_2.png of train"),
]
IDS = [row[0].__name__ for row in ROWS]


def test_sound_data_has_no_findings(data):
    report = check(data.save())
    assert report.findings == ()


@pytest.mark.parametrize(("spoil", "code", "severity", "words"), ROWS, ids=IDS)
def test_each_problem_is_found_and_named(data, spoil, code, severity, words):
    spoil(data)
    report = check(data.save())
    finding = next(f for f in report.findings if f.code == code)
    assert finding.severity == severity
    assert words in finding.message
    assert finding.message.startswith(("instances_train.json", "instances_val.json"))
    assert finding.count >= len(finding.examples) >= 1
    others = {f.code for f in report.findings if f.severity != "info"} - {code}
    allowed = {
        "image-crowded": {"centres-collide"},
        "box-normalised": {"box-tiny"},
        "category-repeated": set(),
    }
    assert others <= allowed.get(code, set()), others


def test_every_kind_of_finding_is_tested():
    assert {row[1] for row in ROWS} | {"annotations-unreadable"} == set(KINDS)


def test_it_does_not_stop_at_the_first_problem(data):
    for spoil in (missing, nan_box, repeated_category_name, half_an_image):
        spoil(data)
    data.content["val"]["annotations"][0]["bbox"] = [1, 1, 0, 0]
    codes = {finding.code for finding in check(data.save()).findings}
    assert {"image-missing", "box-malformed", "category-repeated", "entry-malformed", "box-empty"} <= codes


def test_limits_decide_what_is_small_close_or_crowded(data):
    data.add_boxes((20.5, 10.2, 30, 25), (70, 40, 3, 3))
    strict = check(data.save(), limits=Limits(image_size=(64, 64), top_k=2, max_objects=2))
    assert {f.code for f in strict.findings} == {"centres-collide", "box-tiny", "image-crowded"}
    assert "evaluation.top_k=3 data.max_objects=3" in strict.findings[-1].message + strict.findings[0].message
    assert check(data.root, limits=Limits(image_size=(1024, 1024))).findings == ()


def test_crowds_do_not_collide(data):
    data.add_boxes((20.02, 9.98, 30, 25), iscrowd=1)
    assert check(data.save()).findings == ()


def test_without_images_only_their_presence_is_checked(data):
    for spoil in (other_size, twin):
        spoil(data)
    data.picture(3).unlink()
    data.picture(1).write_bytes(b"")
    codes = {finding.code for finding in check(data.save(), images=False).findings}
    assert codes == {"image-missing", "image-empty"}


def test_progress_counts_every_picture(data):
    calls = []
    check(data.save(), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(k, 8) for k in range(1, 9)]


def test_named_splits_only(data):
    missing(data)
    data.save()
    assert check(data.root, ["val"]).findings == ()
    with pytest.raises(DataError, match="train or val"):
        check(data.root, ["test"])


def test_report_counts_classes_sizes_and_shapes(data):
    train, _ = check(data.save()).splits
    assert (train.images, train.boxes) == (4, 4)
    assert train.classes == {"cat": 2, "dog": 2}
    assert train.box_sides["16-32"] == 4
    assert sum(train.box_sides.values()) == 4
    assert train.aspect_ratios["1.34-2"] == 4


def test_report_is_json(data):
    nan_box(data)
    document = json.loads(json.dumps(check(data.save()).to_dict()))
    assert document["schema"] == "ctnet.data.check/1"
    assert document["counts"] == {"error": 1, "warning": 0, "info": 1}
    assert [split["split"] for split in document["splits"]] == ["train", "val"]
    assert set(document["findings"][0]) == {
        "severity",
        "code",
        "file",
        "count",
        "message",
        "hint",
        "examples",
    }


@pytest.mark.parametrize("text", ["{", "[]", '{"images": []}'])
def test_a_file_that_is_no_coco_is_a_finding_and_the_rest_goes_on(data, text):
    missing(data)
    data.save()
    (data.root / "annotations" / "instances_val.json").write_text(text)
    report = check(data.root)
    assert [f.code for f in report.findings] == ["annotations-unreadable", "image-missing"]
    assert "instances_val.json" in report.findings[0].message


def test_pixels_in_a_yolo_file_are_found(tmp_path):
    write_image(tmp_path / "images" / "train" / "a.png", noise(0))
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text("0 40 30 20 20\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat]\n")
    (finding,) = check(tmp_path).findings
    assert (finding.severity, finding.code) == ("error", "annotations-unreadable")
    assert "a.txt:1" in finding.message
    assert "these look like pixels" in finding.message


def test_a_yolo_set_goes_through_the_same_rules(tmp_path):
    write_image(tmp_path / "images" / "train" / "a.png", noise(0))
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0 0.5\n0 0.9 0.5 0.8 0.5\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat]\n")
    codes = {finding.code for finding in check(tmp_path).findings}
    assert codes == {"box-empty", "box-outside", "category-ids-mapped"}


MECHANICAL = [
    missing, empty_file, cut_short, other_size, turned_by_exif, no_size, unknown_category, zero_size_box,
    negative_box, nan_box, three_numbers, area_in_words, outside, far_outside, corners, normalised,
    repeated_annotation_id, unknown_image, half_an_image, no_object, repeated_category_id,
]  # fmt: skip


@pytest.mark.parametrize("spoil", MECHANICAL, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("place", ["annotations/mended.json", "elsewhere/mended.json"])
def test_mechanical_problems_are_mended(data, spoil, place):
    spoil(data)
    source = data.save() / "annotations" / "instances_train.json"
    before = source.read_bytes()
    done = fix(source, data.root / place)
    assert done
    assert source.read_bytes() == before
    assert check(data.root / place).count("error") == 0


def test_mended_boxes_are_the_meant_ones(data):
    corners(data)
    source = data.save() / "annotations" / "instances_train.json"
    assert fix(source, data.root / "out.json") == ["4 boxes converted from xyxy"]
    mended = json.loads((data.root / "out.json").read_text())
    assert [annotation["bbox"] for annotation in mended["annotations"]] == [[40, 30, 40, 25]] * 4
    assert mended["annotations"][0]["area"] == 1000


def test_mending_clips_and_keeps_other_fields(data):
    outside(data)
    data.box.update(area=70, segmentation=[[1, 2, 3]], note="seen twice")
    data.train["info"] = {"year": 2020}
    source = data.save() / "annotations" / "instances_train.json"
    assert fix(source, data.root / "out.json") == ["1 boxes clipped to their picture"]
    mended = json.loads((data.root / "out.json").read_text())
    assert mended["annotations"][1] == {**data.box, "bbox": [60, 40, 33, 12]}
    assert mended["info"] == {"year": 2020}
    assert [annotation["id"] for annotation in mended["annotations"]] == [10, 20, 30, 40]


def test_sound_data_is_left_as_it_is(data):
    source = data.save() / "annotations" / "instances_train.json"
    assert fix(source, data.root / "annotations" / "out.json") == []
    assert json.loads((data.root / "annotations" / "out.json").read_text()) == data.train


def test_mending_needs_one_coco_file_and_another_name(data):
    data.save()
    with pytest.raises(DataError, match="one file at a time"):
        fix(data.root, data.root / "out.json")
    source = data.root / "annotations" / "instances_train.json"
    with pytest.raises(ConfigError, match="another file"):
        fix(source, source)


def test_mending_never_empties_a_file_whose_pictures_were_not_found(data):
    source = data.save() / "annotations" / "instances_train.json"
    (data.root / "images").rename(data.root / "somewhere")
    with pytest.raises(DataError, match="none of 4 pictures") as caught:
        fix(source, data.root / "out.json")
    assert "YAML" in str(caught.value)
    assert not (data.root / "out.json").exists()


def test_the_demo_and_the_blood_cells(tmp_path, shared):
    assert check(write_demo(tmp_path, 12, 4)).count("error") == 0
    report = check(shared / "data" / "bccd")
    errors = [finding for finding in report.findings if finding.severity == "error"]
    assert [(f.code, f.count) for f in errors] == [("box-empty", 1), ("box-empty", 1)]
    assert "BloodImage_00343.jpg" in errors[0].message
    assert "BloodImage_00338.jpg" in errors[1].message
    assert {split.split: split.boxes for split in report.splits} == {"train": 2805, "val": 1138, "test": 945}


def test_ids_that_are_no_numbers_and_areas_that_are_not_stated_are_no_obstacle(data):
    data.box["id"] = [20]
    data.train["annotations"][0]["area"] = None
    source = data.save() / "annotations" / "instances_train.json"
    assert fix(source, data.root / "annotations" / "out.json") == ["1 annotation ids numbered anew"]
    assert check(data.root / "annotations" / "out.json").count("error") == 0
    first, second, *_ = open_dataset(data.root / "annotations" / "out.json", "train").images
    assert first.areas.tolist() == [np.prod(first.boxes_xyxy[0, 2:] - first.boxes_xyxy[0, :2])]
    assert second.annotation_ids.tolist() == [41]
