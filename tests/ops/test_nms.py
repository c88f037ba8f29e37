"""Suppression against the original's numbers and by hand."""

import numpy as np
import pytest
import torch

from ctnet.ops import batched_nms, nms, soft_nms


@pytest.mark.parametrize(
    "name", ["snms_gauss", "snms_gauss_dense", "snms_linear", "snms_thresh", "snms_empty", "snms_one"]
)
def test_decayed_scores_equal_the_original(name, golden, golden_cases):
    file, arguments = golden("decode"), golden_cases["decode"][name]["args"]
    before, after, kept = (file[f"{name}/{part}"] for part in ("boxes_in", "boxes_out", "keep"))
    floor = arguments.get("threshold", 0.001)
    decayed = soft_nms(
        torch.tensor(before[:, :4]),
        torch.tensor(before[:, 4]),
        method={1: "linear", 2: "gaussian"}[arguments["method"]],
        sigma=arguments["sigma"],
        iou_threshold=arguments["Nt"],
        score_floor=floor,
    ).numpy()
    survivors = decayed >= floor
    assert survivors.sum() == len(kept)
    got = np.c_[before[survivors, :4], decayed[survivors]]
    expected = after[: len(kept)]
    assert np.allclose(got[got[:, 4].argsort()], expected[expected[:, 4].argsort()], atol=3e-7)


@pytest.mark.parametrize("name", ["hardnms_05", "hardnms_03"])
def test_greedy_choice_equals_the_original(name, golden, golden_cases):
    file = golden("decode")
    boxes = torch.tensor(file[f"{name}/boxes"])
    labels = torch.zeros(len(boxes), dtype=torch.int64)
    threshold = golden_cases["decode"][name]["thresh"]
    kept = nms(boxes[:, :4], boxes[:, 4], labels, threshold, plus_one=True)
    assert sorted(kept.tolist()) == sorted(file[f"{name}/keep"].tolist())


def test_other_classes_are_not_suppressed_and_ties_keep_the_first():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 30, 31]])
    kept = nms(boxes, torch.tensor([0.5, 0.5, 0.9, 0.1]), torch.tensor([0, 0, 1, 0]))
    assert kept.tolist() == [2, 0, 3]


def crowd(count, groups):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + 4 + torch.rand(count, 2, generator=generator) * 30], 1)
    scores = torch.randint(0, 50, (count,), generator=generator) / 50
    return boxes, scores, torch.randint(-1, groups - 1, (count,), generator=generator)


@pytest.mark.parametrize("limit", [None, 1, 7, 10_000])
@pytest.mark.parametrize("threshold", [-0.1, 0.0, 0.5, 0.9])
def test_a_batch_keeps_what_its_groups_keep_each_for_itself(threshold, limit):
    boxes, scores, groups = crowd(1500, 4)
    boxes += 1e6 * torch.tensor([1.0, 1, 1, 1])  # offsets of groups would leave nothing of the boxes in float32
    kept = batched_nms(boxes, scores, groups, threshold, limit=limit)
    assert (scores[kept].diff() <= 0).all()
    for group in groups.unique():
        (members,) = torch.where(groups == group)
        alone = members[nms(boxes[members], scores[members], torch.zeros_like(members), threshold)]
        if limit is not None and limit < len(alone):  # and those that tie with the last
            alone = alone[scores[alone] >= scores[alone[limit - 1]]]
        assert torch.equal(kept[groups[kept] == group], alone)


@pytest.mark.parametrize("name", ["agnostic_5", "agnostic_9", "multi_5", "multi_9", "large_7", "edge", "empty"])
def test_a_batch_keeps_what_the_original_keeps(name, shared):
    file = np.load(shared / "golden" / "centernet2" / "nms.npz")
    boxes, scores, classes = (torch.tensor(file[f"{name}/{part}"]) for part in ("boxes", "scores", "classes"))
    kept = batched_nms(boxes.reshape(-1, 4), scores, classes.long(), float(file[f"{name}/iou_threshold"]))
    assert kept.tolist() == file[f"{name}/keep"].tolist()


def test_scores_that_are_not_numbers_do_not_count_towards_the_limit():
    boxes = torch.arange(5.0)[:, None] * 20 + torch.tensor([0.0, 0, 9, 9])
    scores = torch.tensor([0.1, torch.nan, 0.3, torch.inf, 0.2])
    assert batched_nms(boxes, scores, torch.zeros(5, dtype=torch.int64), 0.5, limit=3).tolist() == [3, 2, 4]
    assert batched_nms(boxes[:0], scores[:0], torch.zeros(0, dtype=torch.int64), 0.5, limit=3).tolist() == []


def test_boxes_without_area_neither_fail_nor_suppress():
    boxes = torch.zeros(2, 4)
    assert nms(boxes, torch.tensor([0.2, 0.3]), torch.zeros(2, dtype=torch.int64)).tolist() == [1, 0]


def test_nothing_in_nothing_out():
    none = torch.zeros(0, 4), torch.zeros(0)
    assert nms(*none, torch.zeros(0, dtype=torch.int64)).shape == (0,)
    assert soft_nms(*none).shape == (0,)


def test_wrong_shapes_and_methods_are_refused():
    with pytest.raises(ValueError, match=r"boxes \(N,4\)"):
        nms(torch.zeros(2, 5), torch.zeros(2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"labels \(N,\)"):
        nms(torch.zeros(2, 4), torch.zeros(2), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"batched_nms: groups \(N,\)"):
        batched_nms(torch.zeros(2, 4), torch.zeros(2), torch.zeros(3, dtype=torch.int64), 0.5)
    with pytest.raises(ValueError, match="limit of at least 1"):
        batched_nms(torch.zeros(2, 4), torch.zeros(2), torch.zeros(2, dtype=torch.int64), 0.5, limit=0)
    with pytest.raises(ValueError, match="on one device, got cpu, meta"):
        soft_nms(torch.zeros(2, 4), torch.zeros(2, device="meta"))
    with pytest.raises(ValueError, match="gaussian or linear"):
        soft_nms(torch.zeros(1, 4), torch.zeros(1), method="hard")
