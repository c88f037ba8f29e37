"""Runtimes side by side: one that is missing, wrong or dies is a row with its reason, and the others go on."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from ctnet.bench import inference
from ctnet.bench.inference import Contestant, InferencePlan, Measured, deviation, measure_inference, reason
from ctnet.bench.runners import InferenceRunner
from ctnet.bench.subject import open_subject
from ctnet.bench.timing import Iterations
from ctnet.devices import open_device
from ctnet.errors import BenchError, ConfigError, MissingExtra
from ctnet.export.formats import format_named

FEW = Iterations(warmup=1, timed=2, rounds=2)


class Near:
    """Stands in for a process: the same object, in this one."""

    def __init__(self, make, *arguments):
        self.object = make(*arguments)

    def call(self, method, *arguments):
        return getattr(self.object, method)(*arguments)

    def close(self):
        self.object = None


@pytest.fixture
def measure(small_files, images, monkeypatch):
    """Measure runtimes of the small network without processes, and without measuring the machine."""
    monkeypatch.setattr(inference, "Remote", Near)
    monkeypatch.setattr(inference, "matmul_rates", lambda precisions, device: dict.fromkeys(precisions, 100.0))

    def run(*runtimes, file="small.safetensors", batches=(1, 3), precision="fp32") -> Measured:
        subject = open_subject(None, small_files / file, None, trust=True)
        plan = InferencePlan(runtimes, batches, precision, FEW)
        told = []
        return measure_inference(subject, plan, open_device("cpu"), images, told.append)

    return run


def test_a_row_per_batch_and_runtime_whose_parts_make_the_whole(measure, small_files):
    found = measure("torch", "pt2")
    assert [(row.batch, row.runtime) for row in found.rows] == [(1, "torch"), (1, "pt2"), (3, "torch"), (3, "pt2")]
    operations = open_subject(None, small_files / "small.pt2", None, trust=True).operations_per_image
    for row in found.rows:
        assert row.failure is None
        assert row.precision == "fp32"
        assert row.deviation < 1e-4
        assert row.images_per_s == pytest.approx(1e3 * row.batch / row.latency.median)
        assert list(row.stages) == ["preprocess", "forward", "decode"]
        assert sum(stage.median for stage in row.stages.values()) == pytest.approx(row.latency.median, rel=1e-6)
        assert row.limit_share == pytest.approx(operations * row.batch / row.stages["forward"].median / 1e6 / 100)
    assert found.failures == {}
    assert found.rates == {"fp32": 100.0}


def test_a_missing_runtime_is_a_row_with_the_command_that_installs_it(measure, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = measure("torch", "onnxruntime", batches=(1,))
    good, missing = found.rows
    assert good.failure is None
    assert missing.images_per_s is None
    assert 'pip install "ctnet-toolkit[onnx]"' in missing.failure
    assert isinstance(found.failures["onnxruntime"], MissingExtra)


def test_an_exporter_that_breaks_is_a_row(measure, monkeypatch):
    def broken(*_):
        raise RuntimeError("cannot translate the graph\nand so on")

    pt2 = replace(format_named("pt2"), write=broken)
    monkeypatch.setattr(inference, "format_for", lambda runtime: pt2 if runtime == "pt2" else None)
    found = measure("pt2", "torch", batches=(1,))
    assert [row.failure for row in found.rows] == ["RuntimeError: cannot translate the graph", None]


def test_a_wrong_answer_has_no_speed(measure, monkeypatch):
    honest = InferenceRunner.outputs

    def off_by_a_tenth(runner, images):
        return {name: values + 0.1 * np.ptp(values) for name, values in honest(runner, images).items()}

    monkeypatch.setattr(InferenceRunner, "outputs", off_by_a_tenth)
    (row,) = measure("torch", batches=(1,)).rows
    assert row.images_per_s is None
    assert row.deviation == pytest.approx(0.1, rel=1e-3)
    assert "not torch's" in row.failure


def test_a_runtime_that_fails_late_keeps_its_earlier_rows(measure, monkeypatch):
    honest = InferenceRunner.measure

    def too_large(runner, batch, runs):
        if batch > 1:
            raise BenchError("out of memory", got="3 pictures")
        return honest(runner, batch, runs)

    monkeypatch.setattr(InferenceRunner, "measure", too_large)
    found = measure("torch", batches=(1, 3, 4))
    assert [row.failure for row in found.rows] == [None, *["out of memory, 3 pictures"] * 2]
    assert set(found.failures) == {"torch"}


def test_an_exported_file_is_run_by_its_own_runtime_alone(measure):
    found = measure("pt2", "torch", file="small.pt2", batches=(1, 3), precision="auto")
    assert [row.failure is None for row in found.rows] == [True, False, True, False]
    assert "run by pt2 alone" in found.rows[1].failure
    assert found.rows[0].deviation is None, "there is no torch network to compare with"


def test_a_runtime_for_the_processor_refuses_a_card(small_files, images, tmp_path):
    subject = open_subject(None, small_files / "small.safetensors", None)
    card = replace(open_device("cpu"), torch_device=torch.device("meta"))
    contestant = Contestant("onnxruntime")
    contestant.open(partial(inference._entry, subject, "onnxruntime", "auto", card, images, tmp_path))
    assert isinstance(contestant.failure, ConfigError)
    assert "runs on the CPU" in contestant.failure.message


def test_deviation_is_relative_to_the_range_and_infinite_for_nonsense():
    expected = {"a": np.array([0.0, 2.0, 4.0]), "b": np.array([0.0, 1.0])}
    assert deviation(expected, expected) == 0
    assert deviation(expected, {**expected, "a": np.array([0.0, 3.0, 4.0])}) == pytest.approx(0.25)
    assert deviation(expected, {**expected, "b": np.array([0.0, np.nan])}) == float("inf")
    assert deviation(expected, {**expected, "b": np.zeros(3)}) == float("inf")
    assert deviation(expected, {"a": expected["a"]}) == float("inf")


def test_a_reason_is_one_line():
    assert reason(MissingExtra("needs it", hint="install it", got="nothing")) == "needs it, nothing, install it"
