"""Key points in files of weights: ctnet's own, CenterFace's and CenterNet's, and starting from others."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ctnet.config import load_recipe
from ctnet.detect.opening import load_detector
from ctnet.devices import open_device
from ctnet.engine.precision import choose_precision
from ctnet.engine.state import new_state, save_state
from ctnet.errors import WeightsError
from ctnet.families import build_network, family_of
from ctnet.types import PERSON, Category, KeypointSchema
from ctnet.weights.ctnet_file import Weights, read_weights, save_weights
from ctnet.weights.fit import load_for_finetuning
from ctnet.weights.opening import load_network, open_weights

SCHEMA = KeypointSchema(("tip", "left", "right"), ((1, 2),), ((0, 1), (0, 2)), (0.05, 0.1, 0.1))
NARROW = ["model.neck_channels=[16,16,16]", "model.head_channels=16", "data.image_size=64"]
CLASSES = (Category(3, "plane"), Category(5, "box"))


@pytest.fixture
def weights():
    recipe = load_recipe("pose_resdcn18", NARROW).recipe
    return Weights(build_network(recipe.model, 2, SCHEMA).state_dict(), recipe, CLASSES, keypoints=SCHEMA)


def save(path, state):
    torch.save({"epoch": 3, "state_dict": state}, path)
    return path


def test_a_schema_travels_with_weights_and_the_state_of_training(weights, tmp_path):
    save_weights(tmp_path / "a.safetensors", weights)
    assert read_weights(tmp_path / "a.safetensors").keypoints == SCHEMA
    assert load_detector(tmp_path / "a.safetensors", "cpu").family.keypoints == SCHEMA
    device = open_device("cpu")
    state = new_state(family_of(weights.recipe, SCHEMA), 2, device, choose_precision("fp32", device), 1e-3)
    save_state(tmp_path / "last.pt", state, weights.recipe, CLASSES, "data", device)
    assert open_weights(tmp_path / "last.pt").keypoints == SCHEMA


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"flip_pairs": ((1, 3),)}, "indices below 3"),
        ({"flip_pairs": ((1, 2), (2, 0))}, "each index in one flip pair"),
        ({"names": ("tip", "tip", "left")}, "a name of its own"),
        ({"names": ()}, "from 1 to"),
        ({"sigmas": (0.1,)}, "3 sigmas above 0"),
        ({"skeleton": ((0, -1),)}, "indices below 3"),
    ],
)
def test_a_schema_that_makes_no_sense_is_refused(change, expected, weights, tmp_path):
    save_weights(tmp_path / "a.safetensors", replace(weights, keypoints=replace(SCHEMA, **change)))
    with pytest.raises(WeightsError) as caught:
        open_weights(tmp_path / "a.safetensors")
    assert "keypoints" in str(caught.value)
    assert expected in str(caught.value)


def test_weights_without_the_schema_that_they_need_say_so(weights, tmp_path):
    save_weights(tmp_path / "a.safetensors", replace(weights, keypoints=None))
    with pytest.raises(WeightsError, match="does not suit") as caught:
        open_weights(tmp_path / "a.safetensors")
    assert "keypoints" in str(caught.value)


def test_fine_tuning_keeps_all_but_the_heads_that_are_new(weights):
    boxes = load_recipe("centernet_resdcn18", NARROW).recipe
    theirs = build_network(boxes.model, 2).state_dict()
    network = build_network(weights.recipe.model, 2, SCHEMA)
    report = load_for_finetuning(network, theirs, "a")
    assert len(report.loaded) == len(theirs)
    assert {name.split(".")[1] for name in report.missing} == {"keypoints", "keypoint_logits", "keypoint_offset"}
    report = load_for_finetuning(build_network(boxes.model, 2), weights.tensors, "a")
    assert report.missing == ()
    half = {name: tensor for name, tensor in weights.tensors.items() if name != "heads.keypoints.2.bias"}
    with pytest.raises(WeightsError, match="do not fit"):
        load_for_finetuning(network, half, "a")


def test_files_of_the_originals_pose_task(original_tensors, golden, image, ctnet, tmp_path):
    file = save(tmp_path / "multi_pose.pth", original_tensors("mp_resdcn_18"))
    detector = load_detector(file, "cpu", "fp32")
    with torch.inference_mode():
        outputs = detector.model(image)[-1]
    expected = golden("models")
    for ours, theirs, step in (
        ("keypoints", "hps", 5),
        ("keypoint_logits", "hm_hp", 5),
        ("keypoint_offset", "hp_offset", 1),
    ):
        truth = expected[f"mp_resdcn_18/{theirs}"]
        assert np.abs(outputs[ours].numpy()[:, ::step] - truth).max() < 2e-4 * np.abs(truth).max()
    assert detector.family.keypoints == PERSON
    assert [category.name for category in detector.categories] == ["person"]
    assert detector.recipe.evaluation.keep_res
    code, out, _ = ctnet("weights", "inspect", file, "--json")
    assert (code, json.loads(out)["keypoints"][0]) == (0, "nose")
    assert ctnet("weights", "convert", file, "--to", "centernet", "--out", tmp_path / "back.pth")[0] == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    assert all(torch.equal(back[name], tensor) for name, tensor in original_tensors("mp_resdcn_18").items())


def test_heads_that_a_pose_file_lacks_are_not_asked_for(original_tensors, tmp_path):
    state = {
        k: v for k, v in original_tensors("mp_resdcn_18").items() if not k.startswith(("hm_hp", "hp_offset", "reg"))
    }
    state |= {"hps.2.weight": torch.ones(6, 64, 1, 1), "hps.2.bias": torch.ones(6)}
    weights = open_weights(save(tmp_path / "a.pth", state))
    assert weights.recipe.model.head_names == ("heatmap", "size", "keypoints")
    assert weights.keypoints.names == ("point 1", "point 2", "point 3")
    load_network(weights, "a.pth")


@pytest.mark.parametrize(("network", "width"), [("centerface_mobilev2_10", 64), ("centerface_mobilev2_10_hc24", 24)])
def test_files_of_centerface(network, width, original_tensors, golden, image, tmp_path):
    detector = load_detector(save(tmp_path / "face.pth", original_tensors(network)), "cpu", "fp32")
    assert detector.recipe.model.neck_channels[-1] == width
    assert detector.family.keypoints.names[0] == "left_eye"
    assert [category.name for category in detector.categories] == ["face"]
    assert detector.recipe.evaluation.top_k == 200
    assert detector.recipe.model.landmark_origin == "center"  # as the original decodes
    taught = open_weights(tmp_path / "face.pth", "centerface_mobilenetv2")
    assert taught.recipe.model.landmark_origin == "cell"
    if width == 64:
        with torch.inference_mode():
            outputs = detector.model(image)[-1]
        truth = golden("models")
        for ours, theirs, shift in (
            ("landmarks", "landmarks", 0),
            ("log_size", "wh", np.log(4)),
            ("offset", "hm_offset", 0),
        ):
            expected = truth[f"{network}/{theirs}"] + shift
            assert np.abs(outputs[ours].numpy() - expected).max() < 2e-4 * np.abs(expected).max()
