"""Repairs of whole sets: nothing is lost that can be converted, and the result passes the check."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask

from ctnet.data.checks.check import check
from ctnet.data.checks.repair import fix
from ctnet.data.convert import convert
from ctnet.data.dataset import open_dataset
from ctnet.errors import ConfigError, DataError
from spoiled import HEIGHT, WIDTH, Broken


@pytest.fixture
def data(tmp_path):
    return Broken(tmp_path / "set")


def every(data, kind, change):
    for content in data.content.values():
        for entry in content[kind]:
            change(entry)


def text_for_numbers(data):
    every(data, "images", lambda e: e.update(id=f"img{e['id']}", width=str(WIDTH)))
    every(data, "categories", lambda e: e.update(id=str(e["id"])))
    every(data, "annotations", lambda e: e.update(
        id=f"a{e['id']}", image_id=f"img{e['image_id']}", category_id=str(e["category_id"]), iscrowd="0",
        bbox=[str(v) for v in e["bbox"]], area="750.5",
    ))  # fmt: skip


def fractionless_floats(data):
    every(data, "images", lambda e: e.update(id=float(e["id"]), height=float(HEIGHT)))
    every(data, "annotations", lambda e: e.update(image_id=str(e["image_id"]), category_id=float(e["category_id"])))


def numbers_for_names(data):
    every(data, "categories", lambda e: e.update(name=e["id"]))


def other_field_for_the_file(data):
    every(data, "images", lambda e: e.update(path=f"/data/{e.pop('file_name')}"))


def polygons(data):
    every(data, "annotations", lambda e: e.pop("bbox"))
    every(data, "annotations", lambda e: e.update(segmentation=[[20, 10, 50, 12, 49, 35]], bbox=[]))


def runs(data):
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    pixels[10:35, 20:50] = 1
    text = mask.encode(pixels)["counts"].decode()
    every(data, "annotations", lambda e: e.pop("bbox"))
    every(data, "annotations", lambda e: e.update(segmentation={"size": [HEIGHT, WIDTH], "counts": text}, iscrowd=1))


def list_of_runs(data):
    flat = np.zeros((WIDTH, HEIGHT), np.int64)
    flat[20:50, 10:35] = 1
    counts = np.diff(np.flatnonzero(np.diff([-1, *flat.ravel(), -1]))).tolist()
    every(data, "annotations", lambda e: e.pop("bbox"))
    every(data, "annotations", lambda e: e.update(segmentation={"size": [HEIGHT, WIDTH], "counts": counts}))


def corners_of_rotated_boxes(data):
    every(data, "annotations", lambda e: e.update(bbox=[20, 10, 50, 10, 50, 35, 20, 35]))


def turned_boxes(data):
    every(data, "annotations", lambda e: e.update(bbox=[35, 22.5, 25, 30, 90]))


def exchanged_corners(data):
    every(data, "annotations", lambda e: e.update(bbox=[50, 35, -30, -25]))


def boxes_twice(data):
    for content in data.content.values():
        content["annotations"] += [{**e, "id": e["id"] + 1} for e in content["annotations"]]


def everything_a_crowd(data):
    every(data, "annotations", lambda e: e.update(iscrowd=1))


def no_categories(data):
    for content in data.content.values():
        del content["categories"]


def sizes_missing(data):
    every(data, "images", lambda e: (e.pop("width"), e.pop("height")))


@pytest.mark.parametrize(
    "spoil",
    [
        text_for_numbers, fractionless_floats, numbers_for_names, other_field_for_the_file, polygons, runs,
        list_of_runs, corners_of_rotated_boxes, turned_boxes, exchanged_corners, boxes_twice,
        everything_a_crowd, sizes_missing, no_categories,
    ],
    ids=lambda spoil: spoil.__name__,
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "gbk", "utf-16"])
def test_nothing_is_lost_that_can_be_converted(data, tmp_path, spoil, encoding):
    if encoding != "utf-8" and spoil is not no_categories:
        every(data, "categories", lambda e: e.update(name={"cat": "猫", "dog": "狗"}[e["name"]]))
    spoil(data)
    data.save()
    for file in (data.root / "annotations").iterdir():
        file.write_bytes(json.dumps(json.loads(file.read_text()), ensure_ascii=False).encode(encoding))
    done = fix(data.root, tmp_path / "new")
    assert done
    assert check(tmp_path / "new").count("error") == 0
    for split in ("train", "val"):
        repaired = open_dataset(tmp_path / "new", split)
        boxes = [image.boxes_xyxy.round(4).tolist() for image in repaired.images]
        assert boxes == [[[20, 10, 50, 35]]] * 4
        assert not any(image.crowd.any() for image in repaired.images)
        assert [image.labels.tolist() for image in repaired.images] == [[1], [0], [1], [0]]


def test_fields_that_ctnet_does_not_read_stay(data, tmp_path):
    data.box.update(bbox=[20, 10, 90, 25], attributes={"seen": "twice"}, segmentation=[[20, 10, 50, 12, 49, 35]])
    data.train["licenses"] = ["none"]
    fix(data.save(), tmp_path / "new")
    content = json.loads((tmp_path / "new" / "annotations" / "instances_train.json").read_text())
    assert (content["licenses"], content["annotations"][1]["attributes"]) == (["none"], {"seen": "twice"})
    assert content["annotations"][1]["bbox"] == [20, 10, 73, 25]


def test_in_place_keeps_what_was_there(data):
    data.box["bbox"] = ["20", "10", "30", "25"]
    file = data.save() / "annotations" / "instances_train.json"
    before = file.read_bytes()
    done = fix(data.root, None)
    assert "1 boxes made numbers" in done
    assert check(data.root).count("error") == 0
    assert file.with_name(file.name + ".before-fix").read_bytes() == before
    fix(data.root, None)
    assert file.with_name(file.name + ".before-fix").read_bytes() == before, "the first backup stays"


@pytest.mark.parametrize("layout", ["yolo", "voc"])
@pytest.mark.parametrize("place", ["new folder", "in place"])
def test_other_layouts_are_repaired_as_such(data, tmp_path, layout, place):
    folder = tmp_path / layout
    convert(data.save(), folder, to=layout)
    if layout == "yolo":
        labels = folder / "labels" / "train"
        (labels / "train_1.txt").write_bytes(b"\xef\xbb\xbf1 35 22.5 30 25\n1 35 22.5 30 25\n")  # pixels, twice
        (labels / "train_2.txt").write_bytes("0 0.95 0.5 0.3 0.4\n".encode("utf-16"))  # beyond the edge
        (folder / "images" / "val" / "val_3.png").write_bytes(b"")
    else:
        swapped = (folder / "Annotations" / "train_1.xml").read_text()
        swapped = swapped.replace("<xmin>20<", "<xmin>50<").replace("<xmax>50<", "<xmax>20<")
        text = '<?xml version="1.0" encoding="GBK"?>' + swapped.replace("dog", "狗")
        (folder / "Annotations" / "train_1.xml").write_bytes(text.encode("gbk"))
        (folder / "JPEGImages" / "val_3.png").write_bytes(b"")
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    new = tmp_path / "new" if place == "new folder" else folder
    done = fix(folder, new if place == "new folder" else None)
    assert "1 images dropped, missing or unreadable" in done
    report = check(new)
    assert report.count("error") == 0, report.findings
    assert [(s.split, s.images, s.boxes) for s in report.splits] == [("train", 4, 4), ("val", 3, 3)]
    assert open_dataset(new, "train").images[0].boxes_xyxy.round(3).tolist() == [[20, 10, 50, 35]]
    old = folder if place == "new folder" else folder.with_name(f"{layout}.before-fix")
    assert {path.relative_to(old): path.read_bytes() for path in old.rglob("*") if path.is_file()} == before


def test_the_folder_of_the_command_is_not_moved_away(data, monkeypatch, tmp_path):
    convert(data.save(), tmp_path / "yolo", to="yolo")
    monkeypatch.chdir(tmp_path / "yolo")
    with pytest.raises(ConfigError, match="from inside"):
        fix(Path(), None)


def test_entries_of_several_images_on_one_file_are_left_for_people(data, tmp_path):
    data.train["images"][1]["file_name"] = "task2/train_1.png"
    fix(data.save(), tmp_path / "new")
    (finding,) = (f for f in check(data.root).findings if f.severity == "error")
    assert finding.code == "image-file-repeated"
    assert "restore the folders" in finding.hint


@pytest.mark.parametrize(
    "path", ["labels/train/train_1.txt", "Annotations/train_1.xml", "annotations/instances_val.json"]
)
def test_pointers_of_git_lfs_are_named(data, tmp_path, path):
    layout = {"labels": "yolo", "Annotations": "voc", "annotations": "coco"}[path.split("/")[0]]
    convert(data.save(), tmp_path / "copy", to=layout)
    (tmp_path / "copy" / path).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(DataError, match="git-lfs pointer") as caught:
        open_dataset(tmp_path / "copy", "val" if "val" in path else "train")
    assert path in str(caught.value)
    assert "git lfs pull" in str(caught.value)


def test_a_file_without_a_split_is_converted_to_one_that_is_found_again(data, tmp_path):
    data.save()
    source = data.root / "coco.json"
    source.write_text(json.dumps(data.train))
    for layout in ("yolo", "voc", "coco"):
        convert(source, tmp_path / layout, to=layout)
        assert open_dataset(tmp_path / layout, "train").num_boxes == 4
    (data.root / "annotations" / "instances_mini_val.json").write_text(json.dumps(data.content["val"]))
    for layout in ("yolo", "voc"):
        convert(data.root, tmp_path / f"{layout}2", to=layout)
        assert open_dataset(tmp_path / f"{layout}2", "mini_val").num_boxes == 4
