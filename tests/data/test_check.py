import json

import pytest

import spoiled
from ctnet.data.checks.boxes import Limits
from ctnet.data.checks.check import check
from ctnet.data.checks.findings import KINDS
from ctnet.data.demo import write_demo
from ctnet.data.image import write_image
from ctnet.errors import DataError
from spoiled import Broken, noise


@pytest.fixture
def data(tmp_path):
    return Broken(tmp_path)


ROWS = [
    (spoiled.missing, "image-missing", "error", "train_2.png"),
    (spoiled.empty_file, "image-empty", "error", "train_2.png"),
    (spoiled.cut_short, "image-unreadable", "error", "train_2.png"),
    (spoiled.no_image, "image-unreadable", "error", "train_2.png"),
    (spoiled.wrong_suffix, "image-suffix", "warning", "train_2.png is in the format of .jpg files"),
    (spoiled.other_size, "image-size-differs", "error", "train_2.png: stated 93 x 61, is 93 x 63"),
    (spoiled.turned_by_exif, "image-size-differs", "error", "is 61 x 93, turned by its EXIF tag"),
    (spoiled.no_size, "image-size-differs", "error", "train_2.png: width absent"),
    (spoiled.unknown_category, "category-unknown", "error", "annotation 20 in train_2.png: category_id 7"),
    (spoiled.repeated_category_id, "category-repeated", "error", "id 2: dog and cow"),
    (spoiled.repeated_category_name, "category-repeated", "error", "name dog"),
    (spoiled.ids_with_holes, "category-ids-mapped", "info", "45 (cat)"),
    (spoiled.class_only_in_val, "class-missing", "warning", "dog: none in train"),
    (spoiled.class_only_in_train, "class-missing", "warning", "dog: none in val"),
    (spoiled.zero_size_box, "box-empty", "error", "annotation 20 in train_2.png (93 x 61): x=30 y=40 w=0 h=12"),
    (spoiled.negative_box, "box-empty", "error", "h=-3"),
    (spoiled.nan_box, "box-malformed", "error", "annotation 20 in train_2.png: bbox [30, 40, nan, 12]"),
    (spoiled.three_numbers, "box-malformed", "error", "bbox [30, 40, 12]"),
    (spoiled.area_in_words, "area-malformed", "error", "annotation 20 in train_2.png: area 'large'"),
    (spoiled.area_of_nothing, "area-zero", "warning", "annotation 20 in train_2.png: area 0, box 30 x 25"),
    (spoiled.box_twice, "box-repeated", "warning", "annotation 1000 in train_2.png"),
    (spoiled.outside, "box-outside", "error", "annotation 20 in train_2.png (93 x 61): x=60 y=40 w=50"),
    (spoiled.far_outside, "box-outside", "error", "x=-90"),
    (spoiled.corners, "box-corners", "error", "xyxy stored as xywh"),
    (spoiled.normalised, "box-normalised", "error", "x=0.4 y=0.3"),
    (spoiled.unannotated, "image-unannotated", "info", "train_2.png"),
    (spoiled.more_than_top_k, "image-crowded", "warning", "train_2.png: 111 boxes, needs evaluation.top_k=111"),
    (spoiled.too_small, "box-tiny", "warning", "1 of 5 (20%)"),
    (spoiled.same_cell, "centres-collide", "warning", "annotation 20 in train_2.png"),
    (spoiled.repeated_annotation_id, "annotation-id-repeated", "error", "annotation 10"),
    (spoiled.repeated_image_id, "image-id-repeated", "error", "image 2: train_2.png and val_1.png"),
    (spoiled.repeated_file, "image-file-repeated", "error", "train_2.png and train_2.png (images 2 and 9)"),
    (spoiled.unknown_image, "image-unknown", "error", "annotation 20: image_id 77"),
    (spoiled.half_an_image, "entry-malformed", "error", "images[4]"),
    (spoiled.no_object, "entry-malformed", "error", "annotations[4] = 'box'"),
    (spoiled.too_many_categories, "categories-refused", "error", "from 1 to 32,768 categories are expected"),
    (spoiled.no_images, "images-none", "error", "train"),
    (spoiled.no_boxes, "boxes-unusable", "error", "train of 4 images: none has a box"),
    (spoiled.no_val, "split-missing", "info", "val"),
    (spoiled.points_malformed, "keypoints-malformed", "error", "annotation 20 in train_2.png: keypoints [30, 40, 'x']"),
    (spoiled.category_of_points_malformed, "keypoints-malformed", "error", "pairs of the numbers 1 to 3"),
    (spoiled.points_short, "keypoints-count", "error", "annotation 20 in train_2.png: 2 points instead of 3"),
    (spoiled.points_of_odd_visibility, "keypoints-visibility", "error", "left_eye has 3"),
    (spoiled.points_in_the_corner, "keypoints-zero", "error", "left_eye"),
    (spoiled.points_outside, "keypoints-outside", "warning", "annotation 20 in train_2.png"),
    (spoiled.points_mirrored, "keypoints-mirrored", "warning", "18 of 18 (100%)"),
    (spoiled.twin, "image-in-two-splits", "warning", "val_2.png is train_2.png of train"),
]
OTHERS = {
    "annotations-unreadable", "annotations-repairable", "annotations-doubtful", "image-forbidden", "image-left-out",
    "image-converted", "image-cut", "class-unused", "boxes-none",
}  # fmt: skip
OTHERS |= {"crowd-malformed"}
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
        "category-repeated": {"class-unused"},
        "class-missing": {"class-unused"},
        "image-file-repeated": {"class-unused"},
        "box-repeated": {"centres-collide"},
        "categories-refused": {"class-unused"},
        "images-none": {"class-missing", "class-unused", "boxes-unusable"},
        "boxes-unusable": {"class-missing", "boxes-none"},
    }
    assert others <= allowed.get(code, set()), others


