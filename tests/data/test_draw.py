import numpy as np
import pytest

from ctnet.data.dataset import open_dataset
from ctnet.data.demo import write_demo
from ctnet.data.draw import annotation_sheet, contact_sheet, draw_boxes, label_color
from ctnet.errors import DataError
from ctnet.types import Category

CATEGORIES = (Category(3, "cat"), Category(90, "犬"))


def blank(height=101, width=147):
    return np.full((height, width, 3), 30, np.uint8)


def draw(image, *boxes, scores=None):
    labels = np.arange(len(boxes)) % 2
    return draw_boxes(image, np.array(boxes, np.float32).reshape(-1, 4), labels, CATEGORIES, scores)


def test_outline_has_the_colour_of_its_label_and_the_input_is_untouched():
    image = blank()
    drawn = draw(image, (20, 40, 90, 80), (30, 50, 60, 70))
    assert (image == 30).all()
    assert tuple(drawn[80, 55]) == label_color(0)
    assert tuple(drawn[70, 45]) == label_color(1)
    assert tuple(drawn[60, 75]) == (30, 30, 30)


@pytest.mark.parametrize(
    "box",
    [(-50, -40, 10, 12), (130, 95, 400, 300), (0, 0, 147, 101), (1e9, 1e9, 2e9, 2e9), (5, 5, 5, 5)],
    ids=["above-left", "below-right", "whole", "far-away", "empty"],
)
@pytest.mark.parametrize("size", [(101, 147), (9, 7), (1, 1)], ids=["101x147", "9x7", "1x1"])
def test_any_box_on_any_size_keeps_the_shape(box, size):
    image = blank(*size)
    drawn = draw(image, box, scores=np.array([0.987], np.float32))
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8


def test_a_label_at_the_upper_edge_is_written_inside():
    drawn = draw(blank(), (40, 0, 100, 60))
    assert (drawn[2:12, 41:60] == label_color(0)).all(axis=-1).mean() > 0.3


def test_no_boxes_draws_nothing():
    assert np.array_equal(draw(blank()), blank())


def test_colours_of_eighty_labels_are_distinct():
    assert len({label_color(label) for label in range(80)}) == 80


def test_sheet_holds_every_image_in_its_cell():
    images = [np.full((40, 80, 3), 200, np.uint8), np.full((80, 40, 3), 100, np.uint8), blank(3, 5)]
    sheet = contact_sheet(images, columns=2, cell=(60, 50))
    assert sheet.shape == (2 * 64 + 4, 2 * 54 + 4, 3)
    assert tuple(sheet[4 + 30, 4 + 25]) == (200, 200, 200)
    assert tuple(sheet[4 + 30, 58 + 25]) == (100, 100, 100)
    assert tuple(sheet[4 + 5, 4 + 25]) == (40, 40, 40)


def test_an_empty_sheet_is_refused():
    with pytest.raises(DataError, match="no images"):
        contact_sheet([])


def test_sheet_of_annotations_depends_on_the_seed_alone(tmp_path):
    split = open_dataset(write_demo(tmp_path, 6, 1), "train")
    assert np.array_equal(annotation_sheet(split, 2, seed=1), annotation_sheet(split, 2, seed=1))
    assert not np.array_equal(annotation_sheet(split, 2, seed=1), annotation_sheet(split, 2, seed=2))
    assert annotation_sheet(split, 99).shape[0] > annotation_sheet(split, 2).shape[0]
