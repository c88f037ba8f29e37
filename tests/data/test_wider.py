"""WIDER FACE's own layout, and RetinaFace's lists with landmarks."""

import numpy as np
import pytest

from ctnet.data.checks.check import check
from ctnet.data.convert import convert
from ctnet.data.dataset import has_split, open_dataset
from ctnet.data.image import write_image
from ctnet.data.layouts.table import find_splits
from ctnet.errors import DataError
from ctnet.types import FACE, Category

OWN = """0--Parade/0_Parade_a_1.jpg
2
10 12 20 25 0 0 0 0 0 0
40 8 0 9 0 0 0 1 1 0
0--Parade/0_Parade_b_2.jpg
0
0 0 0 0 0 0 0 0 0 0
1--Handshaking/1_Handshaking_c_3.jpg
1
5 5 30 30 1 0 0 0 2 1
"""
LANDMARKS = """# 0--Parade/0_Parade_a_1.jpg
10 12 20 25 15 18 0.0 25 18 0.0 20 24 1.0 16 30 0.0 24 30 0.0 0.8
40 8 9 9 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 0.3
# 1--Handshaking/1_Handshaking_c_3.jpg
5 5 30 30
"""


def images(folder):
    for name in ("0--Parade/0_Parade_a_1", "0--Parade/0_Parade_b_2", "1--Handshaking/1_Handshaking_c_3"):
        write_image(folder / f"{name}.jpg", np.full((60, 90, 3), 120, np.uint8))


def own(root, text=OWN, split="train"):
    images(root / f"WIDER_{split}" / "images")
    path = root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return root


def landmarked(root, text=LANDMARKS):
    images(root / "train" / "images")
    (root / "train" / "label.txt").write_text(text)
    return root


def test_boxes_are_read_and_invalid_faces_are_crowds(tmp_path):
    split = open_dataset(own(tmp_path), "train")
    assert split.categories == (Category(1, "face"),)
    assert split.keypoints is None
    first, empty, last = split.images
    assert first.boxes_xyxy.tolist() == [[10, 12, 30, 37], [40, 8, 40, 17]]
    assert first.crowd.tolist() == [False, True]
    assert len(empty.labels) == 0
    assert last.path == tmp_path / "WIDER_train" / "images" / "1--Handshaking" / "1_Handshaking_c_3.jpg"
    assert (last.width, last.height) == (90, 60)
    assert {f.code for f in check(tmp_path).findings if f.severity == "error"} == {"box-empty"}


def test_landmarks_are_read_with_their_flags(tmp_path):
    split = open_dataset(landmarked(tmp_path), "train")
    assert split.keypoints == FACE
    first, last = split.images
    assert first.keypoints[0].tolist() == [[15, 18, 2], [25, 18, 2], [20, 24, 1], [16, 30, 2], [24, 30, 2]]
    assert not first.keypoints[1].any()
    assert not last.keypoints.any()  # a face without landmarks
    assert check(tmp_path).count("error") == 0


def test_a_list_with_landmarks_comes_before_the_set_s_own(tmp_path):
    own(tmp_path, split="val")
    landmarked(own(tmp_path))
    assert list(find_splits(tmp_path)) == ["train", "val"]
    assert open_dataset(tmp_path, "train").keypoints == FACE
    assert open_dataset(tmp_path, "val").keypoints is None


def test_a_list_alone_and_names_alone_are_data_sets(tmp_path):
    own(landmarked(tmp_path))
    assert open_dataset(tmp_path / "wider_face_split" / "wider_face_train_bbx_gt.txt", "train").num_boxes == 3
    assert open_dataset(tmp_path / "train" / "label.txt", "train").num_boxes == 3
    names = "0--Parade/0_Parade_a_1.jpg\n0--Parade/0_Parade_b_2.jpg\n"
    images(tmp_path / "WIDER_test" / "images")
    (tmp_path / "wider_face_split" / "wider_face_test_filelist.txt").write_text(names)
    assert [len(image.labels) for image in open_dataset(tmp_path, "test").images] == [0, 0]


def test_a_label_file_of_something_else_is_not_taken_for_it(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "label.txt").write_text("cat 0\ndog 1\n")
    with pytest.raises(DataError, match="no known data layout") as caught:
        has_split(tmp_path, "train")
    assert "wider_face_split" in str(caught.value)


@pytest.mark.parametrize("to", ["coco", "yolo"])
def test_it_is_converted_with_landmarks(tmp_path, to):
    convert(landmarked(tmp_path / "in"), tmp_path / "out", to=to)
    new = open_dataset(tmp_path / "out", "train")
    old = open_dataset(tmp_path / "in", "train")
    assert new.keypoints == FACE
    assert [len(image.labels) for image in new.images] == [2, 1]
    for one, other in zip(old.images, new.images, strict=True):
        assert np.abs(one.keypoints - other.keypoints).max() < 1e-2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.jpg\n1\n1 2 3\n", "bbx_gt.txt:3"),
        ("a.jpg\n1\n1 2 3 4 0 0 0 0 x 0\n", "bbx_gt.txt:3"),
        ("a.jpg\n1\n1 2 inf 4\n", "bbx_gt.txt:3"),
        ("1 2 3 4\n", "the name of an image"),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, words):
    with pytest.raises(DataError, match="is malformed") as caught:
        open_dataset(own(tmp_path, text), "train")
    assert words in str(caught.value)


def test_a_bad_line_of_landmarks_is_named_and_the_check_reads_on(tmp_path):
    text = LANDMARKS.replace("5 5 30 30", "5 5 30 30 1 2 3\n6 6 20 20")
    with pytest.raises(DataError, match=r"label\.txt:5 is malformed"):
        open_dataset(landmarked(tmp_path, text), "train")
    (finding,) = (f for f in check(tmp_path).findings if f.severity == "error")
    assert finding.code == "annotations-unreadable"
