"""Running a detector over a set: batches and processes change nothing."""

import numpy as np
import pytest
import torch

from ctnet.config import Evaluation, Recipe, changed
from ctnet.data.dataset import open_dataset
from ctnet.detect.detector import Detector
from ctnet.devices import open_device
from ctnet.errors import DataError
from ctnet.eval.coco import coco_metrics
from ctnet.eval.evaluate import evaluate
from ctnet.eval.protocol import protocol_of, sentence
from ctnet.families import build_network


@pytest.fixture
def annotations(small_set):
    return open_dataset(small_set, "val")


@pytest.fixture
def detector(annotations):
    torch.manual_seed(0)
    recipe = Recipe.model_validate({"data": {"image_size": (64, 96)}, "model": {"neck_channels": (16, 16, 16)}})
    network = build_network(recipe.model, len(annotations.categories))
    return Detector(network, recipe, annotations.categories, open_device("cpu"))


@pytest.mark.parametrize("keep_res", [False, True])
def test_batch_size_and_workers_change_no_number(detector, annotations, keep_res):
    settings = Evaluation(keep_res=keep_res, top_k=20)
    results = []
    for batch, workers in ((1, 0), (4, 0), (3, 2)):
        found = evaluate(detector, annotations, settings.model_copy(update={"batch_size": batch}), workers=workers)
        assert set(found) == {image.id for image in annotations.images}
        results.append((found, coco_metrics(annotations, found).numbers()))
    first, numbers = results[0]
    for found, others in results[1:]:
        assert others == pytest.approx(numbers, abs=1e-9)
        for key in first:
            assert np.allclose(found[key].boxes_xyxy, first[key].boxes_xyxy, atol=1e-2)


def test_progress_counts_every_image_once(detector, annotations):
    seen = []
    evaluate(detector, annotations, Evaluation(), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, 6) for i in range(6)]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_left_out_or_named(detector, annotations, workers):
    victim = annotations.images[3].path
    victim.write_bytes(b"")
    found = evaluate(detector, annotations, Evaluation(), workers=workers)
    assert set(found) == {image.id for image in annotations.images} - {annotations.images[3].id}
    detector.recipe = changed(detector.recipe, {"data.on_bad_image": "error"})
    with pytest.raises(DataError) as caught:
        evaluate(detector, annotations, Evaluation(), workers=workers)
    assert victim.name in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_the_protocol_is_said_in_full():
    recipe = Recipe.model_validate({"data": {"image_size": (96, 160)}})
    plain = sentence(protocol_of(recipe, Evaluation(), 7))
    assert "7 images" in plain
    assert "fixed 96x160" in plain
    assert "no flip" in plain
    rich = protocol_of(recipe, Evaluation(keep_res=True, flip=True, scales=(0.5, 1.0), score_floor=0.1), 7)
    assert rich["nms"] == "soft"
    for words in ("kept resolution", "flip test", "scale 0.5, 1", "soft NMS", "scores from 0.1"):
        assert words in sentence(rich)
