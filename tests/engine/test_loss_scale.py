"""Loss scaling in training: what is skipped, what is recorded, when the run ends."""

import json
import math

import pytest
import torch

from ctnet.config import load_recipe
from ctnet.devices import open_device
from ctnet.engine.precision import choose_precision
from ctnet.errors import ConfigError
from tiny import TINY

FAST = (*TINY, "data.val_split=none", "train.sample_batches=0", "train.save_every=1000")


def events(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "step"]


def test_a_static_scale_stays_and_is_in_the_log_beside_epoch_and_its_percent(ctnet, small_set, tmp_path):
    out = tmp_path / "run"
    words = ("--data", small_set, "--device", "cpu", "--amp", "bf16", "--epochs", 2, "--out", out, *FAST)
    code, _, err = ctnet("train", *words, "train.loss_scale=1024")
    assert code == 0, err
    assert "bfloat16 (as requested), loss scale 1024" in err
    found = events(out)
    assert [(e["epoch"], e["epoch_percent"]) for e in found] == [
        (1, 33.33), (1, 66.67), (1, 100.0), (2, 33.33), (2, 66.67), (2, 100.0),
    ]  # fmt: skip
    assert {e["scale"] for e in found} == {1024.0}
    assert {e["overflow"] for e in found} == {0}
    state = torch.load(out / "checkpoints" / "last.pt", weights_only=True)
    assert state["scaler"]["scale"] == 1024.0


def test_overflows_are_skipped_counted_and_lower_the_scale(ctnet, small_set, tmp_path, monkeypatch):
    """Of a scale near the end of float32 the first updates overflow, then training goes on as if without them."""
    out = tmp_path / "run"
    grad_scaler = torch.amp.GradScaler
    monkeypatch.setattr(
        "ctnet.devices.torch_device.torch.amp.GradScaler", lambda *a, **k: grad_scaler(*a, init_scale=2.0**127, **k)
    )
    words = ("--data", small_set, "--device", "cpu", "--amp", "off", "--max-steps", 18, "--epochs", 6, "--out", out)
    code, _, err = ctnet("train", *words, *FAST, "train.loss_scale=dynamic", "loss.size=100")
    assert code == 0, err
    found = events(out)
    skipped = [e["overflow"] for e in found]
    assert 1 <= sum(skipped) < 18
    assert skipped == sorted(skipped, reverse=True)  # at the beginning
    assert found[-1]["scale"] == 2.0 ** (127 - sum(skipped))
    assert all(math.isfinite(e["loss"]) for e in found if "loss" in e)
    state = torch.load(out / "checkpoints" / "last.pt", weights_only=True)
    assert all(t.isfinite().all() for t in state["model"].values() if t.is_floating_point())


def test_a_run_ends_after_so_many_overflows_in_a_row(ctnet, small_set, tmp_path):
    out = tmp_path / "run"
    words = ("--data", small_set, "--device", "cpu", "--amp", "off", "--out", out, "--epochs", 9, *FAST)
    wild = ("optimizer.lr=1e6", "optimizer.clip_norm=0", "optimizer.name=sgd", "schedule.warmup=0", "loss.size=1e6")
    code, _, err = ctnet("train", *words, *wild, "train.loss_scale=1024", "train.overflows=3")
    assert code == 5, err
    assert "in 3 updates in a row" in err
    assert "loss_scale  1024" in err


@pytest.mark.parametrize(("word", "enabled", "static"), [
    ("auto", False, None), ("off", False, None), ("dynamic", True, None), ("64", True, 64.0),
])  # fmt: skip
def test_scaling_does_not_depend_on_the_precision(word, enabled, static):
    setting = load_recipe("demo", [f"train.loss_scale={word}"]).recipe.train.loss_scale
    precision = choose_precision("fp32", open_device("cpu"), setting)
    assert (precision.grad_scaler().is_enabled(), precision.static_scale) == (enabled, static)


@pytest.mark.parametrize("word", ["0", "-1", "1e9", "sometimes", "nan"])
def test_scales_that_are_none_are_refused(word):
    with pytest.raises(ConfigError, match=r"bad value for train\.loss_scale"):
        load_recipe("demo", [f"train.loss_scale={word}"])
