"""ctnet bench: documents, gates, messages and exit codes; no time is looked at."""

import json

import pytest

from ctnet.bench import inference, training
from ctnet.bench.document import Row
from ctnet.bench.inference import Measured
from ctnet.bench.timing import Latency
from ctnet.data.image import read_image
from ctnet.errors import MissingExtra

SMALL = ("--config", "centernet_mobilenetv2", "--image-size", 64, "--device", "cpu", "--iterations", 2, "--warmup", 1)
STAGES = dict.fromkeys(("preprocess", "forward", "decode"), Latency(10.0, 11.0, 12.0))


def row(runtime="torch", batch=1, rate=100.0):
    return Row(runtime, batch, "fp32", rate, Latency(1.0, 2.0, 3.0), STAGES, limit_share=0.25, deviation=1e-6)


@pytest.fixture
def canned(monkeypatch):
    """Let the command measure what it is told to; `canned.plan` is what it was asked for."""

    def put(*rows, **failures):
        def measure(subject, plan, device, images, tell):
            put.subject, put.plan, put.images = subject, plan, images
            return Measured(rows, {"fp32": 100.0}, failures)

        monkeypatch.setattr(inference, "measure_inference", measure)

    put(row())
    return put


def test_one_document_of_what_really_ran(ctnet, small_set, tmp_path):
    flags = ("--runtimes", "torch", "--batch-sizes", "2,1", "--data", small_set, "--out", tmp_path / "out", "--json")
    code, out, err = ctnet("bench", *SMALL, *flags)
    assert code == 0, err
    document = json.loads(out)
    assert (document["schema"], document["kind"]) == ("ctnet.bench/1", "inference")
    assert [(r["runtime"], r["batch"]) for r in document["rows"]] == [("torch", 1), ("torch", 2)]
    for found in document["rows"]:
        assert found["images_per_s"] == pytest.approx(1e3 * found["batch"] / found["latency_ms"]["median"], rel=1e-2)
        assert list(found["stages_ms"]) == ["preprocess", "forward", "decode"]
        assert found["memory"]["peak"] > found["memory"]["growth"] > 0
        assert found["limit_share"] > 0
    assert document["settings"] == {
        "pictures": 6, "data": str(small_set / "images" / "val"), "precision": "auto", "warmup": 1, "iterations": 2,
    }  # fmt: skip
    assert document["subject"]["source"] == "random weights"
    assert document["matmul_gflops"]
    assert "random weights" in err
    assert json.loads((tmp_path / "out" / "bench.json").read_text()) == document
    assert len((tmp_path / "out" / "bench.csv").read_text().splitlines()) == 3
    assert read_image(tmp_path / "out" / "bench.png").std() > 0


@pytest.mark.slow
def test_all_runtimes_agree_with_torch(ctnet, small_set):
    names = ["torch", "compiled", "onnxruntime", "openvino", "pt2"]
    flags = ("--runtimes", ",".join(names), "--batch-sizes", "1,3", "--data", small_set, "--json")
    code, out, err = ctnet("bench", *SMALL, *flags)
    assert code == 0, err
    rows = json.loads(out)["rows"]
    assert [(r["runtime"], r["batch"]) for r in rows] == [(name, batch) for batch in (1, 3) for name in names]
    assert all(r["failure"] is None and r["deviation"] < 0.1 for r in rows)


def test_the_table_says_what_was_measured_on_what_and_beside_what(ctnet, canned, small_set):
    canned(row(), row("openvino", 4, 34.0), Row("compiled", 1, failure="no compiler [here]"))
    code, out, _ = ctnet("bench", *SMALL, "--data", small_set, "--reference", "310p")
    assert code == 0
    for words in (
        "centernet_mobilenetv2, random weights, 80 classes, 64 x 64",
        "warm-up 1, timed 2 runs",
        "limit: matrix products at fp32 100 GFLOP/s",
        "310p is not shown beside the rows: it is of centernet_dla34",
        "compiled at 1: no compiler [here]",
    ):
        assert words in out
    assert "(3.11x)" not in out  # of another network nothing is compared


def test_published_figures_stand_beside_the_rows_of_their_network(ctnet, canned, small_set):
    canned(row(), row("openvino", 4, 34.0))
    words = (
        "--config",
        "centernet_dla34",
        "--device",
        "cpu",
        "--batch-sizes",
        "1,4",
        "--iterations",
        "2",
        "--warmup",
        "1",
        "--image-size",
        "512",
    )
    code, out, err = ctnet("bench", *words, "--data", small_set, "--reference", "310p")
    assert code == 0, err
    lines = {line.split()[0]: line for line in out.splitlines() if line.split()}
    # the published figures are of the forward pass alone: 1 image in 10 ms against 32.14 a second
    assert "32.14 (3.11x)" in next(line for line in out.splitlines() if line.split()[:2] == ["torch", "fp32"])
    assert "34.15 (11.71x)" in lines["openvino"]
    assert "25 %" in lines["openvino"]


def test_what_is_not_given_is_the_recipe_s_and_all_usual_runtimes(ctnet, canned, small_set):
    code, _, err = ctnet("bench", "--config", "centernet_mobilenetv2", "--device", "cpu", "--data", small_set)
    assert code == 0, err
    assert canned.plan.runtimes == ("torch", "compiled", "onnxruntime", "openvino")
    assert canned.plan.batch_sizes == (1, 4, 8, 16, 32)
    assert canned.subject.recipe.data.image_size == (640, 640)
    assert len(canned.images) == 6
    assert canned.plan.iterations.warmup == 3


