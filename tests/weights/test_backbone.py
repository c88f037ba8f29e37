"""Trunks trained elsewhere."""

import hashlib
import http.server
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from ctnet.config import CenterNetModel, Data
from ctnet.errors import ConfigError, WeightsError
from ctnet.families import build_network
from ctnet.weights.backbone import fetch, load_backbone


def start(model):
    network = build_network(model, 3)
    return network, {k: v.clone() for k, v in network.state_dict().items()}


def assert_backbone(network, before, expected):
    """The backbone is the expected one, norms' counters aside; neck and heads are as they were."""
    for name, tensor in network.state_dict().items():
        if not name.startswith("backbone."):
            assert torch.equal(tensor, before[name]), name
        elif not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, expected[name.removeprefix("backbone.")]), name


def random_backbone(backbone):
    backbone = build_network(CenterNetModel(backbone=backbone), 1).get_submodule("backbone").state_dict()
    return {k: torch.rand(v.shape) if v.is_floating_point() else v for k, v in backbone.items()}


def test_a_resnet_of_torchvision_or_timm(tmp_path):
    backbone = random_backbone("resnet34")
    classifier = {"fc.weight": torch.ones(1000, 512), "fc.bias": torch.ones(1000)}
    torch.save(backbone | classifier, tmp_path / "resnet34.pth")
    model = CenterNetModel(backbone="resnet34")
    network, before = start(model)
    sentences = load_backbone(network, str(tmp_path / "resnet34.pth"), model, Data())
    assert_backbone(network, before, backbone)
    assert "data.color_order=rgb" in sentences[1]
    with pytest.raises(WeightsError, match="another backbone"):
        load_backbone(start(CenterNetModel())[0], str(tmp_path / "resnet34.pth"), CenterNetModel(), Data())


@pytest.mark.parametrize("timm", [True, False])
def test_dla34_of_its_authors_and_of_timm(timm, original_tensors, tmp_path):
    if timm:
        base = original_tensors("dla34", timm=True)
    else:
        base = {k.removeprefix("base."): v for k, v in original_tensors("dla_34").items() if k.startswith("base.")}
    torch.save(base, tmp_path / "dla34.pth")
    model = CenterNetModel(backbone="dla34", head_channels=256)
    network, before = start(model)
    load_backbone(network, str(tmp_path / "dla34.pth"), model, Data())
    assert_backbone(
        network, before, {k.replace("root.conv.", "root.0.").replace("root.bn.", "root.1."): v for k, v in base.items()}
    )


def test_the_backbone_of_a_detector_whose_heads_are_others(original_tensors, tmp_path):
    """As ExtremeNet's, from which the published Hourglass was trained."""
    others = {
        f"module.{k}": v for k, v in original_tensors("resdcn_18").items() if not k.startswith(("hm", "wh", "reg"))
    }
    torch.save(others | {"module.t_heats.0.1.weight": torch.ones(80, 256, 1, 1)}, tmp_path / "ExtremeNet.pkl")
    network, before = start(CenterNetModel())
    load_backbone(network, str(tmp_path / "ExtremeNet.pkl"), CenterNetModel(), Data())
    assert_backbone(network, before, {k.removeprefix("module."): v for k, v in others.items()})


def test_mobilenetv2_of_torchvision_timm_and_centerface(original_tensors, tmp_path):
    model = CenterNetModel(backbone="mobilenetv2")
    backbone = random_backbone("mobilenetv2")
    files = {
        "torchvision": backbone | {"features.18.0.weight": torch.ones(3), "classifier.1.weight": torch.ones(3)},
        "timm": original_tensors("mobilenetv2_100", timm=True),
        "centerface": original_tensors("centerface_mobilev2_10"),
    }
    outputs = []
    for name, tensors in files.items():
        torch.save({"state_dict": tensors}, tmp_path / f"{name}.pth")
        network, before = start(model)
        load_backbone(network, str(tmp_path / f"{name}.pth"), model, Data())
        state = network.state_dict()
        changed = [k for k in state if state[k].is_floating_point() and not torch.equal(state[k], before[k])]
        assert len(changed) == sum(k.startswith("backbone.") and v.is_floating_point() for k, v in state.items())
        outputs.append(network)
    timm, theirs = outputs[1].backbone, files["timm"]
    for ours, place in (
        (timm.features[0][0].weight, "conv_stem.weight"),
        (timm.features[1].conv[0][0].weight, "blocks.0.0.conv_dw.weight"),
        (timm.features[1].conv[2].weight, "blocks.0.0.bn2.weight"),
        (timm.features[3].conv[1][1].bias, "blocks.1.1.bn2.bias"),
        (timm.features[17].conv[3].running_var, "blocks.6.0.bn3.running_var"),
    ):
        assert torch.equal(ours, theirs[place]), place


