import csv
import html
import json

import cv2
import numpy as np
import pytest

from ctnet.config import Recipe
from ctnet.errors import DataError
from ctnet.eval.coco import coco_metrics
from ctnet.eval.protocol import protocol_of, sentence
from ctnet.eval.report import evaluation_document, write_report
from ctnet.types import AnnotationSet, Category, Detections, ImageRecord

ALL_FILES = {
    "index.html",
    "metrics.json",
    "precision_recall.png",
    "precision_recall.csv",
    "confusion.png",
    "confusion.csv",
}


def found(boxes, scores, labels):
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int64)
    )


@pytest.fixture
def make_set(tmp_path):
    """Return a function that writes images of 201 x 133 with one list of (box, label) each."""

    def make(objects, names=("cell", "<b>dust</b>")):
        images = []
        for number, rows in enumerate(objects, start=1):
            path = tmp_path / "pictures" / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), np.full((133, 201, 3), 200, np.uint8))
            boxes = np.array([box for box, _ in rows], np.float32).reshape(-1, 4)
            images.append(
                ImageRecord(
                    id=number,
                    path=path,
                    width=201,
                    height=133,
                    boxes_xyxy=boxes,
                    labels=np.array([label for _, label in rows], np.int64),
                    crowd=np.zeros(len(boxes), bool),
                    areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
                    annotation_ids=np.arange(len(boxes), dtype=np.int64) + 10 * number,
                )
            )
        categories = tuple(Category(i, name) for i, name in enumerate(names, start=1))
        return AnnotationSet(tmp_path / "set.json", "val", categories, tuple(images))

    return make


def report(folder, annotation_set, detections, warnings=()):
    recipe = Recipe()
    metrics = coco_metrics(annotation_set, detections)
    protocol = protocol_of(recipe, recipe.evaluation, len(annotation_set.images))
    document = evaluation_document("best.safetensors", annotation_set, metrics, protocol, warnings)
    return write_report(folder, annotation_set, detections, metrics, document, "best on val"), document


def test_the_report_holds_the_numbers_the_protocol_and_every_file(make_set, tmp_path):
    annotation_set = make_set([[([10, 10, 60, 60], 0), ([80, 20, 180, 120], 1)], [([5, 5, 50, 50], 0)], []])
    detections = {1: found([[10, 10, 60, 60]], [0.9], [0]), 2: found([[100, 5, 150, 50]], [0.8], [1])}
    page, document = report(tmp_path / "deep" / "report", annotation_set, detections, ["no <hair> here"])

    assert page == tmp_path / "deep/report/index.html"
    files = {str(p.relative_to(page.parent)) for p in page.parent.rglob("*") if p.is_file()}
    assert files == ALL_FILES | {"worst/01.png", "worst/02.png"}
    text = page.read_text()
    assert html.escape(sentence(document["protocol"])) in text
    assert "no &lt;hair&gt; here" in text
    assert "&lt;b&gt;dust&lt;/b&gt;" in text
    assert "<b>dust" not in text
    assert "http" not in text
    for name in files - {"index.html", "metrics.json"}:
        assert f'"{name}"' in text
        assert not name.endswith(".png") or cv2.imread(str(page.parent / name)) is not None
    # One of two cells is found, ahead of no mistake: precision 1 at 51 of 101 recall points.
    assert f"<td>{100 * 51 / 101 / 2:.1f}</td>" in text

    written = json.loads((page.parent / "metrics.json").read_text())
    assert written == document
    assert written["schema"] == "ctnet.eval/1"
    assert written["data"] == {"path": str(tmp_path / "set.json"), "split": "val", "images": 3, "boxes": 3}
    assert written["metrics"]["AP50"] == pytest.approx(51 / 101 / 2)


def test_the_tables_agree_with_the_metrics(make_set, tmp_path):
    annotation_set = make_set([[([10, 10, 60, 60], 0), ([80, 20, 180, 120], 1)], [([5, 5, 50, 50], 0)]])
    detections = {1: found([[10, 10, 60, 60]], [0.9], [0]), 2: found([[100, 5, 150, 50]], [0.8], [1])}
    page, document = report(tmp_path / "report", annotation_set, detections)
    with (page.parent / "confusion.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["true \\ predicted", "cell", "<b>dust</b>", "background"],
        ["cell", "1", "0", "1"],
        ["<b>dust</b>", "0", "0", "1"],
        ["background", "0", "1", "0"],
    ]
    with (page.parent / "precision_recall.csv").open() as file:
        curve = [float(r["precision_50"]) for r in csv.DictReader(file) if r["class"] == "cell"]
    assert len(curve) == 101
    assert np.mean(curve) == pytest.approx(document["per_class"]["cell"]["AP50"], abs=1e-4)


def test_the_worst_image_comes_first_and_shows_what_is_wrong(make_set, tmp_path):
    annotation_set = make_set([[([10, 10, 60, 60], 0)], [([10, 10, 60, 60], 0), ([80, 20, 180, 120], 1)]])
    page, _ = report(tmp_path / "report", annotation_set, {2: found([[0, 70, 40, 130]], [0.8], [1])})
    text = page.read_text()
    assert text.index("2.png: 2 missed, 1 wrong") < text.index("1.png: 1 missed, 0 wrong")
    drawn = cv2.imread(str(page.parent / "worst/01.png"))
    assert drawn.shape[1] == 800
    assert not np.array_equal(drawn, cv2.imread(str(page.parent / "worst/02.png")))


def test_a_second_report_replaces_the_first_and_spares_other_files(make_set, tmp_path):
    annotation_set = make_set([[([10, 10, 60, 60], 0)]])
    folder = tmp_path / "report"
    report(folder, annotation_set, {})
    (folder / "notes.txt").write_text("mine")
    page, _ = report(folder, annotation_set, {1: found([[10, 10, 60, 60]], [0.9], [0])})
    assert "No image has an error" in page.read_text()
    assert list((folder / "worst").iterdir()) == []
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_report_cut_short_has_no_page(make_set, tmp_path):
    annotation_set = make_set([[([10, 10, 60, 60], 0)]])
    folder = tmp_path / "report"
    report(folder, annotation_set, {})
    annotation_set.images[0].path.unlink()
    with pytest.raises(DataError, match="missing"):
        report(folder, annotation_set, {})
    assert not (folder / "index.html").exists()


@pytest.mark.parametrize("num_classes", [1, 12, 81])
def test_any_number_of_classes_nothing_found_and_names_of_any_script(make_set, tmp_path, num_classes):
    names = [f"Größe einer sehr langen Klasse {i}" if i % 2 else f"a very long name {i}" for i in range(num_classes)]
    objects = [[([10, 10, 60, 60], i % num_classes)] for i in range(3)]
    page, document = report(tmp_path / "report", make_set(objects, names), {})
    assert document["metrics"]["AP"] == 0
    for name in ("precision_recall.png", "confusion.png"):
        assert cv2.imread(str(page.parent / name)).std() > 1


def test_a_set_without_a_single_box_still_gets_a_report(make_set, tmp_path):
    page, document = report(tmp_path / "report", make_set([[], []]), {1: found([[1, 1, 99, 99]], [0.9], [1])})
    assert document["metrics"]["AP"] is None
    assert "<td>-</td>" in page.read_text()
    assert (page.parent / "worst/01.png").is_file()
