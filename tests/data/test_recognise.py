"""What is given as a data set and is none is called what it is."""

import json
import zipfile

import pytest

from ctnet.data.image import decode_image
from ctnet.data.layouts.coco import load_coco_json
from ctnet.data.layouts.table import find_splits, pick_split
from ctnet.errors import DataError

LABELME = {"version": "5.2", "shapes": [{"label": "box", "points": [[59, 24], [103, 58]]}], "imagePath": "p0.jpg"}
VIA = {"p0.jpg1234": {"filename": "p0.jpg", "size": 1234, "regions": [{"shape_attributes": {"name": "rect"}}]}}
CREATEML = [{"image": "p0.jpg", "annotations": [{"label": "box", "coordinates": {"x": 1, "y": 2}}]}]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def refusal(path, read=find_splits) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [(LABELME, "LabelMe"), (VIA, "VIA"), (CREATEML, "CreateML")],
    ids=["labelme", "via", "createml"],
)
def test_other_tools_are_named_where_coco_is_expected(content, words, tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(content))
    text = refusal(file, load_coco_json)
    assert words in text
    assert "ctnet data convert" in text


def test_a_table_of_something_else_is_named(tmp_path):
    (tmp_path / "sales.csv").write_text("month,sales\n1,2\n")
    for path in (tmp_path, tmp_path / "sales.csv"):
        assert "without columns of images and boxes" in refusal(path)


def test_files_of_other_kinds_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "best.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    for name, words in (("a.zip", "unpack it"), ("a.jpg", "an image"), ("best.safetensors", "--weights")):
        assert words in refusal(tmp_path / name)


def test_pointers_of_git_lfs_are_named(tmp_path):
    file = tmp_path / "instances_train.json"
    file.write_bytes(POINTER)
    assert "git lfs pull" in refusal(file, load_coco_json)
    assert "git lfs pull" in refusal(tmp_path / "a.jpg", lambda path: decode_image(POINTER, path))


def test_a_split_that_is_nearly_there_is_suggested(small_set):
    with pytest.raises(DataError, match=r"nearest +train"):
        pick_split(small_set, find_splits(small_set), "trian")
