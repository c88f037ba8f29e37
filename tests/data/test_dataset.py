import json

import numpy as np
import pytest

from ctnet.config import Data
from ctnet.data.checks.usable import check_usable
from ctnet.data.dataset import open_dataset
from ctnet.data.image import write_image
from ctnet.errors import DataError


def coco_text(names, boxes=((10, 5, 20, 10),)):
    images = [{"id": i + 1, "file_name": name, "width": 53, "height": 37} for i, name in enumerate(names)]
    annotations = [
        {"id": 100 * image["id"] + k, "image_id": image["id"], "category_id": 3, "bbox": list(box)}
        for image in images
        for k, box in enumerate(boxes)
    ]
    return json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "cat"}]})


def put(root, files, images=()):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in images:
        write_image(root / name, np.zeros((37, 53, 3), np.uint8))
    return root


@pytest.mark.parametrize("folder", ["train2017/", "train/", "images/train2017/", "images/train/", "images/", ""])
@pytest.mark.parametrize("file", ["instances_train.json", "instances_train2017.json"])
def test_coco_folders_are_found(tmp_path, folder, file):
    put(tmp_path, {f"annotations/{file}": coco_text(["a.png"])}, [f"{folder}a.png"])
    split = open_dataset(tmp_path, "train")
    assert split.images[0].path == tmp_path / folder / "a.png"
    assert check_usable(split) == []


def test_two_years_of_a_split_keep_their_years(tmp_path):
    files = {f"annotations/instances_val{year}.json": coco_text([f"{year}.png"]) for year in (2014, 2017)}
    put(tmp_path, files, ["val2014/2014.png", "val2017/2017.png"])
    assert open_dataset(tmp_path, "val2014").images[0].path == tmp_path / "val2014" / "2014.png"
    with pytest.raises(DataError, match="val2014 or val2017"):
        open_dataset(tmp_path, "val")


def test_roboflow_folder_calls_valid_val(tmp_path):
    files = {f"{split}/_annotations.coco.json": coco_text(["a.png"]) for split in ("train", "valid")}
    put(tmp_path, files, ["train/a.png", "valid/a.png"])
    assert open_dataset(tmp_path, "val").images[0].path == tmp_path / "valid" / "a.png"


@pytest.mark.parametrize("file", ["annotations/labels.json", "labels.json"])
@pytest.mark.parametrize("folder", ["images/", "", "labels/"])
def test_a_json_file_by_itself_serves_as_any_split(tmp_path, file, folder):
    put(tmp_path, {file: coco_text(["a.png"])}, [f"{folder}a.png"])
    split = open_dataset(tmp_path / file, "val")
    assert split.images[0].path == tmp_path / folder / "a.png"
    assert split.split == "val"


def test_a_mended_copy_finds_the_images_of_its_split(tmp_path):
    put(
        tmp_path,
        {"annotations/val_mended.json": coco_text(["a.png"])},
        ["images/train/a.png", "images/val/a.png"],
    )
    split = open_dataset(tmp_path / "annotations" / "val_mended.json", "val")
    assert split.images[0].path == tmp_path / "images" / "val" / "a.png"


def test_a_yaml_names_files_relative_to_itself(tmp_path):
    text = "train: {annotations: a/x.json, images: pics}\nval:\n  annotations: a/y.json\n  images: pics\n"
    put(tmp_path, {"my.yaml": text, "a/x.json": coco_text(["a.png"]), "a/y.json": coco_text(["b.png"])})
    assert open_dataset(str(tmp_path / "my.yaml"), "val").images[0].path == tmp_path / "pics" / "b.png"


@pytest.mark.parametrize(
    ("files", "path", "split", "words"),
    [
        ({}, "nowhere", "train", "nowhere"),
        ({"readme.txt": ""}, ".", "train", "instances_"),
        ({"annotations/instances_val.json": coco_text(["a.png"])}, ".", "train", "val"),
        ({"my.yaml": "train: {annotations: x.json}"}, "my.yaml", "train", "images: FOLDER"),
        ({"my.yaml": "- 1\n- 2"}, "my.yaml", "train", "mapping"),
        ({"my.yaml": "train: [1"}, "my.yaml", "train", "my.yaml"),
    ],
    ids=["no-path", "no-layout", "no-split", "half-a-yaml", "yaml-list", "broken-yaml"],
)
def test_what_is_no_data_set_is_named(tmp_path, files, path, split, words):
    put(tmp_path, files)
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path / path, split)
    assert words in str(caught.value)


def usable(tmp_path, *boxes, names=("a.png",), images=None):
    files = {"annotations/instances_train.json": coco_text(list(names), boxes)}
    put(tmp_path, files, [f"images/{name}" for name in (names if images is None else images)])
    return check_usable(open_dataset(tmp_path, "train"))


