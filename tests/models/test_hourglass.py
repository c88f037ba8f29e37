"""Stacked networks, small ones: answers, gradients, inference, and what training makes of a list."""

import numpy as np
import pytest
import torch

from centers import center_batch, center_family, center_loss
from ctnet.config import CenterNetModel, Evaluation, Recipe
from ctnet.detect.detector import Detector, prepare_detector
from ctnet.detect.views import render_views
from ctnet.devices import open_device
from ctnet.families import family_of
from ctnet.models.centernet import StackedCenterNet
from ctnet.models.heads import Heads
from ctnet.models.hourglass import Hourglass
from ctnet.types import Category

CHANNELS = {"heatmap_logits": 3, "size": 2, "offset": 2}


@pytest.fixture
def network():
    torch.manual_seed(0)
    backbone = Hourglass((8, 12, 12), (1, 2, 3), 2)
    network = StackedCenterNet(backbone, [Heads(8, 6, CHANNELS, {"heatmap_logits": -2.19}) for _ in range(2)])
    for name, parameter in network.named_parameters():
        if name.endswith("bn2.weight"):
            torch.nn.init.uniform_(parameter, 0.5, 1.0)  # fresh blocks are their shortcuts
    for heads in network.heads:
        torch.nn.init.normal_(heads["size"][2].weight)
    return network


def test_every_stack_answers_at_stride_four(network):
    answers = network(torch.randn(2, 3, 48, 80))
    assert len(answers) == 2
    for heads in answers:
        assert {k: tuple(v.shape) for k, v in heads.items()} == {k: (2, c, 12, 20) for k, c in CHANNELS.items()}
    assert not torch.allclose(answers[0]["size"], answers[1]["size"])


def test_the_loss_averages_over_stacks_and_reaches_every_weight(network):
    rows = torch.tensor([[5, 0], [77, 12]])
    heatmap = torch.zeros(2, 3, 12, 20)
    heatmap[0, 1, 2, 7] = heatmap[1, 2, 9, 3] = 1
    target = center_batch(
        heatmap=torch.zeros(2, 3, 12, 20).index_put_(
            (torch.tensor(0), torch.tensor(1), torch.tensor(2)), torch.ones(())
        ),
        size=torch.rand(2, 2, 2) * 4,
        offset=torch.rand(2, 2, 2),
        cell=rows,
        label=torch.zeros_like(rows),
        valid=torch.tensor([[True, False], [True, True]]),
    )
    answers = network(torch.randn(2, 3, 48, 80))
    both, _ = center_loss(center_family(), answers, target)
    single = [center_loss(center_family(), [heads], target)[0] for heads in answers]
    assert both.item() == pytest.approx((single[0].item() + single[1].item()) / 2, rel=1e-5)
    both.backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_images_are_shown_in_whole_multiples_of_the_coarsest_stride():
    multiple = CenterNetModel(backbone="hourglass104").size_multiple
    assert (multiple, CenterNetModel().size_multiple) == (128, 32)
    image = np.zeros((130, 250, 3), np.uint8)
    shapes = {
        keep: render_views(image, (256, 384), multiple, Evaluation(keep_res=keep, test_scale=1.4))[0].pixels.shape[:2]
        for keep in (True, False)
    }
    assert shapes == {True: (256, 256), False: (384, 512)}


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.05)])
def test_made_ready_for_inference_the_last_stack_is_the_same(network, precision, tolerance):
    device = open_device("cpu")
    recipe = Recipe.model_validate({"data": {"image_size": (64, 96)}})
    categories = (Category(1, "cup"), Category(2, "spoon"), Category(3, "plate"))
    ready = prepare_detector(network.eval(), family_of(recipe), categories, device, precision)
    x = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        expected, got = network(x), ready.model(x)
    assert len(got) == 2
    for ours, theirs in zip(got, expected, strict=True):
        for name, values in theirs.items():
            assert ours[name].dtype == torch.float32
            assert (ours[name] - values).abs().mean() <= tolerance * values.std(), name
    image = np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    torch.nn.init.constant_(network.heads[0]["heatmap_logits"][2].bias, -50.0)  # `ready` is a copy
    first_silent = Detector(network, recipe, categories, device)
    [a], [b] = (detector.detect([image], Evaluation(top_k=9)) for detector in (ready, first_silent))
    assert len(a) == len(b) == 9
    assert np.allclose(a.scores, b.scores, atol=tolerance)
