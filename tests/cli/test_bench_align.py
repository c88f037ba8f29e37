"""ctnet bench align on this processor; on emulated devices: tests/devices/test_align.py."""

import json
import zlib
from itertools import islice

import numpy as np
import pytest

from ctnet.data.dataset import open_dataset
from ctnet.data.image import read_image
from ctnet.data.loader import EpochOrder

TINY = (
    "model.neck=deform", "optimizer.lr=2e-3",
    "model.neck_channels=[16,16,16]", "model.head_channels=16", "data.workers=0", "optimizer.name=sgd",
    "--image-size", "64x96", "--batch-size", 4,
)  # fmt: skip


def test_the_steps_are_those_of_training_and_a_lower_precision_is_told_apart(ctnet, small_set, tmp_path):
    run = tmp_path / "run"
    amp = ("--device", "cpu", "--amp", "off", "train.log_every=1", "--epochs", 2)
    code, _, err = ctnet("train", "demo", *TINY, "--data", small_set, *amp, "--out", run)
    assert code == 0, err
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    trained = [event for event in events if event["event"] == "step"]

    flags = ("schedule.epochs=2", "--devices", "cpu,cpu", "--precision", "fp32,bf16", "--steps", 6)
    strict = ("--tolerance", 1e-6, "--out", tmp_path / "out", "--json")
    code, out, err = ctnet("bench", "align", "demo", *TINY, "--data", small_set, *flags, *strict)
    assert code == 3, err
    document = json.loads(out)
    assert (document["schema"], document["kind"]) == ("ctnet.bench/1", "align")
    rows = document["rows"]
    for part in ("loss", "heatmap", "size", "offset"):
        assert [row["first"][part] for row in rows] == pytest.approx([event[part] for event in trained], rel=1e-6)
    assert [row["lr"] for row in rows] == pytest.approx([event["lr"] for event in trained])
    pairs = [(row["first"]["loss"], row["second"]["loss"]) for row in rows]
    errors = [abs(b - a) / a for a, b in pairs]
    assert [row["relative_error"] for row in rows] == pytest.approx(errors)
    assert document["gate"]["mean_relative_error"] == pytest.approx(sum(errors) / 6)
    assert 1e-5 < document["gate"]["mean_relative_error"] < 0.05
    assert document["gate"]["parts_at"] == 1
    assert [document["runs"][role]["precision"] for role in ("first", "second")] == ["fp32", "bf16"]
    assert "not aligned" in err
    assert "--precision fp32" in err

    assert json.loads((tmp_path / "out" / "bench.json").read_text()) == document
    table = (tmp_path / "out" / "bench.csv").read_text().splitlines()
    assert len(table) == 7
    assert "second.heatmap" in table[0]
    assert read_image(tmp_path / "out" / "bench.png").std() > 0


def test_a_run_is_recorded_here_and_compared_there(ctnet, small_set, tmp_path):
    # batches of five leave a last one of two, which is made up to five: for devices of fixed sizes, so for all
    flags = ("--data", small_set, "--batch-size", 5, "--steps", 4, "--devices", "cpu", "--out", tmp_path / "there")
    code, out, err = ctnet("bench", "align", *TINY[:-2], *flags)
    assert code == 0, err
    assert "recorded" in out
    record = tmp_path / "there" / "bench.json"
    document = json.loads(record.read_text())
    ids = np.array([image.id for image in open_dataset(small_set, "train").images])
    taken = [ids[i] for keys in islice(EpochOrder(12, 5, 2, 0, fill=True), 4) for _, i in keys]
    assert len(taken) == 20
    assert document["runs"]["first"]["inputs"]["order"] == zlib.crc32(np.array(taken, np.int64).tobytes())
    moved = small_set.rename(tmp_path / "moved")

    code, out, err = ctnet("bench", "align", "--against", record, "--devices", "cpu", "--data", moved)
    assert code == 0, err
    assert "aligned: mean relative error 0, 0.05 is allowed" in out
    assert "cpu fp32 (recorded)" in out
    assert [line.split()[0] for line in out.splitlines() if line.endswith("0.0e+00 ")] == ["1", "2", "3", "4"]

    document["runs"]["first"]["inputs"]["order"] += 1
    record.write_text(json.dumps(document))
    code, _, err = ctnet("bench", "align", "--against", record, "--devices", "cpu", "--data", moved)
    assert code == 3
    assert "different images" in err


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--tolerance", "0"], 2, "--tolerance"),
        (["--tolerance", "nan"], 2, "--tolerance"),
        (["--tolerance", "inf"], 2, "--tolerance"),
        (["--steps", "0"], 2, "--steps"),
        (["--devices", "cpu,"], 2, "--devices"),
        (["--devices", "cpu,cpu,cpu"], 2, "--devices"),
        (["--precision", "fp8"], 2, "bf16"),
        (["--devices", "cpu", "--precision", "fp32,bf16"], 2, "--precision"),
        (["train.amp=bf16"], 2, "--precision"),
        (["--devices", "cpu,npuu"], 2, "nearest  npu"),
        (["--devices", "cpu,npu"], 4, "torch_npu"),
        (["--against", "gone.json"], 3, "gone.json"),
        (["--against", "other.json"], 3, "measured something else"),
        (["--against", "gone.json", "--steps", "5"], 2, "--steps"),
        (["--against", "gone.json", "seed=1"], 2, "seed=1"),
        (["--against", "gone.json", "--devices", "cpu,cpu"], 2, "--devices takes one"),
        (["--data", "gone"], 3, "gone"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_one_message(ctnet, small_set, tmp_path, flags, code, words):
    (tmp_path / "other.json").write_text(json.dumps({"schema": "ctnet.bench/1", "kind": "train"}))
    data = [] if "--data" in flags else ["--data", small_set]
    got, out, err = ctnet("bench", "align", *data, *flags)
    assert got == code, err
    assert words in err
    assert out == ""
    assert "Traceback" not in err
