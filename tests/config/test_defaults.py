"""One default recipe for every command, settings under their older names, and precisions in both spellings."""

import json

import pytest

from ctnet.bench.subject import open_subject
from ctnet.config import DEFAULT_RECIPE, load_recipe, recipe_from_dict
from ctnet.precision import parse_precision


def test_commands_without_a_recipe_agree_on_one(ctnet, small_set, tmp_path):
    _, shown, _ = ctnet("config", "show", "--json")
    assert json.loads(shown)["recipe"]["name"] == DEFAULT_RECIPE
    assert load_recipe().recipe.name == DEFAULT_RECIPE
    assert open_subject(None, None, (64, 64)).recipe.name == DEFAULT_RECIPE
    small = ("--data", small_set, "--image-size", 64, "--json")
    quick = ("--warmup", 0, "--iterations", 1)
    code, out, err = ctnet("bench", "data", *small, *quick, "--workers", 0, "--batch-size", 2)
    assert (code, json.loads(out)["subject"]["recipe"]) == (0, DEFAULT_RECIPE), err
    code, out, err = ctnet("bench", "train", *small, *quick, "--batch-sizes", 1, "--device", "cpu")
    assert (code, json.loads(out)["subject"]["recipe"]) == (0, DEFAULT_RECIPE), err
    code, out, err = ctnet("train", *small, "--device", "cpu", "--max-steps", 1, "train.batch_size=2", "data.workers=0")
    assert (code, json.loads(out)["network"]) == (0, DEFAULT_RECIPE), err
    for command in (("train",), ("bench",)):
        assert DEFAULT_RECIPE in ctnet(*command, "--help")[1]


def test_fine_tuning_is_a_recipe_that_can_be_shown(ctnet):
    code, out, _ = ctnet("config", "show", "finetune", "--json")
    optimizer = json.loads(out)["recipe"]["optimizer"]
    assert code == 0
    assert (optimizer["name"], optimizer["lr"], optimizer["offset_lr"]) == ("adamw", 2e-3, 0.1)


def test_settings_of_earlier_versions_are_read():
    old = load_recipe("demo", ["evaluation.enlarge=1.5", "train.amp=off"]).recipe
    assert (old.evaluation.test_scale, old.train.amp) == (1.5, "fp32")
    stored = old.model_dump(mode="json")
    stored["evaluation"]["enlarge"] = stored["evaluation"].pop("test_scale")
    assert recipe_from_dict(stored, "old.safetensors") == old


@pytest.mark.parametrize("words", [("--amp", "off"), ("--precision", "off"), ("--precision", "fp32")])
def test_both_spellings_of_a_precision_are_understood(ctnet, small_set, tmp_path, words):
    small = ("--image-size", 64, "--max-steps", 1, "train.batch_size=2", "data.workers=0", "data.val_split=none")
    code, out, err = ctnet("train", "--data", small_set, *words, *small, "--device", "cpu", "--json")
    assert (code, json.loads(out)["precision"]) == (0, "float32 (as requested)"), err


def test_an_unknown_precision_names_the_known_ones(ctnet):
    code, _, err = ctnet("eval", "--weights", "absent.pt", "--precision", "fp8")
    assert code == 2
    assert "unknown precision 'fp8'" in err
    assert parse_precision("off") == "fp32"
