import json

import numpy as np
import pytest

from ctnet.data.checks.check import check
from ctnet.data.checks.usable import check_usable
from ctnet.data.dataset import open_dataset, open_image_list
from ctnet.data.layouts.coco import coco_dict, read_coco, write_coco, write_coco_json
from ctnet.errors import DataError
from ctnet.types import Category


def content(**changes):
    base = {
        "images": [
            {"id": 12, "file_name": "b.jpg", "width": 53, "height": 37},
            {"id": 5, "file_name": "sub/a.jpg", "width": 40, "height": 90},
            {"id": 6, "file_name": "empty.jpg", "width": 10, "height": 10},
        ],
        "annotations": [
            {
                "id": 101,
                "image_id": 5,
                "category_id": 90,
                "bbox": [1.5, 2.25, 10, 20.125],
                "area": 77.5,
                "iscrowd": 0,
            },
            {"id": 7, "image_id": 12, "category_id": 3, "bbox": [0, 0, 0, 0], "area": 0, "iscrowd": 0},
            {"id": 33, "image_id": 5, "category_id": 7, "bbox": [-5, 80, 30, 40], "iscrowd": 1},
        ],
        "categories": [
            {"id": 90, "name": "toothbrush"},
            {"id": 3, "name": "car"},
            {"id": 7, "name": "train"},
        ],
    }
    return {**base, **changes}


def write(folder, data):
    path = folder / "labels.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def test_labels_are_positions_of_sorted_ids_and_ids_are_kept(tmp_path):
    split = read_coco(write(tmp_path, content()), [tmp_path], "val")
    assert split.categories == (Category(3, "car"), Category(7, "train"), Category(90, "toothbrush"))
    assert split.split == "val"
    assert [image.id for image in split.images] == [12, 5, 6]
    assert split.images[1].labels.tolist() == [2, 1]
    assert split.images[1].annotation_ids.tolist() == [101, 33]
    assert split.images[1].crowd.tolist() == [False, True]
    assert split.images[1].areas.tolist() == [77.5, 1200]
    assert split.num_boxes == 3


def test_boxes_are_xyxy_as_read_also_empty_and_outside_ones(tmp_path):
    split = read_coco(write(tmp_path, content()), [tmp_path], "val")
    assert split.images[1].boxes_xyxy.tolist() == [[1.5, 2.25, 11.5, 22.375], [-5, 80, 25, 120]]
    assert split.images[0].boxes_xyxy.tolist() == [[0, 0, 0, 0]]
    assert split.images[2].boxes_xyxy.shape == (0, 4)
    assert split.images[2].boxes_xyxy.dtype == np.float32
    assert split.images[2].labels.dtype == np.int64


