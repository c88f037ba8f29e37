from pathlib import Path

import numpy as np

from ctnet.eval.matching import confusion_matrix, match, match_all
from ctnet.types import AnnotationSet, Category, Detections, ImageRecord


def record(boxes, labels, crowd=None, image_id=1):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return ImageRecord(
        id=image_id,
        path=Path("a.png"),
        width=201,
        height=133,
        boxes_xyxy=boxes,
        labels=np.array(labels, np.int64),
        crowd=np.zeros(len(boxes), bool) if crowd is None else np.array(crowd),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        annotation_ids=np.arange(len(boxes), dtype=np.int64),
    )


def found(boxes, scores, labels):
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int64)
    )


def test_the_best_overlap_takes_the_object_and_the_other_detection_is_wrong():
    image = record([[0, 0, 40, 40]], [0])
    one = match(image, found([[0, 0, 40, 30], [0, 0, 40, 38]], [0.9, 0.5], [0, 0]))
    assert one.truth_of.tolist() == [-1, 0]
    assert one.correct.tolist() == [False, True]
    assert (one.missed.tolist(), one.num_errors) == ([], 1)


def test_of_two_equal_boxes_the_one_of_the_right_class_is_matched():
    image = record([[0, 0, 40, 40]], [1])
    one = match(image, found([[0, 0, 40, 36], [0, 0, 40, 36]], [0.9, 0.5], [0, 1]))
    assert one.truth_of.tolist() == [-1, 0]


def test_weak_detections_and_small_overlaps_do_not_match():
    image = record([[0, 0, 40, 40]], [0])
    one = match(image, found([[0, 0, 40, 19], [0, 0, 40, 40]], [0.9, 0.29], [0, 0]))
    assert (len(one.found), one.truth_of.tolist(), one.missed.tolist()) == (1, [-1], [0])


def test_detections_in_a_crowd_are_left_out_and_crowds_are_never_missed():
    image = record([[100, 0, 200, 100], [0, 0, 40, 40]], [0, 0], crowd=[True, False])
    one = match(image, found([[110, 10, 130, 30], [190, 10, 230, 30]], [0.9, 0.8], [0, 0]))
    assert one.found.scores.round(1).tolist() == [np.float32(0.8)]
    assert (one.missed.tolist(), one.num_errors) == ([0], 2)


def test_confusion_counts_every_object_once_and_every_detection_once():
    first = record([[0, 0, 40, 40], [50, 0, 90, 40], [100, 0, 140, 40]], [0, 1, 1])
    second = record([], [], image_id=2)
    third = record([[0, 0, 40, 40]], [0], image_id=3)
    categories = (Category(1, "a"), Category(2, "b"))
    annotation_set = AnnotationSet(Path("set"), "val", categories, (first, second, third))
    detections = {
        1: found([[0, 0, 40, 40], [50, 0, 90, 40]], [0.9, 0.8], [0, 0]),
        2: found([[5, 5, 50, 50]], [0.7], [1]),
    }
    counts = confusion_matrix(match_all(annotation_set, detections), 2)
    assert counts.tolist() == [[1, 0, 1], [1, 0, 1], [0, 1, 0]]
    assert counts.dtype == np.int64
