"""Masks cover what they are laid over, at any size, turn and place."""

import cv2
import numpy as np
import pytest

from ctnet.predict.anonymize.masks import bounds, hide, mask_over, whole
from ctnet.predict.landmarks import aligned_crop, turns_of
from ctnet.types import KeypointSchema


def noise(height=200, width=240):
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("outline", ["ellipse", "box"])
@pytest.mark.parametrize("turn", [-90, -60, -45, -10, 0, 30, 45, 80, 90])
def test_a_mask_reaches_to_the_sides_of_its_box_at_every_turn(outline, turn):
    box = (60.0, 50.0, 110.0, 130.0)
    left, top, right, bottom = bounds(mask_over(box, turn, 1, outline))
    assert (left, top) <= (60.01, 50.01)
    assert (right, bottom) >= (109.99, 129.99)
    if turn % 90 == 0:
        assert (left, top, right, bottom) == pytest.approx(box, abs=0.01)
    scaled = bounds(mask_over(box, turn, 1.5, outline))
    assert scaled[2] - scaled[0] == pytest.approx(1.5 * (right - left))


def test_a_turned_ellipse_covers_a_face_turned_alike():
    face = np.zeros((200, 240), np.uint8)
    cv2.ellipse(face, ((120, 100), (60, 78), 50), 255, -1)
    x, y, w, h = cv2.boundingRect(face)
    image = np.full((200, 240, 3), 255, np.uint8)
    hide(image, mask_over((x, y, x + w, y + h), 50, 1.05, "ellipse"), "solid")
    assert not image[face > 0].any()
    assert (image == 0).all(2).sum() < 1.35 * (face > 0).sum()


@pytest.mark.parametrize("how", ["blur", "pixelate", "solid"])
@pytest.mark.parametrize(
    "box", [(30, 20, 90, 100), (-50, -40, 30, 30), (200, 150, 400, 400), (10, 10, 11, 11), (5, 5, 17, 15)]
)
def test_little_is_left_under_a_mask_and_nothing_changes_beside_it(how, box):
    image, before = noise(), noise()
    hide(image, mask_over(box, 0, 1, "box"), how)
    x1, y1, x2, y2 = (max(side, 0) for side in box)
    changed = np.zeros(image.shape[:2], bool)
    changed[y1:y2, x1:x2] = True
    assert np.array_equal(image[~changed], before[~changed])
    inside = image[y1:y2, x1:x2]
    assert how != "solid" or not inside.any()
    if how == "pixelate":
        assert len(np.unique(inside.reshape(-1, 3), axis=0)) <= 36


@pytest.mark.parametrize("box", [(-90, -90, -10, -10), (500, 500, 600, 600), (20, 20, 20, 20)])
def test_boxes_outside_or_without_area_do_no_harm(box):
    image = noise()
    hide(image, mask_over(box, 33, 1, "ellipse"), "blur")
    assert image.shape == (200, 240, 3)


def test_a_whole_image_is_hidden():
    image = noise(33, 57)
    hide(image, whole(image), "solid")
    assert not image.any()


FACE = np.array([(30, 40), (70, 40), (50, 60), (35, 80), (65, 80)], np.float32)


def turned(points, degrees, about=(50, 60)):
    matrix = cv2.getRotationMatrix2D(about, -degrees, 1.0)  # OpenCV turns the other way round
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


@pytest.mark.parametrize("degrees", [-80, -30, 0, 45, 89])
def test_the_turn_of_a_face_is_that_of_its_eyes_whichever_comes_first(degrees):
    points = turned(FACE, degrees)
    swapped = points[[1, 0, 2, 4, 3]]
    assert turns_of(np.stack([points, swapped]), None) == pytest.approx([degrees, degrees], abs=0.1)
    assert turns_of(points[None, :3], None) is None
    named = KeypointSchema(("nose", "right_eye", "left_eye"))
    assert turns_of(points[None, [2, 1, 0]], named) == pytest.approx([degrees], abs=0.1)


@pytest.mark.parametrize(("degrees", "size"), [(0, 1.0), (40, 1.0), (-120, 3.0), (10, 6.5), (170, 0.5)])
def test_aligned_crops_of_a_face_are_alike_however_it_lies_in_the_image(degrees, size):
    points = turned(FACE, degrees, (50, 60)) * size + 90
    image = np.full((900, 900, 3), 60, np.uint8)
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]
    for (x, y), color in zip(points, colors, strict=True):
        cv2.circle(image, (round(float(x)), round(float(y))), max(round(4 * size), 1), color, -1)
    crop = aligned_crop(image, points)
    assert crop.shape == (112, 112, 3)
    expected = [(38.3, 51.7), (73.5, 51.5), (56.0, 71.7), (41.5, 92.4), (70.7, 92.2)]
    for (x, y), color in zip(expected, colors, strict=True):
        seen = np.argwhere(np.abs(crop.astype(int) - color).max(2) < 90).mean(0)[::-1]
        assert seen == pytest.approx((x, y), abs=3)


def test_landmarks_in_one_point_give_no_aligned_crop():
    assert aligned_crop(noise(), np.full((5, 2), 20, np.float32)) is None
    assert aligned_crop(noise(), np.full((5, 2), np.nan, np.float32)) is None