def detectron2_names(backbone):
    """Return a torchvision backbone in detectron2's names."""
    renamed = {}
    for name, tensor in backbone.items():
        for ours, theirs in (("downsample.0", "shortcut"), ("downsample.1", "shortcut.norm"), ("bn", "conv")):
            name = name.replace(ours, theirs)
        if ".conv" in f".{name}" and tensor.dim() == 1:
            parts = name.split(".")
            name = ".".join([*parts[:-1], "norm", parts[-1]])
        if name.startswith("layer"):
            name = f"res{int(name[5]) + 1}{name[6:]}"
        else:
            name = f"stem.{name}"
        renamed[name] = tensor
    return renamed


def test_detectron2_files_with_the_stride_in_the_first_convolution(tmp_path):
    backbone = {k: v for k, v in random_backbone("resnet50").items() if not k.endswith("tracked")}
    arrays = {k: v.numpy() for k, v in detectron2_names(backbone).items()}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "somebody"}))
    whole = {f"backbone.bottom_up.{k}": torch.tensor(v) for k, v in arrays.items()}
    whole |= {"proposal_generator.centernet_head.agn_hm.weight": torch.ones(1, 256, 3, 3),
              "backbone.fpn_lateral3.weight": torch.ones(256, 512, 1, 1)}  # fmt: skip
    torch.save({"model": whole, "iteration": 9}, tmp_path / "model_final.pth")
    model = CenterNetModel(backbone="resnet50", stride_in_1x1=True)
    for file in ("R-50.pkl", "model_final.pth"):
        network, before = start(model)
        load_backbone(network, str(tmp_path / file), model, Data())
        assert_backbone(network, before, backbone)
    with pytest.raises(WeightsError, match="stride") as caught:
        load_backbone(
            start(CenterNetModel(backbone="resnet50"))[0],
            str(tmp_path / "R-50.pkl"),
            CenterNetModel(backbone="resnet50"),
            Data(),
        )
    assert "stride_in_1x1=true" in caught.value.hint


def test_caffe2_files_hold_scale_and_shift_alone(tmp_path):
    backbone = {k: v for k, v in random_backbone("resnet50").items() if not k.endswith(("tracked", "mean", "var"))}
    blobs = {"fc1000_w": np.ones((10, 4), np.float32), "res2_0_branch2a_w_momentum": np.ones(3, np.float32)}
    places = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "branch1"}
    for name, tensor in detectron2_names(backbone).items():
        parts = name.split(".")
        leaf = {"weight": "_s", "bias": "_b"}[parts[-1]] if "norm" in parts else "_w"
        if parts[0] == "stem":
            blob = "res_conv1_bn" if "norm" in parts else "conv1"
        else:
            blob = f"{parts[0]}_{parts[1]}_{places[parts[2]]}" + ("_bn" if "norm" in parts else "")
        blobs[blob + leaf] = tensor.numpy()
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    model = CenterNetModel(backbone="resnet50", stride_in_1x1=True)
    network, _ = start(model)
    load_backbone(network, str(tmp_path / "R-50.pkl"), model, Data())
    norm = network.backbone.layer3[0].bn2.eval()
    x = torch.randn(1, 256, 3, 5)
    expected = backbone["layer3.0.bn2.weight"][:, None, None] * x + backbone["layer3.0.bn2.bias"][:, None, None]
    assert torch.allclose(norm(x), expected.relu(), atol=1e-6)


@pytest.fixture
def served(tmp_path):
    """A folder of files and its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *a: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: handler(*a, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_addresses_are_fetched_once_and_only_what_the_hash_says(served, monkeypatch):
    folder, address = served
    digest = hashlib.sha256(b"weights").hexdigest()
    stamped = folder / f"net-{digest[:8]}.pth"
    stamped.write_bytes(b"weights")
    (folder / "plain.pth").write_bytes(b"weights")
    path = fetch(f"{address}/{stamped.name}")
    assert path.read_bytes() == b"weights"
    assert path.parent == Path(path.parents[1]) / "weights"
    stamped.unlink()
    assert fetch(f"{address}/{stamped.name}") == path  # from the cache
    path.write_bytes(b"spoiled")
    with pytest.raises(WeightsError, match="download failed"):
        fetch(f"{address}/{stamped.name}")
    assert fetch(f"{address}/plain.pth#sha256={digest}").read_bytes() == b"weights"
    with pytest.raises(WeightsError, match="not the one asked for"):
        fetch(f"{address}/plain.pth#sha256={'0' * 64}")
    assert fetch(f"{address}/plain.pth#sha256={digest.upper()}").read_bytes() == b"weights"
    with pytest.raises(WeightsError, match="download failed"):
        fetch(f"http://host:port/plain.pth#sha256={'1' * 64}")
    with pytest.raises(ConfigError, match="has no SHA-256"):
        fetch(f"{address}/plain.pth")
    with pytest.raises(ConfigError, match="not a URL"):
        fetch("ftp://host/net-12345678.pth")
