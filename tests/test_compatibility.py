"""Weights, exported files and runs that an earlier version left behind still work, and give the same numbers."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ctnet.models import mobilenet

OLD = Path(__file__).parent / "fixtures" / "run_0_1"
TINY_ROWS = ((1, 4, 1, 1), (2, 4, 2, 2), (2, 4, 3, 2), (2, 8, 4, 2), (2, 8, 3, 1), (2, 8, 3, 2), (2, 8, 1, 1))
EXPECTED = json.loads((OLD / "expected.json").read_text())
LOSSES = ("loss", "heatmap", "size", "offset", "giou")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The backbone that the files were made with, on one thread."""
    monkeypatch.setattr(mobilenet, "ROWS", TINY_ROWS)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def check_results(found: Path, expected: Path) -> None:
    """Compare result files: the same detections, but for what another CPU rounds differently."""
    ours, theirs = json.loads(found.read_text()), json.loads(expected.read_text())
    assert len(ours) == len(theirs)
    for key, tolerance in (("score", 2e-5), ("image_id", 0)):
        assert np.allclose([row[key] for row in ours], [row[key] for row in theirs], atol=tolerance)
    # scores that are nearly equal may change places, and the last of an image may fall out
    table = np.array([[row["image_id"] * 1e6, row["category_id"] * 1e6, *row["bbox"]] for row in theirs])
    missing = sum(
        np.abs(table - [row["image_id"] * 1e6, row["category_id"] * 1e6, *row["bbox"]]).max(1).min() > 0.05
        for row in ours
    )
    assert missing <= len(ours) // 50


def test_a_run_goes_on_to_the_same_weights(ctnet, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(OLD / "run", run)
    code, _, err = ctnet("train", "--resume", run, "--data", OLD / "set", "--device", "cpu")
    assert code == 0, err
    events = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    steps = {event["step"]: event for event in events if event["event"] == "step"}
    assert len(steps) == len(EXPECTED["losses"]) == 12
    for expected in EXPECTED["losses"]:
        for name in LOSSES:
            assert steps[expected["step"]][name] == pytest.approx(expected[name], rel=1e-4), name
    end, found = load_file(OLD / "end.safetensors"), torch.load(run / "checkpoints/last.pt", weights_only=True)["model"]
    assert end.keys() == found.keys()
    for name, tensor in end.items():
        # Adam moves weights whose gradient is all but zero by its sign: 12 steps of at most 1e-3
        assert torch.allclose(tensor, found[name], atol=6e-3), name
    rows = list(csv.DictReader(io.StringIO((run / "metrics.csv").read_text())))
    for ours, theirs in zip(rows, csv.DictReader(io.StringIO(EXPECTED["metrics"])), strict=True):
        assert [ours[name] for name in ("epoch", "step")] == [theirs[name] for name in ("epoch", "step")]
        assert [float(ours[n]) for n in LOSSES] == pytest.approx([float(theirs[n]) for n in LOSSES], rel=1e-4)


@pytest.mark.parametrize(
    ("file", "results"),
    [("run/checkpoints/best.safetensors", "weights"), ("best.onnx", "onnx"), ("raw.pt2", "pt2")],
)
def test_weights_and_exported_files_detect_what_they_did(file, results, ctnet, tmp_path):
    if file.endswith(".onnx"):
        pytest.importorskip("onnxruntime")
    precision = "fp32" if results == "weights" else "auto"
    out = tmp_path / "results.json"
    trust = ["--trust"] if results == "pt2" else []
    code, _, err = ctnet(
        "eval", "--weights", OLD / file, "--data", OLD / "set", "--precision", precision, "--save-results", out,
        "--device", "cpu", *trust,
    )  # fmt: skip
    assert code == 0, err
    check_results(out, OLD / f"results_{results}.json")


def test_weights_can_be_exported_converted_and_trained_from(ctnet, tmp_path):
    checkpoints = OLD / "run" / "checkpoints"
    for file in ("best.safetensors", "last.pt"):
        code, out, _ = ctnet("weights", "inspect", "--json", checkpoints / file)
        assert code == 0
        assert json.loads(out)["model"]["backbone"] == "mobilenetv2"
    # after so little training it finds nothing that the file and torch could be compared by
    code, _, err = ctnet("export", "pt2", "--raw", "--weights", checkpoints / "best.safetensors")
    assert code == 0, err
    code, _, err = ctnet(
        "train", "--weights", checkpoints / "best.safetensors", "--data", OLD / "set", "--out", tmp_path / "run",
        "train.max_steps=1", "data.workers=0", "data.image_size=64", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, err
