"""Weights as people wrap them: keys around a state_dict and prefixes in its names."""

import pytest
import torch

from ctnet.config import CenterNetModel, Data
from ctnet.errors import WeightsError
from ctnet.families import build_network
from ctnet.weights.backbone import load_backbone
from ctnet.weights.inspect import inspect_file


@pytest.fixture(scope="module")
def trunk():
    torch.manual_seed(2)
    state = build_network(CenterNetModel(), 1).get_submodule("backbone").state_dict()
    return {name: torch.rand_like(t) if t.is_floating_point() else t for name, t in state.items()}


def prefixed(prefix, tensors):
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def zeros(tensors):
    return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}


WRAPPED = {
    "model_state_dict": lambda t: {"model_state_dict": t, "optimizer_state_dict": {"state": {}}, "loss": 0.3},
    "net": lambda t: {"net": t, "acc": 91.2},
    "weights": lambda t: {"weights": t},
    "unknown": lambda t: {"my_resnet": t, "optimizer": {"momentum": torch.ones(3)}, "epoch": 3},
    "nested": lambda t: {"ema": {"module": t, "updates": 4}, "model": zeros(t)},
    "timm": lambda t: {"state_dict": zeros(t), "state_dict_ema": t},
    "torchvision": lambda t: {"model": zeros(t), "model_ema": prefixed("module.", t) | {"n_averaged": torch.tensor(5)}},
    "lightning": lambda t: {"state_dict": prefixed("net.", t), "hyper_parameters": {"lr": 0.1}},
    "backbone.": lambda t: {"state_dict": prefixed("backbone.", t)},
    "backbone.body.": lambda t: prefixed("backbone.body.", t) | {"rpn.head.conv.weight": torch.ones(2, 2, 1, 1)},
    "encoder": lambda t: {"state_dict": prefixed("module.encoder_k.", zeros(t)) | prefixed("module.encoder_q.", t)},
    "compiled": lambda t: prefixed("module._orig_mod.", t),
    "compiled inside": lambda t: prefixed("student.backbone._orig_mod.", t) | {"student.fc.weight": torch.ones(3, 512)},
    "sharded": lambda t: prefixed("_forward_module.model._fsdp_wrapped_module.", t),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_inspect_and_train_find_the_same_backbone(kind, trunk, tmp_path):
    torch.save(WRAPPED[kind](dict(trunk)), tmp_path / "a.pth")
    found = inspect_file(tmp_path / "a.pth")
    assert (found["kind"], found["model"], found["fits"]) == ("backbone", {"backbone": "resnet18"}, True)
    network = build_network(CenterNetModel(), 2)
    load_backbone(network, str(tmp_path / "a.pth"), CenterNetModel(), Data())
    loaded = network.get_submodule("backbone").state_dict()
    assert all(torch.equal(loaded[name], t) for name, t in trunk.items() if t.is_floating_point())


def test_of_two_unknown_keys_none_is_chosen(trunk, tmp_path):
    torch.save({"generator": dict(trunk), "critic": dict(trunk)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="'generator', 'critic'"):
        inspect_file(tmp_path / "a.pth")


def test_a_tensor_that_is_missing_has_the_name_of_the_file(trunk, tmp_path):
    torch.save(prefixed("encoder.", {n: t for n, t in trunk.items() if n != "layer4.0.bn1.bias"}), tmp_path / "a.pth")
    assert inspect_file(tmp_path / "a.pth")["fit"]["missing"] == ["encoder.layer4.0.bn1.bias"]
    with pytest.raises(WeightsError, match=r"encoder\.layer4\.0\.bn1\.bias"):
        load_backbone(build_network(CenterNetModel(), 2), str(tmp_path / "a.pth"), CenterNetModel(), Data())
