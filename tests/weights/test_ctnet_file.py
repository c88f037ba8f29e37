"""ctnet's weight files: what they carry, and what is refused."""

import json
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file

from ctnet.config import CenterNetModel, Recipe
from ctnet.errors import StorageError, WeightsError
from ctnet.families import build_network
from ctnet.types import Category
from ctnet.weights.ctnet_file import Weights, read_weights, save_weights
from ctnet.weights.fit import load_for_finetuning


@pytest.fixture
def weights() -> Weights:
    return Weights(
        {"a": torch.arange(6.0).view(2, 3)},
        Recipe(seed=5),
        (Category(3, "cup"), Category(90, "Tasse ü")),
        {"AP": 0.25},
    )


def test_round_trip(weights, tmp_path):
    file = tmp_path / "folder" / "w.safetensors"
    save_weights(file, weights)
    back = read_weights(file)
    assert torch.equal(back.tensors["a"], weights.tensors["a"])
    assert (back.recipe, back.categories, back.info) == (weights.recipe, weights.categories, weights.info)


class _Bomb:
    def __reduce__(self):
        import os

        return os.system, ("touch exploded",)


def test_broken_and_foreign_files_are_refused_and_nothing_runs(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = tmp_path / "whole.safetensors"
    save_weights(whole, weights)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign, metadata={"format": "pt"})
    newer = tmp_path / "newer.safetensors"
    save_file(
        {"a": torch.zeros(1)},
        newer,
        metadata={"ctnet": json.dumps({"schema": "ctnet.weights/1", "recipe": {"new_key": 1}, "categories": []})},
    )
    files = {
        "cut.safetensors": whole.read_bytes()[:200],
        "text.pth": b"hello, I am not a network at all",
        "empty.pt": b"",
        "pickle.pt": pickle.dumps(_Bomb()),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    torch.save(_Bomb(), tmp_path / "bomb.pt")
    torch.save({"model": {}}, tmp_path / "other.pt")
    for name in (*files, "bomb.pt", "other.pt", "foreign.safetensors", "newer.safetensors", "missing.pt"):
        with pytest.raises(WeightsError) as caught:
            read_weights(tmp_path / name)
        assert name in str(caught.value)
        assert caught.value.exit_code == 3
    with pytest.raises(WeightsError):
        read_weights(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_a_disk_that_refuses_leaves_the_old_file(weights, tmp_path, monkeypatch):
    file = tmp_path / "w.safetensors"
    save_weights(file, weights)
    before = file.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ctnet.weights.ctnet_file.save", full)
    with pytest.raises(StorageError, match="cannot write") as caught:
        save_weights(file, weights)
    assert "No space left" in str(caught.value)
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


def test_other_classes_start_afresh_by_name():
    old, new = build_network(CenterNetModel(), 3), build_network(CenterNetModel(), 5)
    report = load_for_finetuning(new, old.state_dict(), "old")
    assert report.other_shape == (
        "heads.heatmap_logits.2.weight (3, 64, 1, 1) -> (5, 64, 1, 1)",
        "heads.heatmap_logits.2.bias (3,) -> (5,)",
    )
    assert "heads.heatmap_logits.2.bias" in report.sentence()
    assert torch.equal(new.backbone.conv1.weight, old.backbone.conv1.weight)
    assert len(report.loaded) == len(old.state_dict()) - 2


def test_fine_tuning_refuses_another_trunk():
    tensors = build_network(CenterNetModel(backbone="resnet34"), 3).state_dict()
    with pytest.raises(WeightsError, match="do not fit the network") as caught:
        load_for_finetuning(build_network(CenterNetModel(), 3), tensors, "deep.safetensors")
    assert "unexpected" in caught.value.facts


def rewritten(path, change):
    """Rewrite what a file of weights says about itself."""
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["ctnet"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(about)
    path.write_bytes(save(tensors, metadata={"ctnet": json.dumps(about)}))


def newer(about):
    about.update(schema="ctnet.weights/7", ctnet="9.1.0")


def of_another_family(about):
    about["recipe"]["model"] = {"family": "transformer", "layers": 6}
    about["ctnet"] = "9.1.0"


def with_another_head(about):
    about["recipe"]["model"]["heads"] = ["heatmap", "size", "velocity"]
    about["ctnet"] = "9.1.0"


@pytest.mark.parametrize("change", [newer, of_another_family, with_another_head])
def test_weights_that_this_version_does_not_know_say_which_version_wrote_them(change, ctnet, tmp_path):
    path = tmp_path / "later.safetensors"
    recipe = Recipe()
    save_weights(path, Weights(build_network(recipe.model, 1).state_dict(), recipe, (Category(1, "cup"),)))
    rewritten(path, change)
    for command in (("weights", "inspect", path), ("eval", "--weights", path), ("export", "pt2", "--weights", path)):
        code, _, err = ctnet(*command)
        assert code == 3, err
        assert "9.1.0" in err
        assert "Traceback" not in err
