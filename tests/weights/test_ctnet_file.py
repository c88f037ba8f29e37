"""ctnet's weight files: what they carry, and what is refused."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file

from ctnet import __version__
from ctnet.config import CenterNetModel, Recipe
from ctnet.data.image import write_image
from ctnet.errors import StorageError, WeightsError
from ctnet.families import build_network
from ctnet.types import Category
from ctnet.weights.ctnet_file import DIGEST, Weights, read_weights, save_weights
from ctnet.weights.fit import load_for_finetuning
from ctnet.weights.opening import open_weights


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


def test_heads_that_this_version_cannot_join_are_named_with_their_writer(weights, tmp_path):
    file = tmp_path / "w.safetensors"
    heads = ("heatmap", "size", "log_size")
    save_weights(file, replace(weights, recipe=Recipe(model=CenterNetModel(heads=heads))))
    with pytest.raises(WeightsError, match="does not suit") as caught:
        read_weights(file)
    assert caught.value.facts["written_by"] == f"ctnet {__version__}"
    assert caught.value.facts["got"] == (
        "these heads do not fit together: got heatmap, size, log_size, reason 2 heads for one size: size, log_size"
    )


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


def test_fine_tuning_refuses_another_backbone():
    tensors = build_network(CenterNetModel(backbone="resnet34"), 3).state_dict()
    with pytest.raises(WeightsError, match="do not fit the network") as caught:
        load_for_finetuning(build_network(CenterNetModel(), 3), tensors, "deep.safetensors")
    assert "unexpected" in caught.value.facts


def spoiled_in(file, target, old: bytes, new: bytes):
    content = file.read_bytes()
    assert old in content
    target.write_bytes(content.replace(old, new, 1))
    return target


def test_one_wrong_byte_is_refused_unless_nobody_looks(weights, tmp_path):
    mixed = {
        "a": torch.randn(3, 4).to(memory_format=torch.contiguous_format),
        "half": torch.randn(2).half(), "brain": torch.randn(5).bfloat16(), "count": torch.tensor(7),
        "empty": torch.zeros(0, 3), "turned": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }  # fmt: skip
    file = tmp_path / "w.safetensors"
    save_weights(file, replace(weights, tensors=mixed))
    read = read_weights(file).tensors
    assert all(torch.equal(read[name].double(), tensor.double()) for name, tensor in mixed.items())
    for name in ("a", "half", "brain", "turned"):
        raw = mixed[name].contiguous().view(torch.uint8).numpy().tobytes()
        wrong = spoiled_in(file, tmp_path / "wrong.safetensors", raw, raw[:-1] + bytes([raw[-1] ^ 1]))
        with pytest.raises(WeightsError, match=r"checksum|no-verify") as error:
            read_weights(wrong)
        assert "--no-verify" in str(error.value)
        assert open_weights(wrong, verify=False).tensors[name].shape == mixed[name].shape
    renamed = spoiled_in(file, tmp_path / "wrong.safetensors", b"Tasse", b"Kasse")  # what surrounds the tensors, too
    with pytest.raises(WeightsError, match="checksum"):
        read_weights(renamed)


def test_a_file_without_a_checksum_loads(weights, tmp_path):
    file = tmp_path / "w.safetensors"
    save_weights(file, weights)
    with safe_open(file, framework="pt") as opened:
        metadata = dict(opened.metadata())
    assert len(metadata.pop(DIGEST)) == 64
    save_file(dict(weights.tensors), file, metadata=metadata)
    assert torch.equal(read_weights(file).tensors["a"], weights.tensors["a"])


def test_commands_compare_checksums_unless_asked_not_to(ctnet, weights, tmp_path):
    file = tmp_path / "w.safetensors"
    recipe = Recipe(model=CenterNetModel(head_channels=8), data={"image_size": 64})
    network = build_network(recipe.model, 2)
    save_weights(file, Weights(network.state_dict(), recipe, weights.categories))
    raw = network.state_dict()["backbone.bn1.running_var"].numpy().tobytes()
    spoiled_in(file, file, raw, raw[:-4] + torch.tensor([1.5]).numpy().tobytes())
    image = tmp_path / "a.png"
    write_image(image, np.zeros((64, 64, 3), np.uint8))
    code, _, err = ctnet("predict", image, "--weights", file, "--json")
    assert (code, "another checksum" in err, "--no-verify" in err) == (3, True, True), err
    assert ctnet("predict", image, "--weights", file, "--json", "--no-verify")[0] == 0


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
