"""Key-point metrics: COCO's numbers of the original program, NME and PCK by hand."""

from dataclasses import replace

import numpy as np
import pytest

from ctnet.config import Recipe
from ctnet.data.image import read_image, write_image
from ctnet.data.layouts.keypoints import schema_of
from ctnet.eval.coco import results_list
from ctnet.eval.keypoints import DEFAULT_SIGMA, aligned_points, keypoint_metrics, keypoint_notes, match_points
from ctnet.eval.plots import CORRECT, TRUTH, WRONG
from ctnet.eval.protocol import protocol_of
from ctnet.eval.report import evaluation_document, write_report
from ctnet.eval.scorer import KEYPOINTS
from ctnet.types import PERSON, AnnotationSet, Category, Detections, ImageRecord


def record(number, boxes, points, labels=None, crowd=None, areas=None, size=(640, 480), path="x.jpg"):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    count = len(boxes)
    return ImageRecord(
        id=number,
        path=path,
        width=size[0],
        height=size[1],
        boxes_xyxy=boxes,
        labels=np.zeros(count, np.int64) if labels is None else np.array(labels, np.int64),
        crowd=np.zeros(count, bool) if crowd is None else np.array(crowd, bool),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(1) if areas is None else np.array(areas, np.float32),
        annotation_ids=np.arange(count, dtype=np.int64) + 1000 * number,
        keypoints=np.array(points, np.float32),
    )


