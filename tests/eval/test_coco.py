import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ctnet.data.layouts.coco import read_coco
from ctnet.errors import DataError
from ctnet.eval.coco import align_categories, coco_metrics, relabel, results_list, write_results
from ctnet.types import AnnotationSet, Category, Detections, ImageRecord

CELL, DUST = Category(7, "cell"), Category(3, "dust")
TWELVE = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def record(boxes, labels, image_id=1, crowd=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return ImageRecord(
        id=image_id,
        path=Path(f"{image_id}.png"),
        width=201,
        height=133,
        boxes_xyxy=boxes,
        labels=np.array(labels, np.int64),
        crowd=np.zeros(len(boxes), bool) if crowd is None else np.array(crowd),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        annotation_ids=np.arange(len(boxes), dtype=np.int64) + 100 * image_id,
    )


def dataset(*images, categories=(CELL, DUST)):
    return AnnotationSet(Path("set.json"), "val", categories, images)


def found(boxes, scores, labels):
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int64)
    )


def perturbed(annotation_set, seed=0):
    """Return jittered, dropped, confused and invented boxes, strongest first."""
    generator = np.random.default_rng(seed)
    detections = {}
    for image in annotation_set.images:
        keep = generator.random(len(image.labels)) > 0.2
        boxes = image.boxes_xyxy[keep] + generator.normal(0, 5, (int(keep.sum()), 4))
        extra = generator.uniform(0, 300, (3, 2))
        boxes = np.concatenate([boxes, np.concatenate([extra, extra + 40], axis=1)])
        labels = np.concatenate([image.labels[keep], generator.integers(0, 3, 3)])
        labels[generator.random(len(labels)) < 0.1] = 0
        scores = np.sort(generator.random(len(labels)))[::-1]
        detections[image.id] = found(boxes, scores, labels)
    return detections


def test_perfect_detections_score_one():
    image = record([[10, 10, 50, 50], [60, 20, 190, 120]], [0, 1])
    metrics = coco_metrics(dataset(image), {1: found(image.boxes_xyxy, [0.9, 0.8], [0, 1])})
    assert metrics.numbers()["AP"] == pytest.approx(1)
    assert metrics.per_class["cell"] == {"AP": pytest.approx(1), "AP50": pytest.approx(1), "count": 1}
    assert (metrics.APs, metrics.APm, metrics.APl) == (None, pytest.approx(1), pytest.approx(1))


def test_hand_computed_case_of_two_objects_and_a_stronger_mistake():
    # Ranked: wrong 0.9, right 0.8 with IoU 0.7; one object is never found. Precision is 1/2 up to recall 1/2,
    # that is at 51 of the 101 recall points, and 0 after; the hit counts at IoU 0.5 to 0.7 alone.
    image = record([[0, 0, 100, 100], [110, 0, 150, 40]], [0, 0])
    detections = found([[110, 60, 200, 130], [0, 0, 100, 70]], [0.9, 0.8], [0, 0])
    metrics = coco_metrics(dataset(image), {1: detections})
    assert metrics.numbers()["AP50"] == pytest.approx(0.5 * 51 / 101)
    assert metrics.numbers()["AP75"] == 0
    assert metrics.numbers()["AP"] == pytest.approx(0.5 * 0.5 * 51 / 101)
    assert metrics.numbers()["AR1"] == 0
    assert metrics.numbers()["AR100"] == pytest.approx(0.5 * 0.5)
    assert metrics.per_class["dust"] == {"AP": None, "AP50": None, "count": 0}
    assert np.isnan(metrics.precision[:, :, 1]).all()


def test_a_class_keeps_its_numbers_when_ids_are_not_in_label_order():
    image = record([[10, 10, 50, 50], [60, 20, 190, 120]], [0, 1])
    metrics = coco_metrics(dataset(image), {1: found([[10, 10, 50, 50]], [0.9], [0])})
    assert [row["AP"] for row in metrics.per_class.values()] == [pytest.approx(1), 0]
    assert metrics.precision[0, :, 0].mean() == pytest.approx(1)
    assert metrics.precision[0, :, 1].mean() == 0


def test_a_crowd_is_neither_counted_nor_held_against_the_detector():
    image = record([[10, 10, 50, 50], [100, 10, 200, 110]], [0, 0], crowd=[False, True])
    detections = found([[110, 20, 150, 60], [10, 10, 50, 50]], [0.9, 0.8], [0, 0])
    metrics = coco_metrics(dataset(image), {1: detections})
    assert metrics.numbers()["AP"] == pytest.approx(1)
    assert metrics.per_class["cell"]["count"] == 1


@pytest.mark.parametrize("max_detections", [1, 5, 100, 300])
def test_only_the_strongest_detections_count(max_detections):
    boxes = [[i * 2, 0, i * 2 + 60, 60] for i in range(20)]
    image = record([[0, 0, 60, 60]], [0])
    scores = np.linspace(0.9, 0.5, 20)
    metrics = coco_metrics(dataset(image), {1: found(boxes[::-1], scores, [0] * 20)}, max_detections)
    assert (metrics.numbers()["AR100"] == pytest.approx(1)) == (max_detections >= 20)
    assert metrics.numbers()["AR1"] == 0


