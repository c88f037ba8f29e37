"""ctnet's own weights with forged descriptions, in other types, and names from files that would become paths."""

import json
import time
import zipfile

import pytest
import torch
from safetensors.torch import save_file

import forged
from ctnet.config import load_recipe
from ctnet.detect.opening import load_detector
from ctnet.errors import CtnetError, WeightsError
from ctnet.families import build_network
from ctnet.files import new_numbered_folder, path_component
from ctnet.types import Category
from ctnet.weights.ctnet_file import Weights, read_weights, save_weights


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A small detector's file."""
    overrides = ["data.image_size=64", "model.neck_channels=[16,16,16]", "model.head_channels=0"]
    recipe = load_recipe("centernet_mobilenetv2", overrides).recipe
    torch.manual_seed(0)
    network = build_network(recipe.model, 2)
    file = tmp_path_factory.mktemp("sound") / "net.safetensors"
    save_weights(file, Weights(network.state_dict(), recipe, (Category(1, "cup"), Category(7, "fork"))))
    return file


def test_every_forged_description_is_refused_with_file_and_key(sound, tmp_path):
    started = time.perf_counter()
    for what, file in forged.forged_weights(sound, tmp_path):
        with pytest.raises(WeightsError) as caught:
            read_weights(file)
        text = str(caught.value)
        assert (caught.value.exit_code, file.name in text) == (3, True), what
        assert len(text) < 1500, what
        changed = forged.METADATA.get(what, {what.removeprefix("without "): None} if "without" in what else {})
        assert all(key.split(".")[-1] in text or "schema" in key for key in changed), (what, text)
    assert time.perf_counter() - started < 60


def test_a_newer_version_is_named(sound, tmp_path):
    about = forged.forged_about(forged.read_about(sound), {"schema": "ctnet.weights/2", "ctnet": "99.1"})
    with pytest.raises(WeightsError, match="another version") as caught:
        read_weights(forged.forge_weights(sound, tmp_path / "newer.safetensors", about))
    assert "99.1" in str(caught.value)


@pytest.mark.parametrize("command", ["predict", "train"])
def test_a_name_in_weights_never_leads_out_of_the_folder(command, sound, ctnet, small_set, tmp_path, monkeypatch):
    inside = tmp_path / "a" / "b" / "c"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    before = sorted(tmp_path.rglob("*"))
    about = forged.forged_about(forged.read_about(sound), {"recipe.name": "../../../outside"})
    forgery = forged.forge_weights(sound, tmp_path / "a" / "w.safetensors", about)
    words = {"predict": [small_set / "images" / "val"], "train": ["--data", small_set, "train.max_steps=1"]}[command]
    code, _, err = ctnet(command, *words, "--weights", forgery)
    assert (code, "recipe" in err) == (3, True), err
    assert sorted(tmp_path.rglob("*")) == sorted([*before, forgery])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_in_other_types_run(dtype, sound, tmp_path):
    weights = read_weights(sound)
    other = {name: t.to(dtype) if t.is_floating_point() else t for name, t in weights.tensors.items()}
    file = tmp_path / "other.safetensors"
    save_weights(file, Weights(other, weights.recipe, weights.categories))
    detector = load_detector(file, "cpu", "fp32")
    assert detector.notes == (f"{str(dtype).removeprefix('torch.')} became float32",)
    picture = torch.randint(0, 255, (64, 64, 3), dtype=torch.uint8).numpy()
    found, expected = (d.detect([picture])[0] for d in (detector, load_detector(sound, "cpu", "fp32")))
    torch.testing.assert_close(
        torch.from_numpy(found.scores), torch.from_numpy(expected.scores), atol=0.05, rtol=0
    )  # fmt: skip


def test_weights_of_integers_and_complex_numbers_are_refused(sound, tmp_path):
    weights = read_weights(sound)
    name = next(name for name, t in weights.tensors.items() if t.dim() == 4)
    for tensor in (weights.tensors[name].long(), torch.complex(weights.tensors[name], weights.tensors[name])):
        file = tmp_path / "odd.safetensors"
        save_weights(file, Weights({**weights.tensors, name: tensor}, weights.recipe, weights.categories))
        with pytest.raises(WeightsError) as caught:
            load_detector(file, "cpu")
        assert name in str(caught.value)


