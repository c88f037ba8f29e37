"""Suppression against the original's numbers and by hand."""

import numpy as np
import pytest
import torch

from ctnet.ops import nms, soft_nms


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
    with pytest.raises(ValueError, match="on one device, got cpu, meta"):
        soft_nms(torch.zeros(2, 4), torch.zeros(2, device="meta"))
    with pytest.raises(ValueError, match="gaussian or linear"):
        soft_nms(torch.zeros(1, 4), torch.zeros(1), method="hard")