@pytest.mark.parametrize(
    ("rate", "tolerance", "code"), [(104.0, None, 0), (106.0, None, 3), (106.0, "10%", 0), (150.0, "0.2", 3)]
)
def test_a_baseline_gates(ctnet, canned, small_set, tmp_path, rate, tolerance, code):
    _, out, _ = ctnet("bench", *SMALL, "--data", small_set, "--json")
    before = json.loads(out)
    before["rows"][0]["images_per_s"] = rate
    (tmp_path / "before.json").write_text(json.dumps(before))
    flags = ["--baseline", tmp_path / "before.json", *(["--max-regress", tolerance] if tolerance else [])]
    got, out, err = ctnet("bench", *SMALL, "--data", small_set, *flags)
    assert got == code, err
    assert ("NOT reached" in out) == (code == 3)
    assert f"{100 * (100 / rate - 1):+.1f} %" in out
    assert ("torch at 1: 100.00 images/s" in err) == (code == 3)
    assert "another machine" not in err


def test_a_baseline_of_another_machine_is_warned_of_and_one_of_another_size_refused(ctnet, canned, small_set, tmp_path):
    _, out, _ = ctnet("bench", *SMALL, "--data", small_set, "--json")
    before = json.loads(out)
    before["machine"]["processor"] = "Another"
    file = tmp_path / "before.json"
    file.write_text(json.dumps(before))
    code, out, err = ctnet("bench", *SMALL, "--data", small_set, "--baseline", file, "--json")
    assert code == 0
    assert json.loads(out)["gate"]["rows"] == [
        {"runtime": "torch", "batch": 1, "baseline": 100.0, "now": 100.0, "passed": True, "change": 0.0}
    ]
    assert "warning: the baseline is of another machine: processor Another there" in err
    canned.plan = None
    code, _, err = ctnet("bench", *SMALL, "--image-size", 96, "--baseline", file)
    assert code == 3
    assert "another image size" in err
    assert canned.plan is None, "it is refused before anything is measured"


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--batch-sizes", "0"], 2, "--batch-sizes"),
        (["--batch-sizes", "a,b"], 2, "a,b"),
        (["--batch-sizes", ""], 2, "--batch-sizes"),
        (["--runtimes", "onxruntime"], 2, "nearest  onnxruntime"),
        (["--max-regress", "5%"], 2, "--baseline"),
        (["--baseline", "gone.json"], 3, "gone.json"),
        (["--baseline", "gone.json", "--max-regress", "much"], 2, "5% or 0.05"),
        (["--reference", "310"], 2, "310p"),
        (["--device", "cpu", "--image-size", "100"], 2, "multiple of 32"),
        (["--device", "cpuu"], 2, "cpu"),
        (["--device", "cpu", "--weights", "gone.onnx"], 3, "gone.onnx"),
        (["--iterations", "0"], 2, "iterations"),
        (["--json", "train"], 2, "options follow `train`"),
        (["train", "--batch-sizes", "x"], 2, "--batch-sizes"),
        (["data", "--workers", "1,,2"], 2, "--workers"),
        (["data", "centernet_resdcn8"], 2, "centernet_resdcn18"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_one_message(ctnet, canned, flags, code, words):
    got, out, err = ctnet("bench", *flags)
    assert got == code
    assert words in err
    assert out == ""
    assert "Traceback" not in err


MISSING = MissingExtra("ONNX needs onnxruntime", hint='pip install "ctnet-toolkit[onnx]" installs it')


@pytest.mark.parametrize(
    ("flags", "code"),
    [(["--runtimes", "onnxruntime"], 4), (["--runtimes", "torch,onnxruntime"], 4), ([], 0)],
    ids=["alone", "among others", "not named"],
)
def test_a_missing_package_is_an_error_where_it_was_asked_for(ctnet, canned, small_set, flags, code):
    failed = Row("onnxruntime", 1, failure="ONNX needs onnxruntime")
    alone = flags == ["--runtimes", "onnxruntime"]
    canned(*([failed] if alone else [row(), failed]), onnxruntime=MISSING)
    got, out, err = ctnet("bench", *SMALL, "--data", small_set, "--json", *flags)
    assert got == code
    assert ("pip install" in err) == (code == 4)
    assert (out == "") == alone, "what was measured is printed all the same"


def test_a_training_step(ctnet, small_set, monkeypatch):
    monkeypatch.setattr(training, "matmul_rates", lambda precisions, device: dict.fromkeys(precisions, 100.0))
    config = ("centernet_mobilenetv2", "train.amp=off", "--device", "cpu", "--data", small_set, "--image-size", 64)
    flags = ("--batch-sizes", "2,3", "--iterations", 2, "--warmup", 1, "--json")
    code, out, err = ctnet("bench", "train", *config, *flags)
    assert code == 0, err
    document = json.loads(out)
    assert document["kind"] == "train"
    found = [(r["runtime"], r["batch"], r["precision"]) for r in document["rows"]]
    assert found == [("step", 2, "fp32"), ("step", 3, "fp32")]
    assert document["subject"]["classes"] == 6
    assert all(r["limit_share"] > 0 and r["memory"]["growth"] > 0 for r in document["rows"])


def test_the_loader(ctnet, small_set, tmp_path):
    flags = ("--data", small_set, "--image-size", 64, "--batch-size", 4, "--iterations", 2, "--workers", "0,1")
    code, out, err = ctnet("bench", "data", *flags, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert [(r["runtime"], r["batch"]) for r in document["rows"]] == [("in the trainer", 4), ("1 process", 4)]
    (tmp_path / "before.json").write_text(out)
    code, _, err = ctnet("bench", "train", "--data", small_set, "--baseline", tmp_path / "before.json")
    assert code == 3
    assert "measured something else" in err
    code, table, _ = ctnet("bench", "data", *flags)
    assert code == 0
    assert "in the trainer" in table
