import json
import sys
import types

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from ctnet.cli.eval import evaluate_command
from ctnet.config import Recipe
from ctnet.data.dataset import open_dataset
from ctnet.data.demo import write_demo
from ctnet.errors import ConfigError, DataError, StorageError
from ctnet.types import Category, Detections


class Oracle:
    """Stands in for a detector that knows every answer; `recipe` is the one it was last asked with."""

    precision = "float32"

    def __init__(self, recipe, categories):
        self.recipe, self.categories = recipe, categories

    notes = ()

    def how_it_runs(self):
        return "by knowing"

    def with_image_size(self, image_size):
        data = self.recipe.data.model_copy(update={"image_size": image_size})
        return Oracle(self.recipe.model_copy(update={"data": data}), self.categories)


def find_all(detector, annotation_set):
    label_of = {category.name: label for label, category in enumerate(detector.categories)}
    detections = {}
    for image in annotation_set.images:
        labels = [label_of.get(annotation_set.categories[label].name, -1) for label in image.labels]
        known = np.array(labels, np.int64) >= 0
        scores = np.linspace(0.9, 0.5, int(known.sum()), dtype=np.float32)
        detections[image.id] = Detections(image.boxes_xyxy[known], scores, np.array(labels, np.int64)[known])
    return detections


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return write_demo(tmp_path_factory.mktemp("demo"), images_train=1, images_val=5, size=(96, 160))


@pytest.fixture
def run(demo, monkeypatch):
    """Return a function that runs the command on an oracle; `run.asked` is what evaluate was called with."""
    names = [category.name for category in open_dataset(demo, "val").categories]
    # Another order and other ids than the data set's.
    run_categories = [Category(90 + i, name) for i, name in enumerate(reversed(names))]
    app = typer.Typer()
    app.command()(evaluate_command)

    def evaluate(detector, annotation_set, settings, workers=0, progress=None, rank=0, ranks=1):
        run.asked = (detector.recipe.data.image_size, settings)
        progress(len(annotation_set.images), len(annotation_set.images))
        return find_all(detector, annotation_set)

    def run(*arguments, categories=tuple(run_categories), **recipe):
        content = {"name": "oracle", "data": {"path": str(demo)}, **recipe}
        detectors.load_detector = lambda *_, **__: Oracle(Recipe.model_validate(content), categories)
        return CliRunner().invoke(app, ["--weights", "best.safetensors", *map(str, arguments)])

    detectors = types.ModuleType("ctnet.detect.opening")
    monkeypatch.setitem(sys.modules, "ctnet.detect.opening", detectors)
    monkeypatch.setattr("ctnet.eval.evaluate.evaluate", evaluate)
    run.categories = tuple(run_categories)
    return run


def test_json_is_one_document_with_metrics_of_zero_to_one(run, demo):
    result = run("--json")
    assert result.exit_code == 0, result.exception
    document = json.loads(result.stdout)
    assert document["schema"] == "ctnet.eval/1"
    assert document["weights"] == "best.safetensors"
    assert document["metrics"]["AP"] == pytest.approx(1)
    assert document["data"]["split"] == "val"
    assert document["data"]["images"] == 5
    assert document["protocol"]
    measured = [row["AP"] for row in document["per_class"].values() if row["count"]]
    assert measured == pytest.approx([1] * len(measured))


def test_the_table_shows_the_twelve_numbers_times_100_and_every_class(run):
    lines = run().stdout.splitlines()
    numbers = dict(zip(lines[3].split(), lines[5].split(), strict=True))
    assert (list(numbers), numbers["AP"]) == (["AP", "AP50", "AP75", "APs", "APm", "APl"], "100.0")
    for name in ("AR100", "disc", "square", "triangle", "star", "ring", "cross"):
        assert any(name in line for line in lines)


def test_only_what_was_given_overrides_the_settings_of_the_weights(run):
    run(evaluation={"flip": True, "keep_res": True, "top_k": 70})
    size, settings = run.asked
    assert (settings.flip, settings.keep_res, settings.top_k, settings.nms) == (True, True, 70, "none")
    run(
        "--no-flip",
        "--fixed-res",
        "--batch-size",
        3,
        "--nms",
        "hard",
        evaluation={"flip": True, "keep_res": True},
    )
    _, settings = run.asked
    assert (settings.flip, settings.keep_res, settings.batch_size, settings.nms) == (False, False, 3, "hard")
    assert size == (512, 512)


def test_several_scales_are_merged_by_soft_nms_and_the_protocol_says_so(run):
    document = json.loads(run("--scales", "0.5,1,1.5", "--json").stdout)
    assert run.asked[1].scales == (0.5, 1.0, 1.5)
    assert (document["protocol"]["scales"], document["protocol"]["nms"]) == ([0.5, 1.0, 1.5], "soft")


@pytest.mark.parametrize(("text", "size"), [("384", (384, 384)), ("384x640", (384, 640))])
def test_image_size_is_one_number_or_height_and_width(run, text, size):
    run("--image-size", text)
    assert run.asked[0] == size


@pytest.mark.parametrize(
    ("flag", "value", "key"),
    [
        ("--image-size", "16", "evaluation.image_size"),
        ("--image-size", "64x64x64", "an image size is N or HEIGHTxWIDTH"),
        ("--scales", "1,big", "evaluation.scales"),
        ("--scales", "0", "evaluation.scales"),
        ("--batch-size", "0", "evaluation.batch_size"),
    ],
)
def test_a_bad_value_is_an_error_that_names_it(run, flag, value, key):
    result = run(flag, value)
    assert isinstance(result.exception, ConfigError)
    assert key in result.exception.message


def test_a_missing_class_is_a_warning_on_stderr_and_in_the_document(run):
    result = run("--json", categories=run.categories[1:])
    missing = run.categories[0].name
    (warning,) = [w for w in json.loads(result.stdout)["warnings"] if "does not know" in w]
    assert missing in warning
    assert f"warning: {warning}" in result.stderr


def test_results_and_report_are_written(run, tmp_path):
    result = run("--save-results", tmp_path / "results.json", "--report", tmp_path / "report", "--json")
    assert json.loads(result.stdout) == json.loads((tmp_path / "report/metrics.json").read_text())
    assert (tmp_path / "report/index.html").is_file()
    rows = json.loads((tmp_path / "results.json").read_text())
    assert {row["category_id"] for row in rows} <= {1, 2, 3, 5, 8, 13}
    assert len(rows) == json.loads(result.stdout)["data"]["boxes"]


def test_a_split_that_is_not_there_is_an_error(run):
    assert isinstance(run("--split", "nowhere").exception, DataError)


@pytest.mark.parametrize("flags", [("--save-results", "afile/x.json"), ("--report", "afile"), ("--save-results", ".")])
def test_a_place_that_cannot_be_written_is_told_before_the_work(run, tmp_path, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "afile").write_text("kept")
    result = run(*flags)
    assert isinstance(result.exception, (StorageError, ConfigError)), result.exception
    assert not hasattr(run, "asked")
    assert (tmp_path / "afile").read_text() == "kept"
