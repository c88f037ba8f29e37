"""`ctnet train` on real files: what a run leaves behind."""

import csv
import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch

from ctnet import load_detector
from ctnet.data.image import read_image
from ctnet.weights.ctnet_file import read_weights
from tiny import TINY, edit, train_file, val_file

README = Path(__file__).parents[2] / "README.md"


def check_page_and_card(run, data):
    page, card = (run / "index.html").read_text(), (run / "checkpoints" / "MODEL.md").read_text()
    assert page.count("<svg") == 4
    assert "finished" in page
    assert "http-equiv" not in page, "a finished run is not loaded again"
    assert 'href="eval/index.html"' in page
    assert f"split train | {data}" in card
    assert "| AP | " in card


def test_a_run_leaves_everything_behind_and_its_weights_are_enough(ctnet, small_set, tmp_path):
    out = tmp_path / "run"
    arguments = ("--data", small_set, "--epochs", 2, "--out", out, "--json", "train.eval_every=1", *TINY)
    code, stdout, stderr = ctnet("train", *arguments)
    assert code == 0, stderr
    summary = json.loads(stdout)
    assert summary["schema"] == "ctnet.train/1"
    assert (summary["steps"], summary["effective_batch"], summary["world_size"]) == (6, 4, 1)
    assert summary["images_per_s"] > 0
    assert summary["AP"] is not None
    assert json.loads((out / "summary.json").read_text()) == summary
    for name in (
        "config.yaml", "env.json", "log.jsonl", "metrics.csv", "checkpoints/last.pt", "checkpoints/best.safetensors",
        "index.html", "checkpoints/MODEL.md",
        "samples/train_batch_0.jpg", "samples/train_batch_1.jpg", "samples/val_epoch_001.jpg", "eval/index.html",
    ):  # fmt: skip
        assert (out / name).stat().st_size > 0, name
    assert list((out / "tensorboard").glob("events*"))
    assert "learning rate" in stderr
    assert "size head starts from the median box" in stderr
    assert "the effective batch is 4" in stderr
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row["loss"]) > 0 and row["AP"] != "" for row in rows)
    events = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [e["step"] for e in events if e["event"] == "step"] == [1, 2, 3, 4, 5, 6]
    assert all(e["memory_bytes"] > 0 and e["seconds_left"] >= 0 for e in events if e["event"] == "step")
    assert [*next(e for e in events if e["event"] == "evaluation")["per_class"]]
    assert json.loads((out / "env.json").read_text())["data"]["train"]["images"] == 12
    check_page_and_card(out, small_set)

    best = out / "checkpoints" / "best.safetensors"
    tested = ("--flip", "--scales", "0.5,1", "--keep-res", "--workers", 1, "--report", tmp_path / "report")
    code, stdout, stderr = ctnet("eval", "--weights", best, "--data", small_set, "--json", *tested)
    assert code == 0, stderr
    assert json.loads(stdout)["protocol"]["scales"] == [0.5, 1.0]
    assert (tmp_path / "report" / "index.html").exists()
    picture = next((small_set / "images").rglob("*.jpg"))
    example = README.read_text().split("```python\n")[1].split("```")[0]
    with redirect_stdout(StringIO()) as printed:
        for name, file in (
            ("best.safetensors", best),
            ("photo.jpg", picture),
            ("street.png", picture),
            ("person", "ring"),
        ):
            example = example.replace(f'"{name}"', f'"{file}"')
        exec(example)
    assert printed.getvalue().count("Detections(") == 2
    code, stdout, stderr = ctnet("eval", "--weights", best, "--json")
    assert code == 0, stderr
    assert json.loads(stdout)["metrics"]["AP"] == pytest.approx(summary["AP"], abs=1e-6)
    asked = ("--precision", "fp32", "--image-size", 96)
    code, stdout, stderr = ctnet("eval", "--weights", best, "--json", *asked)
    assert code == 0, stderr
    assert json.loads(stdout)["protocol"].items() >= {"precision": "float32", "image_size": [96, 96]}.items()
    code, stdout, stderr = ctnet("predict", "--weights", best, picture, "--out", tmp_path / "seen", "--score", 0)
    assert code == 0, stderr
    assert (tmp_path / "seen" / picture.name).exists()
    assert (tmp_path / "seen" / "predictions.json").exists()


def test_last_pt_is_usable_and_holds_plain_containers(ctnet, small_set, tmp_path):
    code, _, stderr = ctnet("train", "--data", small_set, "--max-steps", 1, "--out", tmp_path / "run", *TINY)
    assert code == 0, stderr
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    torch.load(last, weights_only=True)
    assert read_weights(last).info["step"] == 1
    assert load_detector(last, device="cpu").categories[0].name


