"""Tiles: every pixel is shown, boxes come back where they are, and an object is found once."""

from itertools import pairwise

import numpy as np
import pytest

from ctnet.config import Evaluation
from ctnet.detect.stream import detect_stream
from ctnet.detect.tiles import tile_regions, without_parts
from ctnet.detect.views import render_views
from ctnet.types import Detections


@pytest.mark.parametrize("image_hw", [(100, 100), (101, 260), (64, 64), (63, 200), (1000, 70), (65, 64)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
def test_tiles_cover_the_image_and_overlap(image_hw, overlap):
    regions = tile_regions(image_hw, 64, overlap)
    if max(image_hw) <= 64:
        assert regions == []
        return
    seen = np.zeros(image_hw, int)
    for x1, y1, x2, y2 in regions:
        assert x2 - x1 == min(64, image_hw[1])
        assert y2 - y1 == min(64, image_hw[0])
        seen[y1:y2, x1:x2] += 1
    assert seen.min() >= 1
    rows = sorted({region.x1 for region in regions})
    assert all(b - a <= 64 * (1 - overlap) for a, b in pairwise(rows))


def blobs(image, centres, side):
    for x, y in centres:
        image[y - side // 2 : y + side // 2, x - side // 2 : x + side // 2] = 255
    return image


def find_white(views):
    """Return the bounds of everything white in each view, in image pixels: a detector that sees what it is shown."""
    found = []
    for view in views:
        matrix = view.view.from_input()
        offset = np.array(view.region[:2] if view.region else (0, 0))
        import cv2

        _, _, stats, _ = cv2.connectedComponentsWithStats((view.pixels[:, :, 0] > 127).astype(np.uint8))
        boxes = [(x, y, x + w, y + h) for x, y, w, h, area in stats[1:] if area > 8]
        corners = np.array(boxes, float).reshape(-1, 2) @ matrix[:, :2].T + matrix[:, 2] + offset
        boxes = corners.reshape(-1, 4).astype(np.float32)
        scores = np.full(len(boxes), 0.5 if view.region else 0.9, np.float32)
        found.append(Detections(boxes, scores, np.zeros(len(boxes), np.int64)))
    return found


def detect(image, settings):
    views = render_views(image, (128, 128), 32, settings)
    ((_, found),) = detect_stream(find_white, [(0, views)], settings)
    return found


def test_small_objects_appear_in_tiles_and_every_object_once():
    image = np.zeros((1000, 1500, 3), np.uint8)
    small = [(103, 97), (201, 700), (1400, 130), (500, 300), (254, 256)]  # one lies on edges of tiles
    blobs(image, small, 14)
    large = blobs(image, [(900, 650)], 420)  # larger than a tile's overlap: whole in no tile
    whole = detect(large, Evaluation())
    tiled = detect(large, Evaluation(tiles=256, overlap=0.2))
    assert len(whole) <= 2
    assert len(tiled) == 6
    centres = (tiled.boxes_xyxy[:, :2] + tiled.boxes_xyxy[:, 2:]) / 2
    for x, y in [*small, (900, 650)]:
        assert np.abs(centres - (x, y)).sum(1).min() < 8
    assert np.ptp(tiled.boxes_xyxy[tiled.scores.argmax()].reshape(2, 2), axis=0).min() > 380


def test_a_small_image_is_shown_whole_alone():
    image = blobs(np.zeros((200, 220, 3), np.uint8), [(50, 60)], 20)
    assert [view.region for view in render_views(image, (128, 128), 32, Evaluation(tiles=256))] == [None]
    assert len(detect(image, Evaluation(tiles=256))) == 1


def test_parts_of_an_object_go_where_another_view_shows_it_whole():
    regions = tile_regions((100, 160), 100, 0.4)
    whole = Detections(np.array([[80, 10, 140, 40]], np.float32), np.array([0.4], np.float32), np.array([1]))
    cut = Detections(
        np.array([[80, 10, 99.5, 40], [80, 50, 99.5, 60], [10, 10, 30, 30]], np.float32),
        np.full(3, 0.8, np.float32), np.array([1, 1, 1]),
    )  # fmt: skip
    empty = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    kept = without_parts([empty, cut, whole], [None, *regions[:2]])
    assert [len(part) for part in kept] == [0, 2, 1]
    other = Detections(whole.boxes_xyxy, whole.scores, np.array([0]))
    assert [len(part) for part in without_parts([empty, cut, other], [None, *regions[:2]])] == [0, 3, 1]


def test_key_points_move_with_their_tile():
    from ctnet.detect.stream import _in_image

    view = render_views(np.zeros((100, 160, 3), np.uint8), (128, 128), 32, Evaluation(tiles=100))[-1]
    found = {
        "boxes": np.zeros((1, 4), np.float32), "scores": np.ones(1, np.float32), "labels": np.zeros(1, np.int64),
        "keypoints": np.array([[[64.0, 64.0]]], np.float32),
    }  # fmt: skip
    assert np.allclose(_in_image(found, view).keypoints, [[[110, 50]]])