def test_no_detections_score_zero_and_no_ground_truth_is_undefined():
    image = record([[10, 10, 50, 50]], [0])
    nothing_found = coco_metrics(dataset(image), {})
    assert nothing_found.AP == nothing_found.AR100 == 0
    for images in ([], [record([], [])]):
        undefined = coco_metrics(dataset(*images), {1: found([[1, 1, 9, 9]], [0.5], [0])} if images else {})
        assert set(undefined.numbers().values()) == {None}


def test_metrics_print_nothing(capsys):
    coco_metrics(dataset(record([[10, 10, 50, 50]], [0])), {})
    assert capsys.readouterr() == ("", "")


def test_agrees_with_pycocotools_on_the_saved_results(shared, tmp_path):
    folder = shared / "data/bccd"
    annotations = folder / "annotations/instances_val.json"
    annotation_set = read_coco(annotations, [folder / "images"], "val")
    detections = perturbed(annotation_set)
    write_results(tmp_path / "results.json", detections, annotation_set.categories)

    truth = COCO(str(annotations))
    scorer = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "bbox")
    scorer.evaluate()
    scorer.accumulate()
    scorer.summarize()

    numbers = coco_metrics(annotation_set, detections).numbers()
    assert list(numbers) == TWELVE
    assert 0.1 < numbers["AP"] < 0.9
    assert list(numbers.values()) == pytest.approx(scorer.stats.tolist(), abs=1e-12)


def test_results_have_original_ids_and_rounded_xywh(tmp_path):
    detections = {42: found([[1.234, 2, 11.236, 22.5]], [0.1234567], [1])}
    expected = [{"image_id": 42, "category_id": 3, "bbox": [1.23, 2.0, 10.0, 20.5], "score": 0.12346}]
    assert results_list(detections, (CELL, DUST)) == expected
    path = tmp_path / "new" / "results.json"
    write_results(path, detections, (CELL, DUST))
    assert json.loads(path.read_text()) == expected
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


def test_classes_are_matched_by_name_whatever_their_order():
    detector = (Category(1, "dust"), Category(2, "hair"), Category(3, "cell"))
    alignment = align_categories(detector, (CELL, DUST))
    assert alignment.labels.tolist() == [1, -1, 0]
    image = record([[10, 10, 50, 50], [60, 20, 190, 120]], [0, 1])
    raw = found([[60, 20, 190, 120], [0, 0, 9, 9], [10, 10, 50, 50]], [0.9, 0.8, 0.7], [0, 1, 2])
    aligned = relabel({1: raw}, alignment)
    assert aligned[1].labels.tolist() == [1, 0]
    assert coco_metrics(dataset(image), aligned).numbers()["AP"] == pytest.approx(1)
    assert alignment.warnings == ("the data set has no hair: such detections are not scored",)


def test_a_class_the_detector_lacks_counts_as_missed_with_a_warning():
    alignment = align_categories((Category(1, "dust"),), (CELL, DUST))
    assert alignment.warnings == ("the detector does not know cell: every such object counts as missed",)
    image = record([[10, 10, 50, 50], [60, 20, 190, 120]], [0, 1])
    aligned = relabel({1: found([[60, 20, 190, 120]], [0.9], [0])}, alignment)
    metrics = coco_metrics(dataset(image), aligned)
    assert (metrics.per_class["cell"]["AP"], metrics.AP) == (0, pytest.approx(0.5))


def test_no_class_in_common_is_an_error_that_names_both_sides():
    with pytest.raises(DataError, match="share no class") as caught:
        align_categories((Category(7, "face"),), (CELL, DUST))
    assert caught.value.facts == {"detector": "face", "data": "cell, dust"}


def test_annotation_ids_that_repeat_do_not_change_the_numbers():
    image = record([[10, 10, 50, 50], [60, 20, 190, 120]], [0, 0])
    repeated = replace(image, annotation_ids=np.zeros(2, np.int64))
    detections = {1: found(image.boxes_xyxy, [0.9, 0.8], [0, 0])}
    assert coco_metrics(dataset(repeated), detections).numbers()["AP"] == pytest.approx(1)


def test_classes_of_one_name_stay_apart():
    """As in exports that list the supercategory like a class."""
    holes = (Category(0, "pothole"), Category(4, "pothole"), Category(5, "crack"))
    assert align_categories(holes, holes) == (pytest.approx([0, 1, 2]), ())
    image = record([[10, 10, 50, 50], [60, 20, 190, 120], [100, 20, 150, 90]], [0, 1, 2])
    perfect = {1: found(image.boxes_xyxy, [0.9, 0.8, 0.7], image.labels)}
    metrics = coco_metrics(dataset(image, categories=holes), perfect)
    assert pytest.approx(1) == metrics.AP
    assert {name: row["count"] for name, row in metrics.per_class.items()} == {
        "pothole (id 0)": 1, "pothole (id 4)": 1, "crack": 1,
    }  # fmt: skip