def test_good_boxes_need_no_words(tmp_path):
    assert usable(tmp_path, (0, 0, 53.9, 37.5), (1, 1, 3, 3)) == []


def test_empty_and_outside_boxes_are_counted_with_the_first_named(tmp_path):
    good = [(5, 5, 5, 5)] * 4
    empty, outside, *_ = usable(tmp_path, *good, (7, 7, 0, 3), (1, 1, 9, 0), (50, 30, 20, 4))
    assert (empty.code, empty.count, "annotation 104 in a.png" in empty.message) == ("box-empty", 2, True)
    assert (outside.code, outside.count, "annotation 106 in a.png" in outside.message) == ("box-outside", 1, True)


def test_images_without_objects_are_counted(tmp_path):
    data = json.loads(coco_text(["a.png", "b.png"]))
    data["annotations"].pop()
    put(tmp_path, {"annotations/instances_train.json": json.dumps(data)}, ["images/a.png", "images/b.png"])
    (finding,) = check_usable(open_dataset(tmp_path, "train"))
    assert (finding.code, finding.count) == ("image-unannotated", 1)


def test_no_box_at_all_is_refused_unless_the_background_is_wanted(tmp_path):
    with pytest.raises(DataError, match="train of 1 images: none has a box"):
        usable(tmp_path)
    (finding,) = check_usable(open_dataset(tmp_path, "train"), settings=Data(allow_background=True))
    assert (finding.code, finding.severity) == ("boxes-unusable", "warning")


def test_images_shrunk_after_labelling_are_refused_with_both_sizes(tmp_path):
    put(tmp_path, {"annotations/instances_train.json": coco_text(["a.png"])})
    write_image(tmp_path / "a.png", np.zeros((18, 26, 3), np.uint8))
    with pytest.raises(DataError, match="stated 53 x 37, is 26 x 18"):
        check_usable(open_dataset(tmp_path, "train"))


def test_an_empty_image_is_named_and_left_out_or_refused(tmp_path):
    put(tmp_path, {"annotations/instances_train.json": coco_text(["a.png", "b.png"])}, ["a.png", "b.png"])
    (tmp_path / "b.png").write_bytes(b"")
    (finding,) = check_usable(open_dataset(tmp_path, "train"))
    assert (finding.code, finding.severity, "b.png" in finding.message) == ("image-left-out", "warning", True)
    with pytest.raises(DataError, match=r"b\.png: it has zero bytes"):
        check_usable(open_dataset(tmp_path, "train"), settings=Data(on_bad_image="error"))


def test_a_set_that_is_evaluated_on_what_it_trains_on_is_counted(tmp_path):
    put(tmp_path, {"x.json": coco_text(["a.png"])}, ["a.png"])
    findings = check_usable(open_dataset(tmp_path / "x.json", "train"), open_dataset(tmp_path / "x.json", "val"))
    assert [(f.code, f.count) for f in findings] == [("image-in-two-splits", 1)]


def test_no_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="without an image"):
        usable(tmp_path, names=())


def test_missing_files_are_refused_with_the_first_named(tmp_path):
    with pytest.raises(DataError, match="2 images that are missing") as caught:
        usable(tmp_path, (1, 1, 2, 2), names=("a.png", "b.png", "c.png"), images=("a.png",))
    assert "b.png" in str(caught.value)


def test_corners_stored_as_sizes_are_refused_with_the_way_out(tmp_path):
    with pytest.raises(DataError, match="xyxy stored as xywh") as caught:
        usable(tmp_path, (30, 20, 50, 35), (40, 3, 45, 30), (1, 1, 4, 4))
    assert "annotation 100 in a.png" in str(caught.value)
    assert "x=30 y=20 w=50 h=35" in str(caught.value)
    assert "ctnet data convert" in str(caught.value)
    assert "--from xyxy" in str(caught.value)


def test_boxes_that_leave_the_image_but_are_no_corners_pass(tmp_path):
    assert len(usable(tmp_path, (30, 20, 29, 19), (40, 30, 30, 20))) == 1


def test_fractions_are_refused(tmp_path):
    with pytest.raises(DataError, match="fractions"):
        usable(tmp_path, (0.5, 0.5, 0.2, 0.3), (0.1, 0.2, 0.2, 0.3))


def test_blood_cells_have_one_empty_box_in_train_and_val(shared):
    expected = {"train": "BloodImage_00343.jpg", "val": "BloodImage_00338.jpg", "test": None}
    for split, name in expected.items():
        warnings = check_usable(open_dataset(shared / "data" / "bccd", split))
        warnings = [finding for finding in warnings if finding.code == "box-empty"]
        assert len(warnings) == (name is not None)
        assert name is None or (warnings[0].count == 1 and name in warnings[0].message)
