import json
import sys
import types

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from ctnet.cli.predict import predict
from ctnet.config import Recipe
from ctnet.errors import ConfigError, DataError
from ctnet.families import family_of
from ctnet.types import Category, Detections


class Whole:
    """A detector that finds the whole image as a cell, twice."""

    recipe = Recipe(name="whole")
    family = family_of(recipe)
    categories = (Category(1, "cell"), Category(2, "dust"))

    notes = ()

    def how_it_runs(self):
        return "by knowing"

    def detect(self, images_bgr, settings=None):
        return [
            Detections(
                np.array([[0, 0, image.shape[1], image.shape[0]]] * 2, np.float32),
                np.array([0.9, 0.4], np.float32),
                np.zeros(2, np.int64),
            )
            for image in images_bgr
        ]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs the command in an empty folder, its detector a stand-in."""
    module = types.ModuleType("ctnet.detect.opening")
    module.load_detector = lambda *_, **__: Whole()
    monkeypatch.setitem(sys.modules, "ctnet.detect.opening", module)
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(predict)
    return lambda *arguments: CliRunner().invoke(app, ["--weights", "best.safetensors", *map(str, arguments)])


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("[a].png", "b.jpg"):
        cv2.imwrite(str(folder / name), np.full((33, 57, 3), 128, np.uint8))
    return folder


def test_prints_a_line_an_image_and_the_folder_and_never_overwrites(run, images, tmp_path):
    first, second = run("in"), run("in")
    assert first.exit_code == second.exit_code == 0
    assert first.stdout == "in/[a].png  2 cell\nin/b.jpg    2 cell\nruns/predict/whole-1\n"
    assert second.stdout.endswith("runs/predict/whole-2\n")
    for number in (1, 2):
        written = {p.name for p in (tmp_path / f"runs/predict/whole-{number}").iterdir()}
        assert written == {"[a].png", "b.jpg", "predictions.json"}


def test_score_and_out_are_obeyed(run, images, tmp_path):
    result = run("in/b.jpg", "--score", "0.5", "--out", "found/deep", "--no-draw")
    assert result.stdout == "in/b.jpg  1 cell\nfound/deep\n"
    assert [p.name for p in (tmp_path / "found/deep").iterdir()] == ["predictions.json"]


def test_json_prints_one_document_and_writes_only_with_out(run, images, tmp_path):
    result = run("in", "--json")
    document = json.loads(result.stdout)
    assert document["schema"] == "ctnet.predict/1"
    assert [len(p["detections"]) for p in document["pictures"]] == [2, 2]
    assert {p.name for p in tmp_path.iterdir()} == {"in"}
    run("in", "--json", "--out", "found")
    assert len(list((tmp_path / "found").iterdir())) == 3


def test_a_broken_image_is_named_the_others_go_on_and_the_exit_code_tells(run, images, tmp_path):
    (images / "aa.png").write_bytes(b"broken")
    result = run("in", "--out", "found")
    assert result.exit_code == 3
    assert "in/aa.png" in result.stderr
    assert "in/aa.png" not in result.stdout
    assert len(json.loads((tmp_path / "found/predictions.json").read_text())["pictures"]) == 2


def test_a_folder_with_files_in_it_is_refused_so_that_no_source_is_overwritten(run, images):
    before = (images / "b.jpg").read_bytes()
    result = run("in", "--out", "in")
    assert isinstance(result.exception, ConfigError)
    assert (images / "b.jpg").read_bytes() == before


def test_a_source_that_is_not_there_is_an_error_before_anything_is_written(run, images, tmp_path):
    result = run("in", "nowhere.jpg")
    assert isinstance(result.exception, DataError)
    assert not (tmp_path / "runs").exists()


def test_a_long_list_is_cut_on_screen_only(run, images, tmp_path):
    for number in range(30):
        cv2.imwrite(str(images / f"c{number:02d}.png"), np.full((33, 57, 3), 128, np.uint8))
    result = run("in")
    assert result.stdout.splitlines()[-2:] == ["and 12 more in predictions.json", "runs/predict/whole-1"]
    assert len(json.loads((tmp_path / "runs/predict/whole-1/predictions.json").read_text())["pictures"]) == 32


def test_flags_are_those_of_eval(run, images, monkeypatch):
    asked = []

    def detect(self, images_bgr, settings=None):
        asked.append((settings, self.recipe.data.image_size))
        return [Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))] * len(
            images_bgr
        )

    def with_image_size(self, image_size):
        self.recipe = self.recipe.model_copy(
            update={"data": self.recipe.data.model_copy(update={"image_size": image_size})}
        )
        return self

    monkeypatch.setattr(Whole, "detect", detect)
    monkeypatch.setattr(Whole, "with_image_size", with_image_size, raising=False)
    flags = (
        "--no-flip",
        "--nms",
        "soft",
        "--scales",
        "0.5,1",
        "--keep-res",
        "--image-size",
        "64x96",
        "--batch-size",
        5,
    )
    assert run(images, "--json", *flags).exit_code == 0
    ((settings, size),) = asked
    assert (settings.flip, settings.nms, settings.scales, settings.keep_res) == (False, "soft", (0.5, 1.0), True)
    assert (settings.batch_size, size) == (5, (64, 96))


def test_what_was_found_before_an_interrupt_is_kept(run, images, tmp_path, monkeypatch):
    whole = Whole.detect

    def interrupted(self, images_bgr, settings=None):
        if images_bgr[0].shape[1] != 57:
            raise KeyboardInterrupt
        return whole(self, images_bgr, settings)

    cv2.imwrite(str(images / "c.png"), np.zeros((33, 58, 3), np.uint8))
    monkeypatch.setattr(Whole, "detect", interrupted)
    result = run(images, "--batch-size", 1, "--out", "found")
    assert result.exit_code == 130
    assert "the detections so far are in found" in result.stderr
    document = json.loads((tmp_path / "found" / "predictions.json").read_text())
    assert (document["complete"], len(document["pictures"])) == (False, 2)


def test_images_that_failed_are_listed(run, images):
    (images / "c.png").write_bytes(b"no picture")
    result = run(images, "--json")
    assert result.exit_code == 3
    (failure,) = json.loads(result.stdout)["failures"]
    assert failure == {"file": str(images / "c.png"), "error": "the file is not an image that can be decoded"}
