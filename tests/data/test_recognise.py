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
CSV = b"filename,width,height,class,xmin,ymin,xmax,ymax\np0.jpg,160,120,box,59,24,103,58\n"


def refusal(path, read=find_splits) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p0.json", json.dumps(LABELME).encode(), "LabelMe"),
        ("via.json", json.dumps(VIA).encode(), "VIA"),
        ("createml.json", json.dumps(CREATEML).encode(), "CreateML"),
        ("_annotations.csv", CSV, "CSV"),
    ],
)
def test_other_tools_are_named_in_folders_and_alone(name, content, words, tmp_path):
    file = tmp_path / name
    file.write_bytes(content)
    alone = refusal(file, load_coco_json if name.endswith("json") else find_splits)
    for text in (refusal(tmp_path), alone):
        assert words in text
        assert "export it as COCO" in text


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
