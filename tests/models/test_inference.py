"""Merging views as the original does, and detectors end to end."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from ctnet import Detections, Detector, load_detector
from ctnet.codec.affine import fixed_view, keep_view, transform_boxes
from ctnet.config import CenterNetModel, Evaluation, Recipe
from ctnet.detect.merge import merge_views
from ctnet.detect.views import render_views
from ctnet.devices import open_device
from ctnet.errors import WeightsError
from ctnet.families import build_network, family_of
from ctnet.families.heads import average_probability
from ctnet.types import Category
from ctnet.weights.ctnet_file import Weights, save_weights


@pytest.mark.parametrize("name", ["det_flip", "det_nms", "det_ms"])
def test_merged_detections_equal_the_original(name, golden, golden_cases):
    file, case = golden("decode"), golden_cases["decode"][name]
    parts = []
    for i, scale in enumerate(case["scales"]):
        head = {ours: torch.tensor(file[f"{name}/s{i}/{theirs}"]) for ours, theirs in
                (("heatmap_logits", "hm"), ("size", "wh"), ("offset", "reg"))}  # fmt: skip
        family = family_of(Recipe())
        found = family.decode(family.unflip(head) if case["flip"] else head, 100)
        fixed = case["fix_res_input_hw"]
        view = keep_view((110, 150), scale) if case["keep"] else fixed_view((110, 150), tuple(fixed), scale)
        in_image = transform_boxes(found.boxes[0].numpy(), view.from_input())
        parts.append(Detections(in_image, found.scores[0].numpy(), found.labels[0].numpy()))
    settings = Evaluation(nms="soft" if case["nms"] else "none", scales=case["scales"])
    merged = merge_views(parts, settings)
    expected = file[f"{name}/merged"]
    expected = expected[np.argsort(-expected[:, 5], kind="stable")]
    assert np.allclose(merged.scores, expected[:, 5], atol=3e-7)
    assert np.allclose(merged.boxes_xyxy, expected[:, 1:5], atol=1e-4)
    assert np.array_equal(merged.labels + 1, expected[:, 0])


def test_only_the_strongest_are_kept_with_ties_at_the_last_place():
    boxes = np.zeros((4, 4), np.float32)
    part = Detections(boxes, np.array([0.9, 0.5, 0.5, 0.1], np.float32), np.zeros(4, np.int64))
    assert merge_views([part], Evaluation(max_detections=2)).scores.tolist() == pytest.approx([0.9, 0.5, 0.5])


@pytest.fixture
def detector() -> Detector:
    torch.manual_seed(0)
    recipe = Recipe.model_validate({"data": {"image_size": (64, 96)}, "model": {"neck_channels": (16, 16, 16)}})
    network = build_network(recipe.model, 3)
    categories = (Category(3, "cup"), Category(7, "spoon"), Category(90, "plate"))
    return Detector(network, recipe, categories, open_device("cpu"))


@pytest.fixture
def images() -> list:
    rng = np.random.default_rng(0)
    return [
        rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((50, 70), (97, 41), (64, 96), (33, 33), (50, 70))
    ]


def assert_close(a: Detections, b: Detections) -> None:
    assert len(a) == len(b) > 0
    assert np.allclose(a.scores, b.scores, atol=1e-5)
    assert np.allclose(a.boxes_xyxy, b.boxes_xyxy, atol=1e-2)


@pytest.mark.parametrize(("factor", "expected"), [(1.0, (64, 96)), (1.4, (96, 128)), (0.1, (32, 32))])
def test_the_test_input_may_be_larger_than_the_training_crops(detector, images, factor, expected):
    settings = Evaluation(test_scale=factor, top_k=3)
    [view] = render_views(images[0], detector.recipe.data.image_size, 32, settings)
    assert view.pixels.shape[:2] == expected
    other = detector.with_image_size(expected).detect(images[:1], Evaluation(top_k=3))
    assert_close(detector.detect(images[:1], settings)[0], other[0])


@pytest.mark.parametrize("keep_res", [False, True])
def test_batch_size_changes_no_detection(detector, images, keep_res):
    settings = Evaluation(keep_res=keep_res, top_k=7, scales=(0.7, 1.0))
    one = detector.detect(images, settings.model_copy(update={"batch_size": 1}))
    three = detector.detect(images, settings.model_copy(update={"batch_size": 3}))
    for a, b in zip(one, three, strict=True):
        assert_close(a, b)


def test_where_sizes_must_not_change_batches_are_filled_up_and_nothing_else_changes(detector, images, monkeypatch):
    settings = Evaluation(batch_size=3, flip=True)
    expected = detector.detect(images, settings)
    seen = []
    detector.model.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    monkeypatch.setattr(detector.device.plugin, "static_shapes", True)
    for one, other in zip(expected, detector.detect(images, settings), strict=True):
        assert_close(one, other)
    assert set(seen) == {(6, 3, 64, 96)}


def test_flip_test_of_a_mirrored_image_is_the_mirrored_result(detector, images):
    # Without an offset the result is symmetric; with it, upstream uses the unflipped picture's.
    recipe = Recipe.model_validate(
        {"data": {"image_size": (64, 96)}, "model": {"predict_offset": False, "neck_channels": (16, 16, 16)}}
    )
    torch.manual_seed(1)
    detector = Detector(build_network(recipe.model, 3), recipe, detector.categories, detector.device)
    image = images[2]
    settings = Evaluation(flip=True, top_k=5)
    straight, mirrored = detector.detect([image, np.ascontiguousarray(image[:, ::-1])], settings)
    assert np.allclose(straight.scores, mirrored.scores, atol=1e-5)
    assert np.allclose(straight.boxes_xyxy[:, 0], 96 - mirrored.boxes_xyxy[:, 2], atol=1.1)


def test_the_flip_test_averages_probabilities_without_float64():
    logits = torch.linspace(-60, 60, 241)
    first, mirrored = torch.meshgrid(logits, logits, indexing="ij")
    found = average_probability(first, mirrored, None)
    p, q = (x.double().sigmoid() for x in (first, mirrored))
    assert torch.allclose(found.double().sigmoid(), (p + q) / 2, rtol=1e-5, atol=0)
    # near 1 it is what is lacking that counts
    lacking = ((-first.double()).sigmoid() + (-mirrored.double()).sigmoid()) / 2
    assert torch.allclose((-found.double()).sigmoid(), lacking, rtol=1e-5, atol=0)
    extreme = average_probability(*torch.tensor([[-200.0, 200.0, torch.nan], [-200.0, 200.0, 0.0]]), None)
    assert extreme[:2].isfinite().all()
    assert extreme[2].isnan()


def test_devices_with_fixed_shapes_see_few_sizes_of_kept_resolutions(detector, images, monkeypatch):
    settings = Evaluation(keep_res=True, top_k=5)
    expected = detector.detect(images, settings)
    seen = set()
    detector.model.register_forward_pre_hook(lambda _, inputs: seen.add(tuple(inputs[0].shape[2:])))
    monkeypatch.setattr(detector.device.plugin, "static_shapes", True)
    found = detector.detect(images, settings)
    assert all(side % 256 == 0 for size in seen for side in size)
    assert [len(one) for one in found] == [len(one) for one in expected]


def test_score_floor_and_no_images(detector, images):
    assert detector.detect([], Evaluation()) == []
    found = detector.detect(images[:1], Evaluation(score_floor=1.0))
    assert len(found[0]) == 0


def test_a_saved_detector_loads_with_no_further_information(detector, images, tmp_path):
    file = tmp_path / "weights.safetensors"
    save_weights(file, Weights(detector.model.state_dict(), detector.recipe, detector.categories, {"AP": 0.5}))
    generator = torch.get_rng_state()
    loaded = load_detector(file, device="cpu", precision="fp32")
    assert torch.equal(torch.get_rng_state(), generator)
    assert loaded.categories == detector.categories
    assert loaded.recipe == detector.recipe
    assert_close(loaded.detect(images[:1])[0], detector.detect(images[:1])[0])
    [heads] = loaded.model(torch.zeros(1, 3, 64, 96))
    assert set(heads) == {"heatmap_logits", "size", "offset"}


def test_another_image_size_shares_the_network(detector, images):
    larger = detector.with_image_size((128, 128))
    assert larger.model is detector.model
    assert larger.recipe.data.image_size == (128, 128)
    assert len(larger.detect(images[:1])[0]) > 0


def test_weights_of_another_architecture_are_refused(detector, tmp_path):
    file = tmp_path / "weights.safetensors"
    recipe = detector.recipe.model_copy(update={"model": CenterNetModel(backbone="resnet34")})
    save_weights(file, Weights(detector.model.state_dict(), recipe, detector.categories))
    with pytest.raises(WeightsError, match="do not fit the network") as caught:
        load_detector(file, device="cpu")
    assert str(file) in str(caught.value)


def test_networks_with_stacks_are_read_from_the_last(detector, images):
    class Stacked(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            [heads] = self.network(x)
            return [{k: torch.zeros_like(v) for k, v in heads.items()}, heads]

    stacked = Detector(Stacked(detector.model), detector.recipe, detector.categories, detector.device)
    assert_close(stacked.detect(images[:1])[0], detector.detect(images[:1])[0])


FIRST_DETECTION = """
import sys
import numpy as np
from ctnet import load_detector

load_detector(sys.argv[1], "cpu").detect([np.zeros((64, 96, 3), np.uint8)])
print("torch._dynamo" in sys.modules)
"""


def test_detecting_does_not_wait_for_torchs_compiler_to_be_imported(detector, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, Weights(detector.model.state_dict(), detector.recipe, detector.categories))
    done = subprocess.run([sys.executable, "-c", FIRST_DETECTION, path], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "False", done.stderr
