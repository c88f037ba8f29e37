"""mmdet's rules, from boxes to losses and from outputs to boxes, against its own head."""

import math

import numpy as np
import pytest
import torch

from centers import center_batch, center_family, center_loss, decoded, encode_centers
from ctnet.losses import unclamped_focal_loss

MMDET = center_family(targets="mmdet")
CLASSES, MAP_HW = 80, (32, 40)


@pytest.fixture(scope="module")
def file(golden):
    return golden("mmdet_head")


@pytest.fixture(scope="module")
def encoded(file):
    return [
        encode_centers(file[f"gt_img{i}_boxes_xyxy"] / 4, file[f"gt_img{i}_labels"], CLASSES, MAP_HW, rules="mmdet")
        for i in (0, 1)
    ]


@pytest.fixture(scope="module")
def batch(encoded):
    rows = max(len(t.valid) for t in encoded)

    def stacked(name):
        arrays = [getattr(t, name) for t in encoded]
        padded = [np.pad(a, [(0, rows - len(a))] + [(0, 0)] * (a.ndim - 1)) for a in arrays]
        return torch.from_numpy(np.stack(padded))

    heatmap = torch.from_numpy(np.stack([t.heatmap for t in encoded])).double()
    return center_batch(heatmap, *(stacked(name) for name in ("size", "offset", "cell", "label", "valid")))


def dense(file, name):
    values = np.zeros(file[f"{name}_shape"], np.float32)
    values.reshape(-1)[file[f"{name}_idx"]] = file[f"{name}_val"]
    return values


def test_targets_equal_the_original(file, encoded):
    heatmap = dense(file, "target_center_heatmap_target")
    assert np.abs(np.stack([t.heatmap for t in encoded]) - heatmap).max() < 1e-7
    assert (heatmap == 1).sum() == file["target_avg_factor"]
    weight = dense(file, "target_wh_offset_target_weight")
    for field, name in (("size", "target_wh_target"), ("offset", "target_offset_target")):
        ours, taught = np.zeros_like(weight), np.zeros_like(weight)
        for image, targets in enumerate(encoded):
            for row in np.flatnonzero(targets.valid):
                place = (image, slice(None), *divmod(int(targets.cell[row]), MAP_HW[1]))
                ours[place], taught[place] = getattr(targets, field)[row], 1
        assert np.allclose(ours, dense(file, name), atol=1e-6)
        assert np.array_equal(taught, weight)


def outputs(file, heatmap):
    size, offset = (torch.from_numpy(file[f"decode_{name}"]).double() for name in ("wh", "offset"))
    return {"heatmap_logits": torch.logit(heatmap), "size": size, "offset": offset}


def test_size_and_offset_losses_equal_the_original(file, batch):
    heads = outputs(file, torch.full_like(batch.maps["heatmap"], 0.5))
    _, parts = center_loss(MMDET, [heads], batch)
    assert 0.1 * parts["size"].item() == pytest.approx(float(file["loss_wh"]), rel=1e-6)
    assert parts["offset"].item() == pytest.approx(float(file["loss_offset"]), rel=1e-6)


def test_the_whole_loss_equals_the_original(file, batch, shared):
    probability = np.load(shared / "golden" / "mmdet_head.npz")["decode_hm_sigmoid"]
    heads = outputs(file, torch.from_numpy(probability).double())
    total, parts = center_loss(MMDET, [heads], batch)
    expected = [float(file[f"loss_{name}"]) for name in ("center_heatmap", "wh", "offset")]
    assert parts["heatmap"].item() == pytest.approx(expected[0], rel=1e-6)
    assert total.item() == pytest.approx(sum(expected), rel=1e-6)


def test_extreme_probabilities_are_not_kept_away_from_the_ends():
    logits = torch.tensor([50.0, -50.0]).view(1, 1, 1, 2).requires_grad_()
    target = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    loss = unclamped_focal_loss(logits, target)
    loss.backward()
    assert loss.item() == pytest.approx(-2 * math.log(1e-12), rel=1e-5)
    assert logits.grad.isfinite().all()


def test_parts_are_divided_by_the_centres_of_the_heatmap_not_by_objects():
    # two objects of one class in one cell: one centre, one row
    boxes = np.array([[4, 4, 9, 9], [3, 3, 10, 10]], np.float32)
    targets = encode_centers(boxes, np.array([0, 0]), 1, (17, 21), rules="mmdet")
    batch = center_batch(
        *(torch.from_numpy(getattr(targets, n))[None] for n in ("heatmap", "size", "offset", "cell", "label", "valid"))
    )
    heads = {
        "heatmap_logits": torch.zeros(1, 1, 17, 21),
        "size": torch.zeros(1, 2, 17, 21),
        "offset": torch.zeros(1, 2, 17, 21),
    }
    assert center_loss(MMDET, [heads], batch)[1]["size"].item() == pytest.approx(7.0)


def test_detections_equal_the_original(file):
    shape = tuple(file["decode_shape"])
    for image in (0, 1):
        heatmap = np.zeros((1, *shape[1:]), np.float32)
        heatmap.reshape(-1)[file[f"decode_img{image}_idx"]] = file[f"decode_img{image}_val"]
        size, offset = (torch.from_numpy(file[f"decode_{name}"][image : image + 1]) for name in ("wh", "offset"))
        heads = {"heatmap_logits": torch.logit(torch.from_numpy(heatmap)), "size": size, "offset": offset}
        found, scores, labels = decoded(heads, 100)
        top, _, left, _ = file[f"decode_img{image}_border"]
        scale = np.tile(file[f"decode_img{image}_scale_factor"], 2)
        boxes = (found[0].numpy() * 4 - [left, top, left, top]) / scale
        assert np.allclose(boxes, file[f"decode_img{image}_boxes"], atol=1e-4)
        assert np.allclose(scores[0].numpy(), file[f"decode_img{image}_scores"], atol=1e-6)
        assert np.array_equal(labels[0].numpy(), file[f"decode_img{image}_labels"])