def found(boxes, points, scores=None, labels=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    scores = np.linspace(0.9, 0.5, len(boxes)) if scores is None else scores
    labels = np.zeros(len(boxes), np.int64) if labels is None else np.array(labels, np.int64)
    return Detections(boxes, np.array(scores, np.float32), labels, np.array(points, np.float32))


def a_set(*images, schema=None, names=("person",)):
    categories = tuple(Category(i, name) for i, name in enumerate(names, 1))
    return AnnotationSet(
        "set.json", "val", categories, images, keypoints=schema or schema_of(["left_eye", "right_eye"])
    )


def test_the_numbers_equal_those_of_the_original_program(golden):
    stored = golden("keypoint_eval")
    images, detections = [], {}
    for image_id, width, height in stored["images_id_wh"].tolist():
        mine = stored["gt_id_image"][:, 1] == image_id
        x, y, w, h = stored["gt_bbox"][mine].T
        image = record(
            image_id, np.stack([x, y, x + w, y + h], 1), stored["gt_keypoints"][mine], crowd=stored["gt_iscrowd"][mine],
            areas=stored["gt_area"][mine], size=(width, height),
        )  # fmt: skip
        images.append(replace(image, annotation_ids=stored["gt_id_image"][mine, 0].astype(np.int64)))
        mine = stored["res_image"] == image_id
        x, y, w, h = stored["res_bbox"][mine].T
        points = stored["res_keypoints"][mine].reshape(-1, 17, 3)[..., :2]
        detections[image_id] = found(np.stack([x, y, x + w, y + h], 1), points, stored["res_score"][mine])
    numbers = keypoint_metrics(a_set(*images, schema=PERSON), detections).numbers()
    names = ["kpAP", "kpAP50", "kpAP75", "kpAPm", "kpAPl", "kpAR", "kpAR50", "kpAR75", "kpARm", "kpARl"]
    assert [numbers[name] for name in names] == pytest.approx(stored["kp_stats"].tolist(), abs=1e-6)
    boxes = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
    assert [numbers[name] for name in boxes] == pytest.approx(stored["bbox_stats"].tolist(), abs=1e-6)
    assert np.allclose(stored["sigmas"], PERSON.sigmas)


def test_nme_and_pck_by_hand():
    """Two objects of 40 x 90: one found 6 pixels off at one of two points, one missed."""
    box, points = [10, 10, 50, 100], [[20, 30, 2], [40, 30, 1]]
    there = [[20, 30], [40, 36]]
    image = record(1, [box, [200, 200, 240, 290]], [points, [[210, 220, 2], [0, 0, 0]]])
    metrics = keypoint_metrics(a_set(image), {1: found([box], [there])})
    assert metrics.keypoints["NME"] == pytest.approx((0 + 6) / 2 / 60)
    assert metrics.keypoints["PCK"] == pytest.approx(2 / 3)  # 6 < 9; the missed object's point counts
    assert metrics.per_point == {
        "left_eye": {"NME": 0.0, "PCK": 0.5}, "right_eye": {"NME": pytest.approx(0.1), "PCK": 1.0}
    }  # fmt: skip
    far = [[20, 30], [40, 40]]
    assert keypoint_metrics(a_set(image), {1: found([box], [far])}).keypoints["PCK"] == pytest.approx(1 / 3)


def test_the_strongest_detection_of_the_same_class_is_matched():
    box = [10, 10, 50, 50]
    image = record(1, [box, box], [[[20, 20, 2]] * 2] * 2, labels=[0, 1])
    rough = [12, 12, 52, 52]
    one = found([box, rough, box], [[[0, 0]] * 2, [[20, 20]] * 2, [[9, 9]] * 2], [0.5, 0.9, 0.8], [0, 0, 1])
    matches = list(match_points(a_set(image, names=("person", "dog")), {1: one}))
    assert [(m.row, m.found) for m in matches] == [(0, 1), (1, 2)]
    assert matches[0].errors.tolist() == [0, 0]


def test_crowds_unlabelled_objects_and_boxes_without_area_are_left_out():
    box, seen, unseen = [10, 10, 50, 50], [[20, 20, 2]] * 2, [[0, 0, 0]] * 2
    image = record(1, [box, [60, 10, 90, 50], [5, 5, 5, 9]], [seen, unseen, seen], crowd=[True, False, False])
    metrics = keypoint_metrics(a_set(image), {1: found([box], [[[20, 20]] * 2])})
    assert metrics.matches == ()
    assert metrics.keypoints["NME"] is None
    assert metrics.keypoints["PCK"] is None


def test_nothing_found_is_zero_and_no_error():
    image = record(1, [[10, 10, 50, 50]], [[[20, 20, 2]] * 2])
    numbers = keypoint_metrics(a_set(image), {}).numbers()
    assert numbers["kpAP"] == 0
    assert numbers["PCK"] == 0
    assert numbers["NME"] is None


def test_a_category_without_points_counts_for_boxes_alone():
    boxes = [[10, 10, 50, 50], [100, 100, 160, 160]]
    image = record(1, boxes, [[[20, 20, 2], [40, 20, 2]], [[0, 0, 0]] * 2], labels=[0, 1])
    metrics = keypoint_metrics(
        a_set(image, names=("person", "ball")), {1: found(boxes, [[[20, 20], [40, 20]], [[3, 3]] * 2], labels=[0, 1])}
    )
    assert metrics.keypoints["kpAP"] == pytest.approx(1)
    assert pytest.approx(1) == metrics.AP
    assert metrics.per_class["ball"]["AP"] == pytest.approx(1)


def test_a_set_without_sigmas_is_warned_of_and_a_crowded_one_too():
    image = record(1, [[10, 10, 50, 50]] * 21, [[[20, 20, 2]] * 2] * 21)
    sigmas, crowded = keypoint_notes(a_set(image, schema=schema_of(["head", "tail"])))
    assert "no sigmas" in sigmas
    assert f"{DEFAULT_SIGMA}" in sigmas
    assert "20 objects" in crowded
    assert keypoint_notes(a_set(record(1, [], np.zeros((0, 17, 3))), schema=PERSON)) == []


def test_sigmas_of_the_set_rule_the_similarity():
    image = record(1, [[10, 10, 110, 110]], [[[30, 30, 2], [80, 30, 2]]])
    off = {1: found([[10, 10, 110, 110]], [[[34, 30], [84, 30]]])}
    strict, lax = (
        keypoint_metrics(a_set(image, schema=schema_of(["left_eye", "right_eye"], sigmas=[s, s])), off)
        for s in (0.01, 0.2)
    )
    assert strict.keypoints["kpAP"] == 0
    assert lax.keypoints["kpAP"] == pytest.approx(1)


def test_points_are_chosen_by_name():
    theirs, ours = schema_of(["nose", "left_eye", "right_eye"]), schema_of(["right_eye", "nose"])
    one = {1: found([[0, 0, 9, 9]], [[[1, 1], [2, 2], [3, 3]]])}
    chosen, warning = aligned_points(one, theirs, ours)
    assert chosen[1].keypoints.tolist() == [[[3, 3], [1, 1]]]
    assert warning == ""
    without, warning = aligned_points(one, ours, theirs)
    assert without[1].keypoints is None
    assert "left_eye" in warning


def test_the_report_draws_the_worst_placed_objects_first(tmp_path):
    path = tmp_path / "a.png"
    write_image(path, np.full((120, 160, 3), 90, np.uint8))
    boxes = [[10, 10, 60, 60], [80, 10, 130, 60], [20, 70, 50, 110]]
    points = [[[20, 20, 2], [40, 20, 1]], [[90, 20, 2], [0, 0, 0]], [[30, 80, 2], [40, 80, 2]]]
    annotations = a_set(record(1, boxes, points, size=(160, 120), path=path))
    detections = {1: found(boxes[:2], [[[20, 20], [40, 24]], [[110, 40], [5, 5]]])}
    metrics = keypoint_metrics(annotations, detections)
    document = evaluation_document("w", annotations, metrics, protocol_of(Recipe(), Recipe().evaluation, 1))
    page = write_report(tmp_path / "report", annotations, detections, metrics, document, "points").read_text()
    assert sorted(p.name for p in (tmp_path / "report" / "worst_points").iterdir()) == ["01.png", "02.png"]
    assert page.index("annotation 1001: NME 0.566") < page.index("annotation 1000: NME 0.040")
    assert KEYPOINTS.title in page
    drawn = read_image(tmp_path / "report" / "worst_points" / "01.png").astype(int)
    assert (np.abs(drawn - TRUTH).max(-1) < 30).sum() > 10
    assert (np.abs(drawn - CORRECT).max(-1) < 30).sum() > 10
    whole = read_image(tmp_path / "report" / "worst" / "01.png").astype(int)
    assert (np.abs(whole - WRONG).max(-1) < 30).any()  # the error lines
    again = keypoint_metrics(annotations, {})
    document = evaluation_document("w", annotations, again, document["protocol"])
    write_report(tmp_path / "report", annotations, {}, again, document, "points")
    assert not list((tmp_path / "report" / "worst_points").iterdir())


def test_results_and_documents_have_the_points():
    one = found([[0, 0, 9, 9]], [[[1.234, 2], [3, 4]]], [0.5])
    (row,) = results_list({7: one}, a_set().categories)
    assert row["keypoints"] == [1.23, 2, 1, 3, 4, 1]
    (entry,) = one.to_dicts((Category(1, "person"),), ("left_eye", "right_eye"))
    assert entry["keypoints"] == {"left_eye": [1.23, 2], "right_eye": [3, 4]}
    assert one.to_dicts((Category(1, "person"),))[0]["keypoints"] == [[1.23, 2], [3, 4]]
