"""Greedy suppression against the reference: the same boxes in the same order."""

import pytest
import torch

from ctnet.ops import batched_nms, nms
from ctnet.ops.nms import reference_nms


def boxes(count):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator) * 40
    scores = torch.randint(0, 40, (count,), generator=generator) / 40
    sides = torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 20], 1)
    return sides, scores, torch.randint(0, 3, (count,), generator=generator)


def test_scores_that_are_not_numbers_keep_no_box(device):
    sides, scores, labels = boxes(75)
    for bad in (slice(0, 75, 4), slice(0, 75)):
        scores[bad] = torch.nan
        kept = nms(sides.to(device), scores.to(device), labels.to(device), 0.3)
        assert torch.equal(kept.cpu(), reference_nms(sides, scores, labels, 0.3, False))
        assert scores[kept.cpu()].isfinite().all()


@pytest.mark.parametrize("count", [0, 1, 32, 75])
@pytest.mark.parametrize(("threshold", "plus_one"), [(0.5, False), (0.1, True), (0.0, False), (1.0, False)])
def test_it_keeps_what_the_reference_keeps(count, threshold, plus_one, device):
    given = boxes(count)
    kept = nms(*(t.to(device) for t in given), threshold, plus_one=plus_one)
    assert torch.equal(kept.cpu(), reference_nms(*given, threshold, plus_one))


def test_thresholds_are_not_rounded(device):
    """An IoU of exactly 0.1 does not exceed 0.1, but it would exceed float32's 0.1 if that were smaller, and so on."""
    for tenths in range(1, 10):
        pair = torch.tensor([[0.0, 0, 10, 1], [0, 0, tenths, 1]], dtype=torch.float64)
        given = (pair, torch.tensor([0.9, 0.8]), torch.zeros(2, dtype=torch.int64))
        for threshold in (tenths / 10, tenths / 10 - 1e-12):
            kept = nms(*(t.to(device) for t in given), threshold)
            assert torch.equal(kept.cpu(), reference_nms(*given, threshold, False))


def test_boxes_that_are_not_numbers_are_kept_out_of_each_other(device):
    bad = torch.tensor([[0.0, 0, 10, 10], [torch.nan, 0, 10, 10], [0, 0, 10, 10], [0, 0, torch.inf, 10]])
    given = (bad, torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.zeros(4, dtype=torch.int64))
    kept = nms(*(t.to(device) for t in given), 0.5)
    assert torch.equal(kept.cpu(), reference_nms(*given, 0.5, False))


def test_a_limit_keeps_the_strongest_of_each_label_and_their_ties(device):
    sides, scores, labels = boxes(75)
    for limit in (1, 4):
        kept = batched_nms(sides.to(device), scores.to(device), labels.to(device), 0.6, limit=limit)
        assert torch.equal(kept.cpu(), reference_nms(sides, scores, labels, 0.6, False, limit))