def test_a_description_that_convert_carries_is_checked_too(sound, ctnet, tmp_path):
    torch.manual_seed(0)
    recipe = load_recipe("centernet_res18", ["data.image_size=64"]).recipe
    file = tmp_path / "res.safetensors"
    save_weights(
        file, Weights(build_network(recipe.model, 2).state_dict(), recipe, (Category(0, "a"), Category(1, "b")))
    )
    code, _, err = ctnet("weights", "convert", file, "--to", "centernet", "--out", tmp_path / "res.pth")
    assert code == 0, err
    content = torch.load(tmp_path / "res.pth", weights_only=True)
    for key, value in (("categories", [[1, None]]), ("recipe", None), ("recipe", {"name": "../x"})):
        torch.save({**content, "ctnet": {**content["ctnet"], key: value}}, tmp_path / "forged.pth")
        code, _, err = ctnet("weights", "inspect", tmp_path / "forged.pth")
        assert (code, key in err) == (3, True), err


def test_names_of_files_and_folders(tmp_path):
    for name in ("a", "my run 3", "Läufe", "a.b", "...", "centernet_res18"):
        assert path_component(name) == name
    for name in ("", ".", "..", "a/b", "../a", "/a", "a\\b", "a\0", "a\nb", "\x1b[31m", "é" * 101):
        with pytest.raises(ValueError, match="name"):
            path_component(name)
    assert new_numbered_folder(tmp_path / "runs", "a") == tmp_path / "runs" / "a-1"


@pytest.mark.parametrize("name", ["../../out", "/abs", "a/b", "..", 'a\\0b"', "a\\\\b"])
def test_splits_of_a_yaml_never_lead_out_of_the_folder(name, ctnet, small_set, tmp_path):
    entry = f"{{annotations: {small_set}/annotations/instances_val.json, images: {small_set}/images/val}}"
    (tmp_path / "data.yaml").write_text(f'"{name.strip(chr(34))}": {entry}\n')
    before = sorted(tmp_path.rglob("*"))
    code, _, err = ctnet("data", "convert", tmp_path / "data.yaml", "--out", tmp_path / "deep" / "out")
    assert code == 3, err
    assert sorted(tmp_path.rglob("*")) == before


def test_only_images_are_copied_from_outside_of_a_data_set(ctnet, small_set, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("nobody's business")
    file = small_set / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    for path, code_wanted in ((secret, 3), (next((small_set / "images" / "train").iterdir()), 0)):
        content["images"][0]["file_name"] = str(path)
        elsewhere = tmp_path / f"set{code_wanted}" / "annotations" / "instances_val.json"
        elsewhere.parent.mkdir(parents=True)
        shown = [
            {**image, "file_name": str(small_set / "images" / "val" / image["file_name"])}
            for image in content["images"][1:]
        ]
        elsewhere.write_text(json.dumps({**content, "images": [content["images"][0], *shown]}))
        out = tmp_path / f"out{code_wanted}"
        code, _, err = ctnet("data", "convert", elsewhere.parents[1], "--out", out)
        assert code == code_wanted, err
        assert not list(out.rglob("secret*"))


def test_names_of_images_with_nul_are_told(ctnet, small_set, tmp_path):
    file = small_set / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = "a\0.png"
    file.write_text(json.dumps(content))
    for words in (("check", small_set), ("convert", small_set, "--out", "out"), ("check", file, "--fix", "fixed.json")):
        code, _, err = ctnet("data", *words)
        assert code in (0, 3), (words, err)
        assert "bug in ctnet" not in err


def test_files_that_lie_about_their_tensors_are_refused(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors", metadata={"ctnet": "{}"})
    with pytest.raises(CtnetError):
        load_detector(tmp_path / "a.safetensors", "cpu")
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("../../outside", b"")
    with pytest.raises(CtnetError):
        load_detector(tmp_path / "a.pt", "cpu")
