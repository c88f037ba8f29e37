"""Weights worth exporting: offsets that move, norms that scale, peaks that stand out."""

import pytest
import torch

from ctnet.config import load_recipe
from ctnet.families import assumed_keypoints, build_network
from ctnet.nn import DeformConv2d
from ctnet.types import Category
from ctnet.weights.ctnet_file import Weights, save_weights


@pytest.fixture(scope="session")
def trained_like(tmp_path_factory):
    """Return `trained_like(recipe, *overrides)`: a ctnet file of a network that answers like a trained one."""

    def write(recipe="centernet_resdcn18", *overrides):
        loaded = load_recipe(recipe, ["data.image_size=[64,96]", "evaluation.test_scale=1", *overrides]).recipe
        torch.manual_seed(5)
        keypoints = assumed_keypoints(loaded.model)
        network = build_network(loaded.model, 3, keypoints)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1.0)
                torch.nn.init.normal_(module.running_mean, std=0.1)
            if isinstance(module, DeformConv2d):
                torch.nn.init.normal_(module.offset_mask.weight, std=0.05)
            if isinstance(module, torch.nn.ConvTranspose2d):
                module.reset_parameters()  # fresh ones are smooth: few peaks, and ties among them
        for heads in [network.heads] if "heatmap_logits" in network.heads else network.heads:
            for name, branch in heads.items():
                last = branch[-1] if isinstance(branch, torch.nn.Sequential) else branch
                torch.nn.init.normal_(last.weight, std=0.02 if name == "log_size" else 0.5)
        categories = (Category(1, "cup"), Category(7, "fork"), Category(9, "Löffel"))
        path = tmp_path_factory.mktemp("weights") / "net.safetensors"
        save_weights(path, Weights(network.state_dict(), loaded, categories, keypoints=keypoints))
        return path

    return write


NARROW = ("model.neck_channels=[24,16,16]", "model.head_channels=16")


@pytest.fixture(scope="session")
def narrow(trained_like):
    """A ctnet file of a narrow deformable network for 64x96 images."""
    return trained_like("centernet_resdcn18", *NARROW)
