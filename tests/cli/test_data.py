import json

import numpy as np
import pytest
from typer.testing import CliRunner

from ctnet.cli.data import app
from ctnet.data.dataset import open_dataset
from ctnet.data.demo import write_demo
from ctnet.data.image import read_image, write_image
from ctnet.errors import CtnetError


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return write_demo(tmp_path_factory.mktemp("cli") / "demo", 6, 3)


@pytest.fixture
def broken(tmp_path):
    folder = write_demo(tmp_path / "broken", 3, 2)
    path = folder / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"] = [1, 2, 0, 0]
    path.write_text(json.dumps(content))
    return folder


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_check_of_sound_data_ends_with_0_and_a_table(demo):
    result = run("check", demo)
    assert result.exit_code == 0
    assert "6 images" in result.stdout
    assert "disc" in result.stdout
    assert "0 errors" in result.stdout


def test_check_of_broken_data_ends_with_3_and_names_it(broken):
    result = run("check", broken)
    assert result.exit_code == 3
    assert "box-empty" in result.stdout
    assert "1 error," in result.stdout


def test_check_prints_one_json_document(broken):
    result = run("check", broken, "--json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert document["schema"] == "ctnet.data.check/1"
    assert document["findings"][0]["code"] == "box-empty"
    assert result.stderr == ""


def test_check_without_images_overlooks_a_broken_one(broken):
    image = broken / "images" / "val" / "val_00000.jpg"
    height, width = read_image(image).shape[:2]
    write_image(broken / "a.png", np.zeros((height, width, 3), np.uint8))
    whole = (broken / "a.png").read_bytes()
    pixels = whole.index(b"IDAT") + 4
    image.write_bytes(whole[:pixels] + b"\xff" * 9 + whole[pixels + 9 :])  # whole by its header and its end
    codes = [
        {finding["code"] for finding in json.loads(run("check", broken, "--json", *more).stdout)["findings"]}
        for more in ([], ["--no-images"])
    ]
    assert codes[0] - codes[1] == {"image-unreadable"}, codes


def test_image_size_moves_the_limits(tmp_path):
    demo = write_demo(tmp_path / "small", 3, 2)
    path = demo / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"] = [5, 5, 20, 17]
    path.write_text(json.dumps(content))
    small = json.loads(run("check", demo, "--json", "--image-size", 32).stdout)
    assert "box-tiny" in {finding["code"] for finding in small["findings"]}
    assert small["counts"]["warning"] > json.loads(run("check", demo, "--json").stdout)["counts"]["warning"]


def test_fix_writes_a_repaired_copy_and_says_what_it_did(broken):
    source, repaired = broken / "annotations" / "instances_train.json", broken / "annotations" / "repaired.json"
    result = run("check", source, "--fix", repaired)
    assert result.exit_code == 3
    assert "1 boxes dropped, without width or height" in result.stdout.replace("\n", " ")
    assert run("check", repaired).exit_code == 0
    again = repaired.with_name("again.json")
    document = json.loads(run("check", source, "--fix", again, "--json").stdout)
    assert document["fixed"] == {"file": str(again), "done": ["1 boxes dropped, without width or height"], "left": []}
    refused = run("check", source, "--fix", repaired)
    assert "box-empty" in " ".join(refused.stdout.split())  # what was found is told all the same
    assert refused.exception.exit_code == 2


def test_convert_writes_a_folder_that_opens(demo, tmp_path):
    result = run("convert", demo, "--out", tmp_path / "copy", "--link")
    assert result.exit_code == 0
    assert "train, 6 images" in result.stdout
    assert open_dataset(tmp_path / "copy", "train").num_boxes == open_dataset(demo, "train").num_boxes


def test_view_writes_a_sheet_and_prints_its_name(demo, tmp_path):
    out = tmp_path / "sheet.png"
    result = run("view", demo, "--split", "val", "--out", out, "--count", 2)
    assert result.exit_code == 0
    assert result.stdout.strip() == str(out)
    assert read_image(out).shape[1] > 600


def test_view_names_its_image_after_the_split(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("view", demo).stdout.strip() == "view_train.png"
    assert (tmp_path / "view_train.png").is_file()


def test_demo_draws_the_counts_that_are_asked_for(tmp_path):
    result = run("demo", "--out", tmp_path / "d", "--images-train", 2, "--images-val", 1, "--seed", 4)
    assert result.stdout.strip() == str(tmp_path / "d")
    assert len(open_dataset(tmp_path / "d", "train").images) == 2


def test_demo_without_a_folder_is_the_cached_one(tmp_path, monkeypatch):
    monkeypatch.setenv("CTNET_HOME", str(tmp_path))
    write_demo(tmp_path / "demo-v2", 1, 1)
    assert run("demo").stdout.strip() == str(tmp_path / "demo-v2")


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["check", "nowhere"], 3),
        (["view", "DEMO", "--split", "tset"], 3),
        (["convert", "DEMO", "--out", "DEMO"], 2),
        (["convert", "DEMO", "--out", "new", "--from", "voc"], 3),
        (["demo", "--seed", "3"], 2),
        (["demo", "--out", "DEMO"], 2),
        (["check", "DEMO", "--fix", "x.json"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_mistakes_carry_their_exit_code(demo, tmp_path, monkeypatch, arguments, exit_code):
    monkeypatch.chdir(tmp_path)
    result = run(*[demo if argument == "DEMO" else argument for argument in arguments])
    assert isinstance(result.exception, CtnetError)
    assert result.exception.exit_code == exit_code
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["check", "convert", "view", "demo"])
def test_help_has_an_example(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"ctnet data {command}" in result.stdout


@pytest.mark.parametrize(("kind", "joints", "points"), [("--faces", (), 5), ("--pose", ("--joints", 8), 8)])
def test_demo_sets_with_key_points_are_drawn_and_viewed(ctnet, tmp_path, kind, joints, points):
    out = tmp_path / "set"
    code, _, err = ctnet("data", "demo", kind, *joints, "--out", out, "--images-train", 2, "--images-val", 1)
    assert code == 0, err
    content = json.loads((out / "annotations" / "instances_train.json").read_text())
    assert len(content["categories"][0]["keypoints"]) == points
    code, _, err = ctnet("data", "view", out, "--out", tmp_path / "sheet.png", "--count", 2)
    assert code == 0, err
    code, _, err = ctnet("data", "check", out)
    assert code == 0, err


@pytest.mark.parametrize("arguments", [("--faces", "--pose"), ("--joints", 9, "--out", "x"), ("--pose", "--joints", 9)])
def test_demo_options_that_do_not_fit_are_named(ctnet, arguments):
    code, _, err = ctnet("data", "demo", *arguments)
    assert code == 2
    assert "demo set" in err