def test_every_kind_of_finding_is_tested():
    assert {row[1] for row in ROWS} | OTHERS == set(KINDS)


def test_it_does_not_stop_at_the_first_problem(data):
    for spoil in (spoiled.missing, spoiled.nan_box, spoiled.repeated_category_name, spoiled.half_an_image):
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
    for spoil in (spoiled.other_size, spoiled.twin):
        spoil(data)
    data.image_file(3).unlink()
    data.image_file(1).write_bytes(b"")
    codes = {finding.code for finding in check(data.save(), images=False).findings}
    assert codes == {"image-missing", "image-empty", "image-size-differs", "image-in-two-splits"}


def test_progress_counts_every_image(data):
    calls = []
    check(data.save(), progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (8, 8)


def test_named_splits_only(data):
    spoiled.missing(data)
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
    spoiled.nan_box(data)
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
    spoiled.missing(data)
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
    finding, *rest = check(tmp_path).findings
    assert (finding.severity, finding.code) == ("error", "annotations-repairable")
    assert finding.message == (
        "data.yaml: 1 places in annotation files that are not as they must be; first: a.txt:1 is malformed: "
        "expected fractions of the image between 0 and 1; these look like pixels, got 0 40 30 20 20"
    )
    assert {f.code for f in rest} == {"split-missing", "category-ids-mapped"}


def test_every_mistake_of_a_yolo_or_voc_set_is_found_at_once(tmp_path):
    for name in "abc":
        write_image(tmp_path / "yolo" / "images" / "train" / f"{name}.png", noise(0))
        write_image(tmp_path / "voc" / "JPEGImages" / f"{name}.png", noise(0))
    labels = tmp_path / "yolo" / "labels" / "train"
    labels.mkdir(parents=True)
    (labels / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n7 0.5 0.5 0.2 0.2\n0 0.5 -0.5 0.2 0.2\n")
    (labels / "b.txt").write_bytes(b"0 \xff\0")
    (tmp_path / "yolo" / "images" / "train" / "c.png").write_bytes(b"")
    (tmp_path / "yolo" / "data.yaml").write_text("train: images/train\nval: images/train\nnames: [cat]\n")
    report = check(tmp_path / "yolo")
    (finding,) = (f for f in report.findings if f.code == "annotations-unreadable")  # told once for both splits
    assert [example.split()[0] for example in finding.examples] == ["a.txt:2", "a.txt:3", "the"]
    assert "pixels" not in finding.examples[1]
    assert [(s.images, s.boxes) for s in report.splits] == [(3, 1), (3, 1)]

    whole = "<annotation><object><name>cat</name><bndbox>{}</bndbox></object></annotation>"
    corners = "<xmin>5</xmin><ymin>5</ymin><xmax>40</xmax><ymax>30</ymax>"
    for name, text in (
        ("a", whole.format(corners)),
        ("b", "<annotation>"),
        ("c", whole.format("<xmin>5</xmin>")),
    ):
        (tmp_path / "voc" / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "voc" / "Annotations" / f"{name}.xml").write_text(text)
    (tmp_path / "voc" / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "voc" / "ImageSets" / "Main" / "train.txt").write_text("a\nb\nc\nd\n")
    report = check(tmp_path / "voc")
    (finding,) = (f for f in report.findings if f.code == "annotations-unreadable")
    assert [example.split(":")[0] for example in finding.examples] == [
        "b.xml",
        "c.xml",
        "a listed image has no annotations",
    ]
    assert [(s.images, s.boxes) for s in report.splits] == [(1, 1)]


def test_a_yolo_set_goes_through_the_same_rules(tmp_path):
    write_image(tmp_path / "images" / "train" / "a.png", noise(0))
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0 0.5\n0 0.9 0.5 0.8 0.5\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat]\n")
    codes = {finding.code for finding in check(tmp_path).findings}
    assert codes == {"box-empty", "box-outside", "category-ids-mapped", "split-missing"}


def test_the_demo_and_the_blood_cells(tmp_path, shared):
    assert check(write_demo(tmp_path, 12, 4)).count("error") == 0
    report = check(shared / "data" / "bccd")
    errors = [finding for finding in report.findings if finding.severity == "error"]
    assert [(f.code, f.count) for f in errors] == [("box-empty", 1), ("box-empty", 1)]
    assert "BloodImage_00343.jpg" in errors[0].message
    assert "BloodImage_00338.jpg" in errors[1].message
    assert {split.split: split.boxes for split in report.splits} == {"train": 2805, "val": 1138, "test": 945}
