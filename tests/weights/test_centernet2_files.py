"""Files of CenterNet2's own code, of mmdet's form of it and of the model zoo: read, trained on, and written back."""

import json
import pickle

import numpy as np
import pytest
import torch

import centernet2
from ctnet.config import Recipe, load_recipe
from ctnet.errors import WeightsError
from ctnet.families import family_of
from ctnet.weights.backbone import load_backbone
from ctnet.weights.containers import read_container
from ctnet.weights.names import detector_pairs, foreign_names
from ctnet.weights.opening import load_network, open_weights

NARROW = {"neck_channels": 64, "head_convs": 1, "roi_channels": 16}
KINDS = {
    "centernet2_r50": {**centernet2.R50, **NARROW},
    "centernet2_f_r50": {**centernet2.R50, **NARROW, "roi_stages": 1},
    "centernet_fpn_r50": {**centernet2.R50, **NARROW, **centernet2.ONE_STAGE, "roi_channels": 1024},
    "centernet2_dla34_bifpn": {**centernet2.DLA, **NARROW, "neck_repeats": 2},
}


def network_of(model, classes=4):
    family = family_of(Recipe(model={"family": "centernet2", **model}, loss={}))
    torch.manual_seed(1)
    network = family.build(classes)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.01 * torch.rand_like(tensor))  # so that no two are alike
    return family, network.state_dict()


def as_detectron2(model, classes=4):
    """Return family, our tensors, and those of a file of CenterNet2's code."""
    family, tensors = network_of(model, classes)
    names = foreign_names(tensors, detector_pairs("detectron2", family.model))
    frozen = family.model.frozen_norms
    theirs = {names[n]: t for n, t in tensors.items() if not (frozen and n.endswith("num_batches_tracked"))}
    return family, tensors, theirs


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_its_own_code_go_both_ways(kind, tmp_path, ctnet):
    family, tensors, theirs = as_detectron2(KINDS[kind])
    extra = {"pixel_mean": torch.zeros(3, 1, 1)}
    file = tmp_path / "model_final.pth"
    torch.save({"model": {**theirs, **extra}, "optimizer": {}, "iteration": 89_999}, file)
    weights = open_weights(file)
    assert weights.recipe.model == family.model
    assert weights.recipe.evaluation == load_recipe(kind).recipe.evaluation
    assert len(weights.categories) == 4
    assert weights.tensors.keys() == tensors.keys()
    assert all(torch.equal(weights.tensors[name], tensor) for name, tensor in tensors.items())
    load_network(weights, file)
    code, _, err = ctnet("weights", "convert", file, "--to", "ctnet", "--out", tmp_path / "a.safetensors")
    assert code == 0, err
    code, _, err = ctnet("weights", "convert", tmp_path / "a.safetensors", "--to", "detectron2", "--out", "b.pth")
    assert code == 0, err
    back = torch.load("b.pth", weights_only=True)["model"]
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.items())
    assert open_weights(tmp_path / "b.pth").recipe == open_weights(tmp_path / "a.safetensors").recipe


@pytest.mark.parametrize("style", ["caffe", "pytorch", None])
def test_files_of_mmdet_go_both_ways(style, tmp_path, ctnet):
    model = {**KINDS["centernet_fpn_r50"], "head_bias": False, "stride_in_1x1": style != "pytorch"}
    family, tensors = network_of(model)
    names = foreign_names(tensors, detector_pairs("mmdet", family.model))
    theirs = {names[n]: t.view(()) if ".scales." in n else t for n, t in tensors.items()}
    meta = {"dataset_meta": {"classes": ("a", "b", "c", "d")}}
    if style:
        meta["cfg"] = f"model = dict(backbone=dict(type='ResNet', style='{style}'))"
    torch.save({"state_dict": theirs, "meta": meta}, tmp_path / "update.pth")
    weights = open_weights(tmp_path / "update.pth")
    assert weights.recipe.model == family.model
    assert weights.recipe.data.color_order == ("rgb" if style == "pytorch" else "bgr")
    assert ("style" in " ".join(weights.notes)) == (style is None)
    assert [category.name for category in weights.categories] == ["a", "b", "c", "d"]
    load_network(weights, "update.pth")
    for source, to, out in (("update.pth", "ctnet", "a.safetensors"), ("a.safetensors", "mmdet", "b.pth")):
        code, _, err = ctnet("weights", "convert", source, "--to", to, "--out", out)
        assert code == 0, err
    back = torch.load("b.pth", weights_only=True)["state_dict"]
    assert {name: tensor.shape for name, tensor in back.items()} == {n: t.shape for n, t in theirs.items()}
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.items())
    again = open_weights(tmp_path / "b.pth")
    assert again.recipe == open_weights(tmp_path / "a.safetensors").recipe


