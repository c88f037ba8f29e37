"""The WIDER FACE protocol against its published code, and files that are not what they should be."""

import json

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from ctnet.errors import DataError
from ctnet.eval import widerface
from ctnet.eval.widerface import WiderFaces, read_ground_truth, read_results, widerface_ap, write_result
from ctnet.types import Category, Detections
from widerfaces import small_truth


def one_image(boxes, counted, image=("0--Parade", "a")):
    flags = (np.asarray(counted, bool),)
    return WiderFaces((image,), (np.asarray(boxes, np.float64),), dict.fromkeys(widerface.SETTINGS, flags))


@pytest.mark.parametrize("case", ["img0", "img1", "img2", "img3"])
def test_single_steps_equal_the_published_code(golden, case):
    steps = {key.partition("/")[2]: value for key, value in golden("widerface_steps").items() if key.startswith(case)}
    predicted, boxes = steps["pred_xywhs"], steps["gt_xywh"]
    counted = steps["counted"].astype(bool)
    assert np.abs(widerface.overlaps(predicted[:, :4], boxes) - steps["overlaps_plus1"]).max() < 1e-12
    faces = one_image(boxes, counted)
    ((_, face, first),) = widerface._matches(faces, {faces.images[0]: predicted}, 0.4, skip_missing=True)
    right = np.append(counted, True)[face]  # a prediction without a face counts
    assert np.where(right, 1, -1).tolist() == steps["proposal_list"].tolist()
    assert np.cumsum(first & right).tolist() == steps["pred_recall"].tolist()


def test_the_area_under_a_curve_equals_the_published_one(golden):
    steps = golden("widerface_steps")
    area = widerface._area(steps["voc_ap/rec"], steps["voc_ap/prec"])
    assert area == pytest.approx(float(steps["voc_ap/ap"]), abs=1e-12)


@pytest.fixture(scope="module")
def truth(shared):
    return read_ground_truth(shared / "data" / "widerface_gt")


@pytest.fixture(scope="module")
def predictions(shared):
    stored = np.load(shared / "golden" / "widerface_pred_a.npz")
    rows = np.column_stack([stored["boxes_xywh_x10"] / 10, stored["score_x1000"] / 1000])
    ends = np.cumsum(stored["count"].clip(0))
    images = zip(stored["event"].tolist(), stored["name"].tolist(), strict=True)
    return {
        image: rows[end - count : end]
        for image, end, count in zip(images, ends, stored["count"], strict=True)
        if count >= 0
    }


def test_the_ground_truth_is_complete(truth):
    assert (len({event for event, _ in truth.images}), len(truth.images)) == (61, 3226)
    assert sum(map(len, truth.boxes_xywh)) == 39708
    counts = {name: sum(int(flags.sum()) for flags in rows) for name, rows in truth.counted.items()}
    assert counts == {"easy": 7211, "medium": 13319, "hard": 31958}


def test_the_whole_set_scores_as_the_published_code(truth, predictions, shared):
    expected = json.loads((shared / "golden" / "widerface_ap.json").read_text())["a"]["ap"]
    result = widerface_ap(truth, predictions, 0.4, skip_missing=True)
    for setting in widerface.SETTINGS:
        assert result.ap[setting] == pytest.approx(expected[setting], abs=1e-6)
    assert widerface_ap(truth, predictions).ap["easy"] < result.ap["easy"]  # 0.5 asks for more


def test_written_results_in_any_order_score_the_same(truth, predictions, tmp_path):
    few = dict(list(predictions.items())[:40])
    generator = np.random.default_rng(0)
    for image, rows in few.items():
        write_result(tmp_path / "sorted", image, rows)
        folder = tmp_path / "mixed" / image[0]
        folder.mkdir(parents=True, exist_ok=True)
        lines = [" ".join(f"{v:.3f}" for v in row) for row in generator.permutation(rows)]
        (folder / f"{image[1]}.txt").write_text("\n".join([image[1], "-7", *lines, ""]))
    expected = widerface_ap(truth, few)
    for name in ("sorted", "mixed"):
        read = read_results(tmp_path / name, truth.images)
        assert widerface_ap(truth, read).ap == pytest.approx(expected.ap, abs=1e-9)
    lines = (tmp_path / "sorted" / truth.images[0][0] / f"{truth.images[0][1]}.txt").read_text().splitlines()
    assert lines[0] == truth.images[0][1]
    assert int(lines[1]) == len(lines) - 2
    scores = [float(line.split()[4]) for line in lines[2:]]
    assert scores == sorted(scores, reverse=True)