def test_images_are_found_by_name_then_bare_name_and_may_be_missing(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (second / "b.jpg", second / "a.jpg"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    split = read_coco(write(tmp_path, content()), [first, second], "val")
    assert [image.path for image in split.images] == [second / "b.jpg", second / "a.jpg", first / "empty.jpg"]


def test_ground_truth_for_scoring_keeps_ids_areas_and_crowds(tmp_path):
    truth = coco_dict(read_coco(write(tmp_path, content()), [tmp_path], "val"))
    by_id = {annotation["id"]: annotation for annotation in truth["annotations"]}
    assert set(by_id) == {101, 7, 33}
    assert by_id[101]["bbox"] == [1.5, 2.25, 10, 20.125]
    assert by_id[101]["area"] == 77.5
    assert by_id[33]["iscrowd"] == 1
    assert by_id[33]["category_id"] == 7
    assert [c["id"] for c in truth["categories"]] == [3, 7, 90]


@pytest.mark.parametrize("ids", [(0, 1, 2), (4, 4, 5)], ids=["zero", "repeated"])
def test_ids_that_would_be_scored_wrongly_are_numbered_anew(tmp_path, ids):
    data = content()
    for annotation, annotation_id in zip(data["annotations"], ids, strict=True):
        annotation["id"] = annotation_id
    truth = coco_dict(read_coco(write(tmp_path, data), [tmp_path], "val"))
    assert [annotation["id"] for annotation in truth["annotations"]] == [1, 2, 3]


def test_written_file_reads_back_equal(tmp_path):
    split = read_coco(write(tmp_path, content()), [tmp_path], "val")
    write_coco(split, tmp_path / "out" / "copy.json")
    again = read_coco(tmp_path / "out" / "copy.json", [tmp_path], "val")
    assert again.categories == split.categories
    for old, new in zip(split.images, again.images, strict=True):
        assert (new.id, new.path, new.width, new.height) == (old.id, old.path, old.width, old.height)
        assert np.array_equal(new.boxes_xyxy, old.boxes_xyxy)
        assert np.array_equal(new.areas, old.areas)
        assert np.array_equal(new.crowd, old.crowd)
        assert np.array_equal(new.annotation_ids, old.annotation_ids)


def changed(key, position, **fields):
    data = content()
    data[key][position] = {k: v for k, v in {**data[key][position], **fields}.items() if v != "absent"}
    return data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("{not json", "not JSON"),
        ("[" * 100000, "not JSON"),
        ("[1, 2]", "not COCO"),
        ({"images": [], "annotations": {}}, "annotations, categories"),
        (changed("annotations", 0, category_id=8), "annotation 101"),
        (changed("annotations", 0, category_id=[3]), "[3]"),
        (changed("annotations", 0, image_id=99), "99"),
        (changed("annotations", 1, bbox=[1, 2, 3]), "[1, 2, 3]"),
        (changed("annotations", 1, bbox=[1, 2, 3, float("nan")]), "nan"),
        (changed("annotations", 1, bbox=[1, 2, 3, float("inf")]), "inf"),
        (changed("annotations", 1, bbox=[1, 2, 3, "4"]), "'4'"),
        (changed("annotations", 1, bbox="absent"), "annotation 7"),
        (changed("annotations", 1, area="big"), "area"),
        (changed("categories", 0, id=3), "category id"),
        (changed("categories", 0, name="absent"), "categories[0]"),
        (changed("images", 0, id=5), "image id"),
        (changed("images", 0, id="12"), "images[0]"),
        (changed("images", 0, width="absent"), "width"),
        (changed("images", 0, height=0), "b.jpg"),
        (changed("images", 0, file_name="absent"), "image 12"),
        (content(annotations=[None]), "annotations[0]"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 30 else "",
)
def test_what_cannot_be_understood_is_named(tmp_path, data, words):
    with pytest.raises(DataError) as caught:
        read_coco(write(tmp_path, data), [tmp_path], "val")
    assert "labels.json" in str(caught.value)
    assert words in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.json"):
        read_coco(tmp_path / "none.json", [tmp_path], "val")


def test_blood_cells(shared):
    folder = shared / "data" / "bccd"
    split = read_coco(folder / "annotations" / "instances_train.json", [folder / "images"], "train")
    assert (len(split.images), split.num_boxes) == (205, 2805)
    assert [category.name for category in split.categories] == ["RBC", "WBC", "Platelets"]
    assert all(image.path.is_file() for image in split.images)


def test_an_image_of_an_impossible_name_is_missing(tmp_path):
    for name in ("x" * 5000, "a\0b", "\ud800.jpg"):
        images = [{**content()["images"][0], "file_name": name}]
        file = write(tmp_path, content(images=images, annotations=[]))
        with pytest.raises(DataError):
            check_usable(open_dataset(file, "train"))
        codes = {finding.code: finding.severity for finding in check(file).findings}
        assert "error" in codes.values()


def test_half_a_surrogate_pair_is_written_as_it_was_read(tmp_path):
    file = tmp_path / "out.json"
    names = ["\ud800", "é", "\\ud800"]
    write_coco_json(content(categories=[{"id": i, "name": name} for i, name in enumerate(names)]), file)
    assert [entry["name"] for entry in json.loads(file.read_text(encoding="utf-8"))["categories"]] == names


def test_the_names_of_mindspore_and_lists_of_images(small_set, ctnet, tmp_path):
    """`train.json` over `images/train/images/class`, `instance_train2017.json`, and `image_info_*.json`."""
    folder = tmp_path / "mindspore"
    (folder / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        content = json.loads((small_set / "annotations" / f"instances_{split}.json").read_text())
        below = folder / "images" / split / "images" / "things"
        below.mkdir(parents=True)
        for image in content["images"]:
            name = image["file_name"]
            (below / name).write_bytes((small_set / "images" / split / name).read_bytes())
            image["file_name"] = f"things/{name}"
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(content))
    found = open_dataset(folder, "train")
    assert found.num_boxes == open_dataset(small_set, "train").num_boxes
    assert all(image.path.is_file() for image in found.images)
    for split in ("train", "val"):
        file = folder / "annotations" / f"{split}.json"
        file.rename(file.with_name(f"instance_{split}2017.json"))
    assert len(open_dataset(folder, "val").images) == 6
    del content["annotations"]
    listed = folder / "annotations" / "image_info_val2017.json"
    listed.write_text(json.dumps(content))
    images = open_image_list(listed, "val")
    assert [image.path.is_file() for image in images.images] == [True] * 6
    assert images.num_boxes == 0
    code, _, err = ctnet("eval", "--weights", "x.safetensors", "--data", listed, "--submission")
    assert (code, "--save-results FILE" in err) == (2, True)