def zoo_file(shared, path):
    table = json.loads((shared / "golden" / "centernet2" / "r50_pkl_names.json").read_text())["table"]
    table = [row for row in table if "running" not in (row["model_key"] or "")]  # older files are scale and shift alone
    rng = np.random.default_rng(0)
    blobs = {row["pkl_name"]: rng.standard_normal(row["shape"] or [3]).astype(np.float32) for row in table}
    blobs |= {f"{name}_momentum": values for name, values in list(blobs.items())[:3]}
    path.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    return {row["model_key"]: blobs[row["pkl_name"]] for row in table if row["used"]}


def test_the_backbone_of_the_model_zoo(shared, tmp_path):
    theirs = zoo_file(shared, tmp_path / "R-50.pkl")
    recipe = load_recipe("centernet2_r50").recipe
    family = family_of(recipe)
    network = family.build(3)
    [sentence] = load_backbone(network, str(tmp_path / "R-50.pkl"), recipe.model, recipe.data)
    assert "ResNet of detectron2" in sentence
    names = centernet2.original_names(family, network)
    state = network.state_dict()
    filled = {names[n]: t for n, t in state.items() if n.startswith("backbone.")}
    for key, values in theirs.items():
        assert np.array_equal(filled[key], values), key
    # without statistics, its norms are scale and shift to the last bit
    norm = network.backbone.layer2[0].bn1
    x = torch.randn(2, norm.num_features, 3, 3)
    plain = x * norm.weight[:, None, None] + norm.bias[:, None, None]
    assert torch.allclose(norm.normalise(x), plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"blobs": {"conv1_w": np.zeros((64, 3, 7, 7), np.float32)}}, "no known network"),
        ([1, 2, 3], "list"),
        ({"blobs": {"a": 1}}, "tensors"),
        ({"model": {"fc_w": np.zeros(3, np.float32)}, "__author__": "x"}, "no known network"),
    ],
)
def test_pickles_that_are_no_model_zoo_files_are_named(content, words, tmp_path, ctnet, small_set):
    file = tmp_path / "R-50.pkl"
    file.write_bytes(pickle.dumps(content, protocol=2))
    code, _, err = ctnet("train", "centernet2_r18", "--data", small_set, "--backbone-weights", file, "--device", "cpu")
    assert code == 3
    assert words in err
    assert "Traceback" not in err


def test_other_detectors_of_its_code_are_named(tmp_path):
    theirs = {"proposal_generator.centernet_head.bbox_pred.weight": torch.zeros(4, 256, 3, 3)}
    torch.save({"model": theirs}, tmp_path / "a.pth")
    with pytest.raises(WeightsError) as error:
        open_weights(tmp_path / "a.pth")
    assert "CenterNet2 with another backbone" in str(error.value)


def test_half_a_detector_is_named(tmp_path):
    _, _, theirs = as_detectron2(KINDS["centernet2_f_r50"])
    del theirs["roi_heads.box_predictor.bbox_pred.weight"]
    torch.save({"model": theirs}, tmp_path / "a.pth")
    weights = open_weights(tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="do not fit") as error:
        load_network(weights, "a.pth")
    assert "box_predictor.bbox_pred.weight" in str(error.value)


def test_training_from_its_weights_keeps_the_classes_it_knows(tmp_path, small_set, ctnet):
    from ctnet.data.dataset import open_dataset

    names = [category.name for category in open_dataset(small_set, "train").categories]
    _, _, theirs = as_detectron2({**KINDS["centernet2_f_r50"], "levels": 5}, len(names) + 1)
    torch.save({"model": theirs}, tmp_path / "model_final.pth")
    code, _, err = ctnet(
        "weights", "convert", tmp_path / "model_final.pth", "--to", "ctnet", "--out", "named.safetensors"
    )
    assert code == 0, err
    small = ("--image-size", 64, "--batch-size", 2, "--max-steps", 1, "data.workers=0", "--device", "cpu")
    code, out, err = ctnet(
        "train", "--weights", tmp_path / "model_final.pth", "--data", small_set, *small, "--out", "run"
    )  # fmt: skip
    assert code == 0, err
    assert "stay random: roi.0.classes.weight" in out + err
    trained = read_container(tmp_path / "run" / "checkpoints" / "best.safetensors").tensors
    assert trained["roi.0.classes.weight"].shape[0] == len(names) + 1
    stem = theirs["backbone.bottom_up.stem.conv1.weight"]
    assert torch.equal(trained["backbone.conv1.weight"], stem)  # frozen