def test_category_ids_and_names_survive_training_evaluation_and_prediction(ctnet, small_set, tmp_path):
    ids = {1: 3, 2: 7, 3: 90}

    def renumber(content):
        content["categories"] = [c for c in content["categories"] if c["id"] in ids]
        content["annotations"] = [a for a in content["annotations"] if a["category_id"] in ids]
        for item in content["categories"]:
            item["id"] = ids[item["id"]]
        for item in content["annotations"]:
            item["category_id"] = ids[item["category_id"]]

    for file in (train_file(small_set), val_file(small_set)):
        edit(file, renumber)
    names = {c["id"]: c["name"] for c in json.loads(train_file(small_set).read_text())["categories"]}
    assert set(names) == {3, 7, 90}
    code, _, stderr = ctnet("train", "--data", small_set, "--max-steps", 2, "--out", tmp_path / "run", *TINY)
    assert code == 0, stderr
    best = tmp_path / "run" / "checkpoints" / "best.safetensors"
    results = tmp_path / "results.json"
    assert ctnet("eval", "--weights", best, "--save-results", results)[0] == 0
    assert {row["category_id"] for row in json.loads(results.read_text())} <= {3, 7, 90}
    picture = next((small_set / "images").rglob("*.jpg"))
    code, stdout, _ = ctnet("predict", "--weights", best, picture, "--score", 0, "--json")
    assert code == 0
    found = json.loads(stdout)["pictures"][0]["detections"]
    assert found
    assert all(names[d["category_id"]] == d["category_name"] for d in found)


def test_an_epoch_of_empty_images_trains_with_a_finite_loss(ctnet, small_set, tmp_path):
    edit(train_file(small_set), lambda content: content.update(annotations=[]))
    arguments = ("--data", small_set, "--epochs", 1, "--out", tmp_path / "run", "--json", "--allow-background", *TINY)
    code, stdout, stderr = ctnet("train", *arguments)
    assert code == 0, stderr
    assert "train of 12 images: none has a box" in stderr
    assert 0 < json.loads(stdout)["loss"] < float("inf")


def test_accumulated_micro_steps_make_one_update(ctnet, small_set, tmp_path):
    tiny = [setting.replace("batch_size=4", "batch_size=2") for setting in TINY]
    arguments = ("--data", small_set, "--epochs", 1, "--out", tmp_path / "run", "--json", *tiny)
    code, stdout, stderr = ctnet("train", *arguments, "train.accumulate=4")
    assert code == 0, stderr
    summary = json.loads(stdout)
    # six micro-batches: one update of four, one of the two that are left
    assert (summary["steps"], summary["effective_batch"]) == (2, 8)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_reduced_precision_trains(ctnet, small_set, tmp_path, amp):
    arguments = ("--data", small_set, "--max-steps", 2, "--amp", amp, "--out", tmp_path / "run", "--json", *TINY)
    code, stdout, stderr = ctnet("train", *arguments)
    assert code == 0, stderr
    summary = json.loads(stdout)
    assert 0 < summary["loss"] < 100
    assert ("bfloat16" if amp == "bf16" else "float16") in summary["precision"]


HOURGLASS = (
    "model.backbone=hourglass104", "model.head_channels=16", "data.image_size=128", "data.workers=0",
    "train.batch_size=2", "augment.photometric=0",
)  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param((*TINY, "model.neck=conv", "loss.targets=mmdet", "evaluation.keep_res=true"), id="mmdet"),
        pytest.param(
            (*TINY, "model.backbone=dla34", "model.neck=plain", "model.neck_channels=[256,128,64]"), id="dlav0"
        ),
        pytest.param(HOURGLASS, id="hourglass", marks=pytest.mark.slow),
    ],
)
def test_other_architectures_train(ctnet, small_set, tmp_path, settings):
    out = tmp_path / "run"
    code, stdout, stderr = ctnet("train", "--data", small_set, "--out", out, "--max-steps", 2, "--json", *settings)
    assert code == 0, stderr
    assert 0 < json.loads(stdout)["loss"] < 1000
    picture = read_image(next((small_set / "images" / "val").iterdir()))
    [found] = load_detector(out / "checkpoints" / "best.safetensors", device="cpu").detect([picture])
    assert len(found) > 0