def test_faces_of_missing_images_are_missed_or_left_out(truth, predictions):
    half = dict(list(predictions.items())[::2])
    counted, skipped = widerface_ap(truth, half), widerface_ap(truth, half, skip_missing=True)
    assert len(counted.missing) == len(skipped.missing) == len(truth.images) - len(half)
    assert counted.faces["hard"] == 31958
    assert skipped.faces["hard"] < 20000
    assert counted.ap["hard"] < 0.6 * skipped.ap["hard"]


def test_a_perfect_detector_finds_all_and_equal_scores_divide_by_nothing():
    faces = one_image([[10, 10, 20, 20], [50, 50, 30, 30], [5, 5, 0, 0]], [True, True, False])
    image = faces.images[0]
    rows = np.array([[10, 10, 20, 20, 0.7], [50, 50, 30, 30, 0.7]])
    assert widerface_ap(faces, {image: rows}).ap["easy"] == pytest.approx(1)
    assert np.isnan(widerface_ap(faces, {image: rows[:0]}).ap["easy"])
    assert np.isnan(widerface_ap(one_image(np.zeros((0, 4)), []), {image: rows}).ap["easy"])


def test_a_thousand_faces_in_one_image():
    boxes = np.stack([np.arange(1000) % 40 * 25, np.arange(1000) // 40 * 25, np.full(1000, 20), np.full(1000, 20)], 1)
    faces = one_image(boxes, np.ones(1000))
    rows = np.column_stack([boxes, np.linspace(1, 0, 1000)])
    assert widerface_ap(faces, {faces.images[0]: rows}).ap["hard"] == pytest.approx(1, abs=1e-3)


def test_a_small_ground_truth_is_read(tmp_path):
    faces = read_ground_truth(small_truth(tmp_path / "gt"))
    assert faces.images == (("0--Parade", "a"),)
    assert faces.boxes_xywh[0].tolist() == [[1, 2, 30, 40]]
    assert loadmat(tmp_path / "gt" / "wider_easy_val.mat")["gt_list"].shape == (1, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"chosen": (2,)}, "faces that an image does not have"),
        ({"faces": (), "chosen": (1,)}, "does not have"),
        ({"event": "../.."}, "wider_face_val.mat"),
        ({"name": "a/../../b"}, "wider_face_val.mat"),
        ({"face_bbx_list": np.zeros((1, 1))}, "wider_face_val.mat"),
    ],
)
def test_a_mat_file_of_something_else_is_named(tmp_path, change, words):
    with pytest.raises(DataError, match="not a WIDER FACE ground truth") as caught:
        read_ground_truth(small_truth(tmp_path / "gt", **change))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"no mat", b"\x89HDF\r\n\x1a\n" + bytes(600), bytes(128), b"MATLAB 5.0 MAT-file" * 20]
)
def test_a_file_that_is_no_mat_file_is_named(tmp_path, content):
    folder = small_truth(tmp_path / "gt")
    (folder / "wider_hard_val.mat").write_bytes(content)
    with pytest.raises(DataError, match="not a WIDER FACE ground truth") as caught:
        read_ground_truth(folder)
    assert "wider_hard_val.mat" in str(caught.value)


def test_other_variables_and_missing_files_are_named(tmp_path):
    folder = small_truth(tmp_path / "gt")
    savemat(folder / "wider_easy_val.mat", {"gt": np.zeros(3)})
    with pytest.raises(DataError, match="gt_list"):
        read_ground_truth(folder)
    (folder / "wider_easy_val.mat").unlink()
    with pytest.raises(DataError, match=r"wider_easy_val\.mat"):
        read_ground_truth(folder)


@pytest.mark.parametrize("line", ["1 2 3 4", "1 2 3 4 x", "1 2 3 4 nan", "1 2 3 4 0.5 6"])
def test_a_bad_line_of_results_is_named(tmp_path, line):
    folder = tmp_path / "0--Parade"
    folder.mkdir()
    (folder / "a.txt").write_text(f"a\n1\n5 5 5 5 0.9\n{line}\n")
    with pytest.raises(DataError, match="five numbers") as caught:
        read_results(tmp_path, [("0--Parade", "a")])
    assert "4" in str(caught.value)
    with pytest.raises(DataError, match="no image has a result"):
        read_results(tmp_path, [("1--Handshaking", "b")])


def test_the_class_of_faces_is_found_by_name():
    assert widerface.face_label([Category(1, "plate"), Category(2, "Face")]) == 1
    assert widerface.face_label([Category(1, "head")]) == 0
    with pytest.raises(DataError, match="no class face"):
        widerface.face_label([Category(1, "dog"), Category(2, "cat")])
    found = Detections(
        np.array([[1, 2, 11, 22], [0, 0, 5, 5]], np.float32), np.array([0.5, 0.25], np.float32), np.array([1, 0])
    )
    assert widerface.prediction_rows(found, 1).tolist() == [[1, 2, 10, 20, 0.5]]
