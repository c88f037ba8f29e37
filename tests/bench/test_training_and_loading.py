"""Steps of training and batches of the loader."""

from dataclasses import replace

import numpy as np
import pytest

from ctnet.bench.loading import measure_loading
from ctnet.bench.timing import Iterations
from ctnet.bench.training import StepRunner
from ctnet.config import changed, load_recipe
from ctnet.data.dataset import open_dataset
from ctnet.data.sample import TrainingSamples
from ctnet.errors import DataError

FEW = Iterations(warmup=1, timed=3)


@pytest.fixture
def recipe():
    return load_recipe("centernet_mobilenetv2", ["data.image_size=64", "train.batch_size=5", "train.amp=off"]).recipe


def test_a_measured_step_is_a_step_of_training(recipe, small_set):
    runner = StepRunner(open_dataset(small_set, "train"), recipe, "cpu")
    network = runner.updater._state.network
    before = {name: value.clone() for name, value in network.named_parameters()}
    assert runner.precision() == "fp32"
    runner.warm_up(2, 1)
    assert len(runner.measure(2, 3)) == 3
    moved = [not np.array_equal(value.detach(), before[name]) for name, value in network.named_parameters()]
    assert np.mean(moved) > 0.9
    assert network.training
    assert runner.updater._state.average.updates == 5, "one to warm up, one before the three that are timed"
    assert runner.memory() is None or runner.memory().growth > 0


@pytest.mark.parametrize("workers", [(0,), (0, 2)])
def test_rates_are_of_the_images_that_came(workers, recipe, small_set):
    told = []
    rows = measure_loading(open_dataset(small_set, "train"), recipe, workers, FEW, told.append)
    assert [row.runtime for row in rows] == ["in the trainer", "2 processes"][: len(workers)]
    assert told == [row.runtime for row in rows]
    for row in rows:
        assert row.batch == 5
        assert row.images_per_s > 0
        assert row.latency.median <= row.latency.p90 <= row.latency.p99


def test_timed_batches_are_made_while_timed(recipe, small_set, monkeypatch):
    made = []
    honest = TrainingSamples.__getitem__
    monkeypatch.setattr(TrainingSamples, "__getitem__", lambda self, key: made.append(key) or honest(self, key))
    measure_loading(open_dataset(small_set, "train"), recipe, (0,), FEW, lambda _: None)
    assert len(made) == 5 + 5 + 2 + 5, "twelve images in batches of five: four batches of which one is short"


def test_an_image_that_cannot_be_read_is_named(recipe, small_set):
    recipe = changed(recipe, {"data.on_bad_image": "error"})
    annotations = open_dataset(small_set, "train")
    gone = replace(annotations.images[3], path=small_set / "gone.jpg")
    annotations = replace(annotations, images=(*annotations.images[:3], gone, *annotations.images[4:]))
    with pytest.raises(DataError) as caught:
        measure_loading(annotations, recipe, (0,), FEW, lambda _: None)
    assert caught.value.facts["file"].endswith("gone.jpg")
