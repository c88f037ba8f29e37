"""Figures as JSON, CSV and plot."""

import csv
import io
import json

import numpy as np
import pytest

from ctnet.bench.document import Row, bench_document, to_csv
from ctnet.bench.memory import Memory
from ctnet.bench.plot import speed_plot
from ctnet.bench.references import reference_named
from ctnet.bench.timing import Iterations, Latency
from ctnet.data.canvas import GREY, PALETTE
from ctnet.devices import open_device
from ctnet.errors import ConfigError

FULL = Row(
    "torch", 4, "fp32", 12.3456, Latency(324.0, 330.0, 400.0), {"forward": Latency(300.0, 301.0, 302.0)},
    Memory(10, 4, "bytes of a test"), 0.5, 1.234e-6,
)  # fmt: skip
FAILED = Row("onnxruntime", 4, failure='ONNX needs onnxruntime, "pip" installs it')


@pytest.fixture
def document():
    subject = {"recipe": "r", "image_size": [64, 96], "classes": 3}
    rows = [FULL, Row("torch", 8, "fp32", 20.0, Latency(400.0, 1.0, 1.0)), FAILED]
    return bench_document("inference", subject, {"data": "d"}, Iterations(), open_device("cpu"), {"fp32": 99.0}, rows)


def test_a_document_is_json_with_a_schema_and_says_how_it_was_measured(document):
    assert json.loads(json.dumps(document)) == document
    assert document["schema"] == "ctnet.bench/1"
    assert document["settings"] == {"data": "d", "warmup": 3, "iterations": 20}
    assert document["rows"][0] == {
        "runtime": "torch",
        "batch": 4,
        "precision": "fp32",
        "images_per_s": 12.346,
        "latency_ms": {"median": 324.0, "p90": 330.0, "p99": 400.0},
        "stages_ms": {"forward": {"median": 300.0, "p90": 301.0, "p99": 302.0}},
        "memory": {"peak": 10, "growth": 4, "kind": "bytes of a test"},
        "limit_share": 0.5,
        "deviation": 1.2e-06,
        "failure": None,
    }
    assert document["rows"][2]["images_per_s"] is None


def test_csv_has_a_line_a_row_and_a_column_a_value(document):
    rows = list(csv.DictReader(io.StringIO(to_csv(document))))
    assert [row["runtime"] for row in rows] == ["torch", "torch", "onnxruntime"]
    assert rows[0]["latency_ms.p90"] == "330.0"
    assert rows[0]["stages_ms.forward.median"] == "300.0"
    assert rows[0]["memory.peak"] == "10"
    assert rows[1]["stages_ms.forward.median"] == ""
    assert rows[2]["failure"] == FAILED.failure


def has(image, color):
    return bool((image == np.array(color, np.uint8)).all(-1).any())


def test_the_plot_draws_what_was_measured_and_what_was_published(document):
    plain = speed_plot(document)
    assert has(plain, PALETTE[0])
    assert not has(plain, PALETTE[1]), "a runtime that failed has no line"
    axes = np.count_nonzero((plain == np.array(GREY, np.uint8)).all(-1))
    published = reference_named("310p").to_dict(None, {1: 32.14, 4: 34.15})
    beside = speed_plot({**document, "reference": published})
    assert np.count_nonzero((beside == np.array(GREY, np.uint8)).all(-1)) > axes


@pytest.mark.parametrize("rows", [[], [FAILED], [FULL]], ids=["nothing", "failed", "one batch size"])
def test_the_plot_of_few_rows_is_an_image(document, rows):
    image = speed_plot({**document, "rows": [row.to_dict() for row in rows]})
    assert image.dtype == np.uint8
    assert has(image, PALETTE[0]) == (rows == [FULL])


def test_published_figures_are_the_published_ones():
    reference = reference_named("310p")
    assert dict(reference.rates) == {1: 32.14, 4: 34.15, 8: 33.03, 16: 33.63, 32: 31.88}
    with pytest.raises(ConfigError) as caught:
        reference_named("310")
    assert caught.value.facts["nearest"] == "310p"


@pytest.mark.parametrize(
    ("name", "kind", "recipe", "size", "batch", "processes", "shown"),
    [
        ("310p", "inference", "centernet_dla34", (512, 512), 4, 1, 34.15),
        ("310p", "inference", "centernet_dla34_coco_2x", (512, 512), 2, 1, None),
        ("310p", "inference", "centernet_dla34", (512, 384), 4, 1, "512 x 512 pixels"),
        ("310p", "inference", "centernet_res18", (512, 512), 4, 1, "of centernet_dla34"),
        ("310p", "train", "centernet_dla34", (512, 512), 4, 1, "of inference"),
        ("910", "train", "centernet_resdcn18_mindspore", (512, 512), 16, 8, 590.0),
        ("910", "train", "centernet_resdcn18_mindspore", (512, 512), 8, 8, None),
        ("910", "train", "centernet_resdcn18_mindspore", (512, 512), 16, 2, "of 8 devices"),
        ("910", "inference", "centernet_resdcn18_mindspore", (512, 512), 16, 1, "of training: ctnet bench train"),
        ("npu-centernet2", "train", "centernet2_r50_1x", (640, 640), 2, 8, None),
    ],
)
def test_figures_are_shown_beside_what_they_were_measured_with_alone(name, kind, recipe, size, batch, processes, shown):
    reference = reference_named(name)
    why_not = reference.why_not(kind, {"recipe": recipe, "image_size": list(size)}, processes)
    if isinstance(shown, str):
        assert shown in why_not
    else:
        assert (why_not, reference.beside(batch, processes)) == (None, shown)
