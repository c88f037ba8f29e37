"""What a measured process does, here without the process."""

import numpy as np
import pytest
import torch

from ctnet.bench.runners import STAGES, Entry, InferenceRunner
from ctnet.bench.subject import open_subject
from ctnet.data.image import read_image
from ctnet.detect.opening import load_detector


@pytest.fixture(params=["small.safetensors", "small.pt2"])
def runner(request, small_files, images):
    file = small_files / request.param
    recipe = open_subject(None, file, None, trust=True).recipe
    return InferenceRunner(Entry("torch", file, "cpu", "fp32", recipe, images, trust=True))


def test_the_stages_are_what_a_detector_does(runner, small_files):
    detector = load_detector(small_files / "small.safetensors", "cpu", "fp32")
    decoded = [read_image(file) for file in runner.entry.images]
    value = None
    with torch.inference_mode():
        for stage in runner._stages(8):
            value = stage(value)
    expected = detector.detect([*decoded, *decoded[:2]], runner.entry.recipe.evaluation)
    assert len(value) == len(expected) == 8, "images are repeated to fill the batch"
    for found, wanted in zip(value, expected, strict=True):
        assert np.array_equal(found.labels, wanted.labels)
        np.testing.assert_allclose(found.boxes_xyxy, wanted.boxes_xyxy, atol=1e-3)
        np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)


def test_every_run_has_a_time_for_every_stage(runner):
    assert runner.precision() == "fp32"
    runner.warm_up(3, 1)
    times = runner.measure(3, 2)
    assert len(times) == 2
    assert all(len(run) == len(STAGES) and min(run) > 0 for run in times)
    assert runner.memory() is None or runner.memory().peak > 10_000_000


def test_outputs_are_the_raw_maps_of_the_first_images(runner):
    outputs = runner.outputs(2)
    assert {name: values.shape for name, values in outputs.items()} == {
        "heatmap_logits": (2, 80, 16, 24),
        "size": (2, 2, 16, 24),
        "offset": (2, 2, 16, 24),
    }
    assert all(values.dtype == np.float32 for values in outputs.values())
