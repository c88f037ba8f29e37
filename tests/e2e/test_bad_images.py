"""Runs on sets with images that cannot be read, or that are read where they should not be."""

import json

import pytest

import ctnet.engine.trainer
from tiny import TINY, edit, train_file, val_file

SHORT = ("--epochs", 1, "--json", *TINY)


def image(folder, json_file, number=0):
    name = json.loads(json_file(folder).read_text())["images"][number]["file_name"]
    return next((folder / "images").rglob(name.split("/")[-1]))


@pytest.fixture
def run(ctnet, small_set, tmp_path):
    return lambda *more: ctnet("train", "--data", small_set, "--out", tmp_path / "run", *SHORT, *more)


def test_bad_images_are_left_out_named_and_counted(run, small_set, tmp_path):
    cut, empty = image(small_set, train_file, 1), image(small_set, val_file, 2)
    cut.write_bytes(cut.read_bytes()[:400])
    empty.write_bytes(b"")
    code, stdout, stderr = run()
    assert code == 0, stderr
    assert stderr.count(cut.name) == stderr.count(empty.name) == 1, "one warning each"
    assert "11 images with" in " ".join(stderr.split()), stderr
    summary = json.loads(stdout)
    assert (summary["protocol"]["images"], summary["protocol"]["unreadable"]) == (5, 1)
    assert json.loads((tmp_path / "run" / "env.json").read_text())["data"]["train"]["images"] == 11


def test_bad_images_stop_a_run_that_wants_none(run, small_set):
    cut = image(small_set, train_file, 1)
    cut.write_bytes(cut.read_bytes()[:400])
    code, _, stderr = run("data.on_bad_image=error")
    assert (code, cut.name in stderr) == (3, True), stderr


def test_an_image_that_goes_bad_during_the_run_is_skipped_and_counted(run, small_set, monkeypatch):
    """The file is spoiled after the look at the headers, when the loop begins."""
    victim = image(small_set, train_file, 1)
    loop = ctnet.engine.trainer.Trainer._loop

    def spoiling(self, *arguments):
        victim.write_bytes(b"gone")
        image(small_set, val_file, 1).write_bytes(b"gone")
        return loop(self, *arguments)

    monkeypatch.setattr(ctnet.engine.trainer.Trainer, "_loop", spoiling)
    code, stdout, stderr = run()
    assert code == 0, stderr
    summary = json.loads(stdout)
    assert (summary["steps"], summary["skipped_images"], summary["protocol"]["unreadable"]) == (3, 1, 1)
    assert victim.name in "".join(stderr.split())


def test_images_without_their_last_bytes_are_used_and_named(run, small_set):
    nearly = image(small_set, train_file, 1)
    nearly.write_bytes(nearly.read_bytes()[:-12])
    code, _, stderr = run()
    assert code == 0, stderr
    assert "last bytes are missing" in " ".join(stderr.split())
    assert "12 images" in " ".join(stderr.split())


@pytest.mark.parametrize("disguise", ["same file", "copied images"])
def test_an_evaluation_on_the_training_images_is_told_and_the_last_weights_are_the_best(run, small_set, disguise):
    content = json.loads(train_file(small_set).read_text())
    for entry in content["images"]:
        source = next((small_set / "images").rglob(entry["file_name"].split("/")[-1]))
        if disguise == "copied images":
            (small_set / "images" / f"copy_{source.name}").write_bytes(source.read_bytes())
        entry["file_name"] = f"copy_{source.name}" if disguise == "copied images" else f"../train/{source.name}"
    val_file(small_set).write_text(json.dumps(content))
    code, stdout, stderr = run("train.eval_every=1")
    assert code == 0, stderr
    assert "trained on" in " ".join(stderr.split())
    summary = json.loads(stdout)
    assert (summary["protocol"]["trained_on"], summary["best_step"]) == (12, summary["steps"])


def crowds(content):
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1


def nothing(content):
    content["annotations"] = []


def outside(content):
    for annotation in content["annotations"]:
        annotation["bbox"][0] += 5000


@pytest.mark.parametrize(("spoil", "words"), [(crowds, "crowd"), (nothing, "none has a box"), (outside, "outside")])
def test_a_set_with_nothing_to_learn_is_refused_unless_the_background_is_wanted(run, small_set, spoil, words):
    edit(train_file(small_set), spoil)
    code, _, stderr = run()
    assert (code, words in stderr, "--allow-background" in " ".join(stderr.split())) == (3, True, True), stderr
    assert run("--allow-background")[0] == 0


def half(content):
    for entry in content["images"]:
        entry["width"], entry["height"] = entry["width"] * 2, entry["height"] * 2


def test_sizes_that_are_not_those_of_the_images_stop_training_and_evaluation(run, ctnet, small_set, tmp_path):
    assert run()[0] == 0
    edit(val_file(small_set), half)
    best = tmp_path / "run" / "checkpoints" / "best.safetensors"
    code, _, stderr = ctnet("eval", "--weights", best, "--data", small_set)
    assert (code, "of another size than stated" in " ".join(stderr.split())) == (3, True), stderr
    code, _, stderr = ctnet("train", "--data", small_set, *SHORT)
    assert (code, "of another size than stated" in " ".join(stderr.split())) == (3, True), stderr
