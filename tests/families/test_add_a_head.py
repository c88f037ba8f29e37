"""A head that ctnet does not have, as the documentation adds it: trained, exported and drawn."""

import importlib.util
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ctnet.config import load_recipe
from ctnet.data.dataset import open_dataset
from ctnet.data.image import read_image
from ctnet.data.loader import collate
from ctnet.detect.opening import load_detector
from ctnet.devices import open_device
from ctnet.engine.precision import choose_precision
from ctnet.engine.processes.world import World
from ctnet.engine.state import new_state
from ctnet.engine.step import Updater
from ctnet.engine.trainer import training_samples
from ctnet.export.export import export
from ctnet.export.formats import format_named
from ctnet.export.options import ExportOptions
from ctnet.families import family_of
from ctnet.families.heads import HEADS
from ctnet.types import KeypointSchema
from ctnet.weights.ctnet_file import Weights, save_weights
from lively import lively

PAGE = Path(__file__).parents[2] / "docs" / "add-a-head.md"
SETTINGS = (
    "model.heads=[heatmap,size,offset,orientation]", "model.neck=conv", "model.neck_channels=[16,16,16]",
    "model.head_channels=16", "data.image_size=64", "evaluation.flip=false", "train.amp=off", "augment.photometric=0",
)  # fmt: skip


@pytest.fixture
def orientation(tmp_path, monkeypatch):
    """The page's module, imported from a file, so that its functions can be sent to other processes."""
    source = PAGE.read_text().split("```python\n")[1].split("```")[0]
    assert len(source.splitlines()) < 40
    file = tmp_path / "orientation.py"
    file.write_text(source)
    spec = importlib.util.spec_from_file_location("orientation", file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "orientation", module)
    spec.loader.exec_module(module)
    yield module
    del HEADS["orientation"]


@pytest.fixture
def annotations(small_set):
    """Shapes that point from the middle of their left side to a corner, at 45 degrees where they are square."""
    annotations = open_dataset(small_set, "train")

    def pointing(image):
        x1, y1, x2, y2 = image.boxes_xyxy.T
        seen = np.full_like(x1, 2)
        tail, nose = np.stack([x1, (y1 + y2) / 2, seen], 1), np.stack([x2, y2, seen], 1)
        return replace(image, keypoints=np.stack([tail, nose], 1).astype(np.float32))

    return replace(
        annotations, images=tuple(map(pointing, annotations.images)), keypoints=KeypointSchema(("tail", "nose"))
    )


def test_a_head_of_ones_own_is_trained_exported_and_drawn(orientation, annotations, tmp_path):
    recipe = load_recipe("centernet_resdcn18", SETTINGS).recipe
    family = family_of(recipe, annotations.keypoints)
    assert family.loss_parts == ("heatmap", "size", "offset", "orientation", "giou")
    assert family.instance_names == ("boxes", "scores", "labels", "orientation")
    samples = training_samples(annotations, recipe)
    assert pickle.loads(pickle.dumps(samples.encoder)) == samples.encoder
    sample = replace(samples, augment=recipe.augment.model_copy(update={"crop": "none", "flip": 0.0}))[0, 0]
    x1, y1, x2, y2 = annotations.images[0].boxes_xyxy[0]
    expected = np.array([x2 - x1, (y2 - y1) / 2])
    assert np.allclose(sample.targets.rows["orientation"][0], expected / np.linalg.norm(expected), atol=1e-5)

    device = open_device("cpu")
    precision = choose_precision("fp32", device)
    state = new_state(family, len(annotations.categories), device, precision, 1e-3)
    lively(state.network, (64, 64)).train()
    updater = Updater(state, device, precision, World())
    batch = collate([samples[0, i] for i in range(4)])
    first, second = (updater.update([batch], 1e-3).losses["orientation"].item() for _ in range(2))
    assert 0 < second < first

    network = state.network.eval()
    weights = Weights(network.state_dict(), recipe, annotations.categories)
    picture = read_image(annotations.images[0].path)
    file = tmp_path / "pointing.onnx"
    exported = export(network, weights, format_named("onnx"), file, ExportOptions(), [picture])
    assert exported.verification.passed
    assert exported.verification.detections > 0
    save_weights(tmp_path / "pointing.safetensors", weights)
    [a] = load_detector(tmp_path / "pointing.safetensors", "cpu", "fp32").detect([picture])
    [b] = load_detector(file).detect([picture])
    angles = a.values["orientation"]
    assert angles.shape == a.scores.shape
    assert np.abs(angles).max() <= np.pi
    assert np.allclose(angles[:3], b.values["orientation"][:3], atol=1e-3)
    assert a.to_dicts(annotations.categories)[0]["orientation"] == pytest.approx(float(angles[0]), abs=1e-3)
    drawn = picture.copy()
    family.draw(drawn, a.select(slice(3)))
    assert (drawn != picture).any()


def test_the_flip_test_turns_the_mirror_images_angles_back(orientation):
    recipe = load_recipe("centernet_resdcn18", SETTINGS).recipe
    family = family_of(recipe)
    right, left = torch.tensor([0.8, 0.6]), torch.tensor([-0.8, 0.6])
    maps = {name: torch.zeros(2, channels, 4, 4) for name, channels in
            (("heatmap_logits", 3), ("size", 2), ("offset", 2), ("orientation", 2))}  # fmt: skip
    maps["orientation"][0], maps["orientation"][1] = right.view(2, 1, 1), left.view(2, 1, 1)
    assert torch.allclose(family.unflip(maps)["orientation"], right.view(1, 2, 1, 1).expand(1, 2, 4, 4))
