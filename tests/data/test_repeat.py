"""Repeat-factor sampling and class weights: published formulas, and runs that can be resumed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ctnet.data.loader import EpochOrder
from ctnet.data.repeat import repeat_factors
from ctnet.engine.class_weights import effective_weights
from ctnet.losses import heatmap_focal_loss, unclamped_focal_loss
from ctnet.types import AnnotationSet, Category, ImageRecord


def image(number, labels):
    n = len(labels)
    return ImageRecord(
        number, Path(f"{number}.jpg"), 10, 10, np.zeros((n, 4), np.float32), np.array(labels, np.int64),
        np.zeros(n, np.bool_), np.ones(n, np.float32), np.arange(n),
    )  # fmt: skip


@pytest.fixture
def rare():
    """A hundred images with class 0, four of them with class 1 too, one without objects."""
    images = tuple(image(i, [0, 1] if i < 4 else [] if i == 99 else [0, 0]) for i in range(100))
    return AnnotationSet(Path("a"), "train", (Category(1, "a"), Category(2, "b"), Category(3, "none")), images)


def test_factors_are_those_of_the_paper(rare):
    factors = repeat_factors(rare, 0.25)
    assert factors[:4] == pytest.approx([np.sqrt(0.25 / 0.04)] * 4)
    assert (factors[4:] == 1).all()
    assert repeat_factors(rare, 0.0) is None
    assert repeat_factors(rare, 0.001) is None  # no class is rarer


def test_epochs_show_images_as_often_as_their_factors_say(rare):
    factors = repeat_factors(rare, 0.25)
    order = EpochOrder(round(factors.sum()), 8, 20, seed=3, factors=factors)
    epochs = [[] for _ in range(20)]
    for batch in order:
        for key in batch:
            epochs[key[0]].append(key[1:])
    assert {len(epoch) for epoch in epochs} == {106}
    for epoch in epochs:
        assert len({*epoch}) == 106  # a repetition is a sample of its own
        counts = np.bincount([key[0] for key in epoch], minlength=100)
        assert (np.abs(counts - factors) < 1.01).all()
    mean = np.mean([np.bincount([key[0] for key in epoch], minlength=100) for epoch in epochs], axis=0)
    assert mean[:4] == pytest.approx([2.5] * 4, abs=0.4)
    assert epochs[0] != epochs[1]
    later = replace(order, first_epoch=3, first_batch=2)
    assert [key for batch in later for key in batch] == [key for batch in order for key in batch][3 * 106 + 16 :]


def test_weights_of_classes_are_those_of_the_paper():
    weights = effective_weights(np.array([1, 10, 1000, 0]))
    b = 0.999
    expected = np.array([(1 - b) / (1 - b**n) for n in (1, 10, 1000, 1)])
    assert weights == pytest.approx(expected / expected.mean())
    assert weights.mean() == pytest.approx(1)


@pytest.mark.parametrize("loss", [heatmap_focal_loss, unclamped_focal_loss])
def test_weights_multiply_the_loss_of_each_class(loss):
    logits = torch.randn(2, 3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    target = torch.rand(2, 3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 0.9
    target[:, :, 2, 3] = 1
    centers = torch.tensor(6.0)
    parts = [loss(logits[:, c : c + 1], target[:, c : c + 1], centers) for c in range(3)]
    weighted = loss(logits, target, centers, torch.tensor([0.5, 1.0, 4.0]))
    assert weighted == pytest.approx(float(0.5 * parts[0] + parts[1] + 4 * parts[2]))
    assert loss(logits, target, centers, torch.ones(3)) == pytest.approx(float(loss(logits, target, centers)))
