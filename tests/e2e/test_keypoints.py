"""Faces with landmarks from drawing to report: data, training, evaluation, prediction."""

import csv
import json

import numpy as np
import pytest

from ctnet.data.demo import demo_of, write_demo
from ctnet.data.image import read_image

TINY = ("data.image_size=96", "data.workers=0", "train.batch_size=4", "schedule.epochs=1", "train.sample_batches=1")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return write_demo(tmp_path_factory.mktemp("set") / "faces", 8, 4, size=(120, 140), demo=demo_of("faces"))


def test_training_validates_draws_and_reports_key_points(ctnet, faces, tmp_path):
    run = tmp_path / "run"
    code, out, err = ctnet("train", "centerface_mobilenetv2", "--data", faces, "--out", run, "--json", *TINY)
    assert code == 0, err
    summary = json.loads(out)
    assert {"AP", "kpAP", "NME", "PCK"} <= set(summary)
    (*_, last) = csv.DictReader((run / "metrics.csv").open())
    assert {"kpAP", "kpAR", "NME", "PCK", "box_landmarks"} <= set(last)
    assert (run / "samples" / "train_batch_0.jpg").is_file()
    page = (run / "eval" / "index.html").read_text()
    assert "left_mouth" in page
    weights = run / "checkpoints" / "best.safetensors"

    code, out, err = ctnet("eval", "--weights", weights, "--data", faces, "--report", tmp_path / "report", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert list(document["per_point"]) == ["left_eye", "right_eye", "nose", "left_mouth", "right_mouth"]
    assert document["metrics"]["kpAP"] is not None

    image = faces / "images" / "val" / "val_00000.jpg"
    drawn = tmp_path / "drawn"
    code, out, err = ctnet("predict", "--weights", weights, image, "--score", 0.01, "--out", drawn, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["keypoints"]["names"][2] == "nose"
    (one, *_) = document["pictures"][0]["detections"]
    assert set(one["keypoints"]) == set(document["keypoints"]["names"])
    assert np.abs(read_image(drawn / image.name).astype(int) - read_image(image)).max() > 50


def test_box_networks_train_on_sets_with_key_points_and_are_scored_by_boxes(ctnet, faces, tmp_path):
    code, out, err = ctnet("train", "--data", faces, "--max-steps", 1, "--out", tmp_path / "run", "--json", *TINY)
    assert code == 0, err
    assert "kpAP" not in json.loads(out)


def test_faces_without_landmarks_are_named_or_trained_as_boxes(ctnet, small_set, tmp_path):
    """A network of landmarks cannot know how many there are in a set that has none."""
    code, _, err = ctnet("train", "centerface_mobilenetv2", "--data", small_set, "--out", tmp_path / "run", *TINY)
    assert code in (2, 3)
    assert "key points" in err
    assert "Traceback" not in err
