"""ctnet weights: what a file holds, and files for other projects' code."""

import json
from pathlib import Path

import pytest
import torch

from ctnet.config import load_recipe
from ctnet.detect.opening import load_detector
from ctnet.families import build_network
from ctnet.types import Category
from ctnet.weights.ctnet_file import Weights, save_weights
from ctnet.weights.opening import open_weights


@pytest.fixture
def own(tmp_path):
    """A ctnet file of a small network with three classes, norms and offsets as after training."""

    def write(recipe="centernet_resdcn18", overrides=(), name="mine.safetensors"):
        loaded = load_recipe(recipe, overrides).recipe
        torch.manual_seed(1)
        network = build_network(loaded.model, 3)
        for key, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                torch.nn.init.uniform_(tensor, 0.5 if key.endswith("var") else -0.3, 0.9)
        categories = (Category(1, "cup"), Category(7, "fork"), Category(9, "Löffel"))
        save_weights(tmp_path / name, Weights(network.state_dict(), loaded, categories, {"epoch": 3}))
        return tmp_path / name

    return write


def outputs(file):
    x = torch.linspace(-1, 1, 3 * 64 * 96).view(1, 3, 64, 96)
    with torch.inference_mode():
        return load_detector(file, "cpu", "fp32").model(x)[-1]


def test_inspect_names_format_network_classes_and_fit(ctnet, original_file):
    file = original_file("dla_34", drop="ida_up.node_1.conv.bias", extra={"hps.0.weight": torch.ones(34)})
    code, out, _ = ctnet("weights", "inspect", file)
    assert code == 3
    for words in ("CenterNet (xingyizhou)", "dla34 head_channels=256", "80: person", "BGR, kept resolution"):
        assert words in out
    assert "1 missing: ida_up.node_1.conv.bias" in out
    assert "1 unexpected: hps.0.weight" in out
    assert "2 left out (ImageNet classifier): base.fc.weight, base.fc.bias" in out

    code, out, _ = ctnet("weights", "inspect", original_file("dla_34"), "--json")
    document = json.loads(out)
    assert code == 0
    assert (document["fits"], document["format"], document["model"]["backbone"]) == (True, "centernet", "dla34")
    assert document["fit"]["loaded"] == 386
    assert len(document["fit"]["left_out"]["unused in the original network"]) == 12


def test_inspect_a_backbone_and_a_file_of_ctnet(ctnet, own, original_file):
    file = original_file("resdcn_18", keep=("conv1", "bn1", "layer"), extra={"fc.weight": torch.ones(1000, 512)})
    code, out, _ = ctnet("weights", "inspect", file)
    assert (code, "ImageNet ResNet" in out, "--backbone-weights" in out) == (0, True, True)
    code, out, _ = ctnet("weights", "inspect", own())
    assert (code, "3: cup, fork, Löffel" in out) == (0, True)


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("centernet_resdcn18", ["model.class_specific_size=true", "model.head_channels=24"]),
        ("centernet_res50", ["model.predict_offset=false", "model.head_channels=0"]),
        ("centernet_dla34", []),
        ("centernet_dla34", ["model.neck=plain"]),
    ],
)
def test_to_centernet_and_back_every_bit_is_the_same(ctnet, own, recipe, overrides):
    file = own(recipe, overrides)
    assert ctnet("weights", "convert", file, "--to", "centernet", "--out", "there.pth")[0] == 0
    code, out, _ = ctnet("weights", "convert", "there.pth", "--to", "ctnet", "--out", "back.safetensors")
    assert (code, out.strip()) == (0, "back.safetensors")
    before, after = open_weights(file), open_weights(type(file)("back.safetensors"))
    assert before.recipe == after.recipe
    assert before.categories == after.categories
    assert set(before.tensors) == set(after.tensors)
    assert all(torch.equal(tensor, after.tensors[name]) for name, tensor in before.tensors.items())


@pytest.mark.parametrize("overrides", [["model.deform_bias=false"], ["model.neck=conv"]])
def test_to_mmdet_and_back_every_bit_is_the_same(ctnet, own, overrides):
    file = own("centernet_resdcn18_mmdet", overrides)
    assert ctnet("weights", "convert", file, "--to", "mmdet", "--out", "there.pth")[0] == 0
    content = torch.load("there.pth", weights_only=True)
    assert content["meta"]["dataset_meta"]["classes"] == ["cup", "fork", "Löffel"]
    assert "bbox_head.wh_head.2.bias" in content["state_dict"]
    assert ctnet("weights", "convert", "there.pth", "--to", "ctnet", "--out", "back.safetensors")[0] == 0
    before, after = open_weights(file), open_weights(type(file)("back.safetensors"))
    assert before.recipe == after.recipe
    assert all(torch.equal(tensor, after.tensors[name]) for name, tensor in before.tensors.items())


@pytest.mark.parametrize("target", ["centernet", "mmdet"])
@pytest.mark.parametrize(
    ("recipe", "word"), [("centernet_res18_lateral", "model.neck=lateral"), ("centernet_mobilenetv2", "mobilenetv2")]
)
def test_networks_that_the_target_does_not_have_are_refused(ctnet, own, target, recipe, word):
    code, _, err = ctnet("weights", "convert", own(recipe, []), "--to", target, "--out", "there.pth")
    assert (code, word in err, f"{target} has no such network" in err) == (3, True, True)
    assert not Path("there.pth").exists()


def test_biases_that_mmdet_lacks_go_into_the_norms(ctnet, own):
    file = own()
    code, _, err = ctnet("weights", "convert", file, "--to", "mmdet", "--out", "there.pth")
    assert (code, "3 went into the norms" in err) == (0, True)
    assert "neck.deconv_layers.0.conv.bias" not in torch.load("there.pth", weights_only=True)["state_dict"]
    before, after = outputs(file), outputs("there.pth")
    for head in before:
        assert torch.allclose(before[head], after[head], rtol=1e-4, atol=1e-4 * before[head].abs().max())


def test_mmdet_files_for_the_original_code_say_how_images_enter(ctnet, own):
    file = own("centernet_resdcn18_mmdet")
    code, _, err = ctnet("weights", "convert", file, "--to", "centernet", "--out", "there.pth")
    assert (code, "RGB" in err) == (0, True)
    state = torch.load("there.pth", weights_only=True)["state_dict"]
    assert state["deconv_layers.6.bias"].shape == (128,)
    assert not state["deconv_layers.6.bias"].any()
    before, after = outputs(file), outputs("there.pth")
    assert all(torch.equal(before[head], after[head]) for head in before)


def test_what_cannot_be_converted_is_refused(ctnet, own, original_file):
    dla = own("centernet_dla34", [], "dla.safetensors")
    for arguments, message, expected in (
        ((dla, "--to", "mmdet"), "mmdet has no such network", 3),
        ((own("centernet_res18_mmdet", [], "conv.safetensors"), "--to", "centernet"), "ordinary convolutions", 3),
        ((dla, "--to", "ctnet", "--out", dla), "exists already", 2),
        ((original_file("resdcn_18", drop="hm.2.bias"), "--to", "ctnet"), "missing", 3),
    ):
        code, _, err = ctnet("weights", "convert", *arguments)
        assert (code, message in err, "Traceback" in err) == (expected, True, False), err
    damaged = original_file("resdcn_18", drop="hm.2.bias")
    code, _, err = ctnet("weights", "convert", damaged, "--to", "ctnet", "--allow-partial")
    assert (code, "stay random: hm.2.bias" in err) == (0, True)
