"""`ctnet config` and the ways out of the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def test_list_show_and_validate(ctnet, tmp_path):
    lines = ctnet("config", "list")[1].splitlines()
    document = json.loads(ctnet("config", "list", "--json")[1])
    assert "centernet_resdcn18" in document["recipes"]
    assert [line.split(maxsplit=1) for line in lines] == [[name, title] for name, title in document["titles"].items()]
    assert document["titles"]["centernet_resdcn34"] == "CenterNet, ResNet-34 with deformable up-sampling"
    code, out, _ = ctnet("config", "show", "optimizer.lr=0.5", "--json")
    shown = json.loads(out)
    assert code == 0
    assert shown["recipe"]["optimizer"]["lr"] == 0.5
    assert shown["sources"]["optimizer.lr"] == "command line"
    assert "optimizer.lr" in ctnet("config", "show")[1]
    file = tmp_path / "mine.yaml"
    file.write_text("schedule: {epochs: many}\n")
    code, _, err = ctnet("config", "validate", file)
    assert code == 2
    assert "schedule.epochs" in err
    assert str(file) in "".join(err.split())


def test_settings_are_explained(ctnet):
    code, out, _ = ctnet("config", "explain", "augment.crop")
    assert code == 0
    assert out.splitlines()[0] == "augment.crop"
    assert "values   random, inside, shift, " in out
    assert ctnet("config", "explain", "crop")[1] == out
    document = json.loads(ctnet("config", "explain", "--json")[1])
    explained = {one["key"]: one for one in document["settings"]}
    shown = json.loads(ctnet("config", "show", "--json")[1])
    assert set(shown["sources"]) <= set(explained)
    assert all(one["meaning"] and one["values"] for one in explained.values())
    code, _, err = ctnet("config", "explain", "optimizer.rate")
    assert (code, "nearest  optimizer." in err) == (2, True)
    assert "nearest  augment.crop" in ctnet("config", "explain", "cropp")[2]


def test_a_recipe_shown_as_yaml_is_a_recipe(ctnet, tmp_path):
    file = tmp_path / "whole.yaml"
    file.write_text(ctnet("config", "show", "centernet_dla34", "optimizer.lr=0.125", "--yaml")[1])
    shown = [json.loads(ctnet("config", "show", *words, "--json")[1])["recipe"]
             for words in (("centernet_dla34", "optimizer.lr=0.125"), (file,))]  # fmt: skip
    assert shown[0] == shown[1]


def test_no_key_is_cut_on_a_narrow_terminal(ctnet, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    out = ctnet("config", "show", "demo")[1]
    assert all(key in out for key in json.loads(ctnet("config", "show", "demo", "--json")[1])["sources"])


@pytest.mark.parametrize("command", ["show", "validate"])
@pytest.mark.parametrize(
    ("heads", "reason"),
    [
        ("heatmap,sise", "nearest  size"),
        ("heatmap", "no size: a box needs one"),
        ("heatmap,size,log_size", "2 heads for one size: size, log_size"),
    ],
)
def test_heads_that_do_not_fit_together_are_named(command, heads, reason, ctnet):
    code, out, err = ctnet("config", command, f"model.heads=[{heads}]")
    assert (code, out, reason in err) == (2, "", True)


def test_version_and_module_form():
    done = subprocess.run([sys.executable, "-m", "ctnet", "--version"], capture_output=True, text=True, check=True)
    from ctnet import __version__

    assert done.stdout.strip() == __version__


def test_a_bug_shows_its_traceback_and_asks_for_a_report(ctnet, monkeypatch):
    def broken() -> list:
        raise RuntimeError("cogs")

    monkeypatch.setattr("ctnet.config.recipe_titles", broken)
    code, _, err = ctnet("config", "list")
    assert code == 1
    assert "Traceback" in err
    assert "report" in err


def test_ctrl_c_has_its_exit_code(ctnet, monkeypatch):
    def interrupted() -> list:
        raise KeyboardInterrupt

    monkeypatch.setattr("ctnet.config.recipe_titles", interrupted)
    assert ctnet("config", "list")[0] == 130


@pytest.mark.parametrize("words", [("list",), ("show",), ("show", "--json")])
def test_a_reader_that_has_seen_enough_is_no_error(words):
    with subprocess.Popen(
        [sys.executable, "-m", "ctnet", "config", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 0)


def test_values_that_look_like_markup_are_shown(ctnet):
    code, out, err = ctnet("config", "show", "data.path=/x/[/a]")
    assert (code, "/x/[/a]" in out) == (0, True), err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_behind_the_output_has_its_exit_code():
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ctnet", "config", "show"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, b"no space left" in done.stderr, b"Traceback" in done.stderr) == (4, True, False)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("train", "{folder}"), "--data {folder} takes a data set"),
        (("train", "best.pth"), "--weights best.pth starts from these weights"),
        (("train", "--data", "x", "optimizer.lr", "0.1"), "settings are written as optimizer.lr=VALUE"),
        (("train", "--image-size", "500"), "480 or 512 (a multiple of 32)"),
        (("train", "schedule.epochs=many"), "expected  a valid integer"),
        (("predict", "--threshold", "0.3", "a.jpg"), "--score"),
        (("predict", "--batch", "4", "a.jpg"), "--batch-size"),
        (("eval", "best.safetensors"), "--weights best.safetensors"),
        (("export", "onnx", "best.safetensors"), "--weights best.safetensors"),
    ],
)
def test_mistakes_of_the_first_day_are_answered_with_what_was_meant(words, hint, tmp_path):
    words, hint = [word.format(folder=tmp_path) for word in words], hint.format(folder=tmp_path)
    done = subprocess.run([sys.executable, "-m", "ctnet", *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert hint.replace(" ", "") in "".join(done.stderr.replace("│", "").split())
