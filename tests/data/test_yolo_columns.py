"""Boxes of the lines that other tasks than detection write: polygons, rotated boxes, key points."""

import cv2
import numpy as np
import pytest

from ctnet.data.dataset import open_dataset
from ctnet.errors import DataError

BOX = (20.0, 30.0, 60.0, 80.0)  # in an image of 100 x 200, height x width


@pytest.fixture
def read(tmp_path):
    def one(line, more=""):
        for part in ("images", "labels"):
            (tmp_path / part).mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "images/a.png"), np.zeros((100, 200, 3), np.uint8))
        (tmp_path / "labels/a.txt").write_text(line)
        (tmp_path / "data.yaml").write_text(f"train: images\nnames: [thing]\n{more}")
        (image,) = open_dataset(tmp_path, "train").images
        return image.boxes_xyxy

    return one


@pytest.mark.parametrize(
    ("columns", "more"),
    [
        ("0.2 0.55 0.2 0.5", ""),
        ("0.1 0.3 0.3 0.3 0.3 0.8 0.1 0.8", ""),  # a rotated box
        ("0.1 0.5 0.2 0.3 0.3 0.6 0.2 0.8", ""),
        ("0.1 0.3 0.3 0.8 0.2 0.4", ""),  # a polygon
        ("0.2 0.55 0.2 0.5 0.1 0.3 2 0.3 0.4 0", ""),  # key points that are seen or not
        ("0.2 0.55 0.2 0.5 0 0 0 0.9 0.9 2 0.3 0.4 1", ""),
        ("0.2 0.55 0.2 0.5 0.9 0.9 0.1 0.1", "kpt_shape: [2, 2]"),
        ("0.2 0.55 0.2 0.5 0.9 0.9 1", "kpt_shape: [1, 3]"),
    ],
)
def test_the_box_is_read(read, columns, more):
    assert np.allclose(read(f"0 {columns}\n", more), [BOX], atol=1e-3)


@pytest.mark.parametrize("columns", ["0.2 0.55 0.2", "0.2 0.55 0.2 0.5 0.9", "0.1 0.2 0.3 0.4 0.5 0.6 0.7"])
def test_other_numbers_of_columns_are_refused(read, columns):
    with pytest.raises(DataError, match="corners of a polygon"):
        read(f"0 {columns}\n")