def test_the_rules_of_the_targets_reach_the_loss(ctnet, small_set, tmp_path):
    losses = {}
    for rules in ("centernet", "mmdet"):
        arguments = ("--out", tmp_path / rules, "--max-steps", 1, "--json", f"loss.targets={rules}", "train.amp=off")
        code, _, stderr = ctnet("train", "--data", small_set, *arguments, *TINY)
        assert code == 0, stderr
        log = (tmp_path / rules / "log.jsonl").read_text().splitlines()
        losses[rules] = next(e for e in map(json.loads, log) if e["event"] == "step")
    # the same images and weights, bit for bit
    for part in ("heatmap", "size", "offset"):
        assert abs(losses["mmdet"][part] - losses["centernet"][part]) > 1e-4


def test_training_opens_no_connection(ctnet, small_set, tmp_path, monkeypatch):
    def refuse(self, address):
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr("socket.socket.connect", refuse)
    tiny = [setting.replace("photometric=0", "photometric=0.4") for setting in TINY]
    code, _, stderr = ctnet("train", "--data", small_set, "--max-steps", 1, "--out", tmp_path / "run", *tiny)
    assert code == 0, stderr


def test_more_objects_than_the_cap_is_said(ctnet, small_set, tmp_path):
    arguments = ("--data", small_set, "--max-steps", 1, "--out", tmp_path / "run", *TINY, "data.max_objects=1")
    code, _, stderr = ctnet("train", *arguments)
    assert code == 0, stderr
    assert "more than 1 objects" in stderr


def test_profile_writes_a_trace(ctnet, small_set, tmp_path):
    arguments = ("--data", small_set, "--max-steps", 9, "--profile", "--out", tmp_path / "run", *TINY)
    code, _, stderr = ctnet("train", *arguments)
    assert code == 0, stderr
    trace = json.loads((tmp_path / "run" / "profile" / "trace.json").read_text())
    assert any("deform_conv2d" in str(event.get("name")) for event in trace["traceEvents"])
    assert "trace.json" in stderr


def test_training_without_a_validation_split_keeps_the_last_weights(ctnet, small_set, tmp_path):
    val_file(small_set).unlink()
    arguments = ("--data", small_set, "--max-steps", 1, "--out", tmp_path / "run", "--json", *TINY)
    code, stdout, stderr = ctnet("train", *arguments)
    assert code == 0, stderr
    assert "no evaluation while training" in stderr
    assert json.loads(stdout)["AP"] is None
    assert (tmp_path / "run" / "checkpoints" / "best.safetensors").exists()


def test_a_class_of_val_that_train_lacks_is_a_warning(ctnet, small_set, tmp_path):
    def drop_first(content):
        first = content["categories"].pop(0)["id"]
        content["annotations"] = [a for a in content["annotations"] if a["category_id"] != first]

    missing = json.loads(val_file(small_set).read_text())["categories"][0]["name"]
    edit(train_file(small_set), drop_first)
    code, _, stderr = ctnet("train", "--data", small_set, "--max-steps", 1, "--out", tmp_path / "run", *TINY)
    assert code == 0, stderr
    assert f"does not know {missing}" in stderr.replace("'", "")


@pytest.mark.parametrize(("amp", "precision"), [("off", "float32"), ("bf16", "bfloat16")])
def test_weights_are_scored_in_the_precision_that_was_asked_for(ctnet, small_set, tmp_path, amp, precision):
    code, stdout, stderr = ctnet(
        "train", "--data", small_set, "--max-steps", 1, "--out", tmp_path / "run", "--amp", amp, "--json", *TINY
    )
    assert code == 0, stderr
    summary = json.loads(stdout)
    assert (summary["precision"].split()[0], summary["protocol"]["precision"]) == (precision, precision)


def test_deployable_weights_can_be_read_by_whom_the_rest_can(ctnet, small_set, tmp_path):
    out = tmp_path / "run"
    assert ctnet("train", "--data", small_set, "--max-steps", 1, "--out", out, *TINY)[0] == 0
    modes = {(out / "checkpoints" / name).stat().st_mode for name in ("best.safetensors", "last.pt")}
    assert len(modes) == 1


def test_without_an_annotated_image_there_is_no_ap(ctnet, small_set, tmp_path):
    edit(val_file(small_set), lambda content: content["annotations"].clear())
    arguments = ("train", "--data", small_set, "--max-steps", 1, *TINY)
    code, stdout, stderr = ctnet(*arguments, "--out", tmp_path / "a")
    assert (code, "AP - at step 1" in stdout) == (0, True), stdout + stderr
