"""Losses and their gradients against the original."""

import numpy as np
import pytest
import torch

from centers import center_batch, center_family, center_loss
from ctnet.losses import box_giou_loss, cell_regression_loss, dense_size_loss, heatmap_focal_loss


def double(file, key):
    return torch.tensor(file[key]).double()


def check(loss, expected, gradients):
    loss.backward()
    assert loss.item() == pytest.approx(float(expected), rel=1e-6)
    for tensor, gradient in gradients:
        assert np.allclose(tensor.grad.numpy(), gradient, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["focal_a", "focal_nopos", "focal_extreme"])
def test_focal_loss(name, golden):
    file = golden("losses")
    logits = double(file, f"{name}/logit").requires_grad_()
    loss = heatmap_focal_loss(logits, double(file, f"{name}/gt"))
    check(loss, file[f"{name}/loss"], [(logits, file[f"{name}/dlogit"])])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("regl1_a", "l1"), ("regl1_empty", "l1"), ("regl1_d10", "l1"), ("reg_smoothl1_a", "smooth_l1")],
)
def test_regression_at_cells(name, kind, golden):
    file = golden("losses")
    head = double(file, f"{name}/output").requires_grad_()
    cells = torch.tensor(file[f"{name}/ind"]).long()
    valid = torch.tensor(file[f"{name}/mask"]).bool()
    loss = cell_regression_loss(head, cells, double(file, f"{name}/target"), valid, kind=kind)
    check(loss, file[f"{name}/loss"], [(head, file[f"{name}/doutput"])])


@pytest.mark.parametrize("name", ["ctdet_l1", "ctdet_sl1", "ctdet_catspec", "ctdet_two_stacks"])
def test_whole_loss_over_stacks(name, golden):
    file = golden("losses")
    names = {"heatmap_logits": "hm", "size": "wh", "offset": "reg"}
    stacks, gradients = [], []
    while f"{name}/stack{len(stacks)}/hm" in file.files:
        prefix = f"{name}/stack{len(stacks)}"
        stacks.append({ours: double(file, f"{prefix}/{theirs}").requires_grad_() for ours, theirs in names.items()})
        gradients += [(stacks[-1][ours], file[f"{prefix}/d{theirs}"]) for ours, theirs in names.items()]
    size = double(file, f"{name}/gt_wh")
    label = torch.zeros(size.shape[:2], dtype=torch.long)
    if name == "ctdet_catspec":
        pairs = torch.tensor(file[f"{name}/cat_spec_mask"]).unflatten(-1, (-1, 2))
        label = pairs[..., 0].long().argmax(-1)
        by_class = double(file, f"{name}/cat_spec_wh").unflatten(-1, (-1, 2))
        size = by_class.gather(2, label[..., None, None].expand(-1, -1, 1, 2)).squeeze(2)
    target = center_batch(
        heatmap=double(file, f"{name}/gt_hm"),
        size=size,
        offset=double(file, f"{name}/gt_reg"),
        cell=torch.tensor(file[f"{name}/ind"]).long(),
        label=label,
        valid=torch.tensor(file[f"{name}/reg_mask"]).bool(),
    )
    kind = "smooth_l1" if name == "ctdet_sl1" else "l1"
    family = center_family(regression=kind, per_class=name == "ctdet_catspec")
    total, parts = center_loss(family, stacks, target)
    check(total, file[f"{name}/loss"], gradients)
    for ours, theirs in (("heatmap", "hm_loss"), ("size", "wh_loss"), ("offset", "off_loss")):
        assert parts[ours].item() == pytest.approx(float(file[f"{name}/{theirs}"]), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_extreme_logits_in_reduced_precision_stay_finite(dtype):
    logits = torch.tensor([-50.0, 50.0, 0.0, 50.0]).view(1, 1, 2, 2).to(dtype).requires_grad_()
    target = torch.tensor([1.0, 0.0, 0.5, 1.0]).view(1, 1, 2, 2)
    loss = heatmap_focal_loss(logits, target)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_a_batch_without_objects_has_a_finite_loss_and_no_regression():
    heads = {
        "heatmap_logits": torch.randn(2, 3, 5, 7),
        "size": torch.randn(2, 2, 5, 7),
        "offset": torch.randn(2, 2, 5, 7),
    }
    rows = torch.zeros(2, 1, dtype=torch.long)
    target = center_batch(torch.zeros(2, 3, 5, 7), torch.zeros(2, 1, 2), torch.zeros(2, 1, 2), rows, rows, rows.bool())
    total, parts = center_loss(center_family(), [heads], target)
    assert total.isfinite()
    assert parts["size"] == parts["offset"] == 0


def test_dense_size_loss_is_a_weighted_mean():
    head, truth = torch.full((1, 2, 1, 2), 3.0), torch.full((1, 2, 1, 2), 1.0)
    weight = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    assert dense_size_loss(head, truth, weight).item() == pytest.approx(4 / (2 + 1e-4))


def giou(first, second):
    """Return the generalised IoU of two xyxy boxes, written out from Rezatofighi et al., algorithm 1."""
    area = lambda x1, y1, x2, y2: max(x2 - x1, 0) * max(y2 - y1, 0)  # noqa: E731
    pairs = list(zip(first, second, strict=True))
    shared = area(*(max(pair) for pair in pairs[:2]), *(min(pair) for pair in pairs[2:]))
    hull = area(*(min(pair) for pair in pairs[:2]), *(max(pair) for pair in pairs[2:]))
    union = area(*first) + area(*second) - shared
    return shared / union - (hull - union) / hull


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("predicts_offset", [False, True])
def test_giou_loss_equals_boxes_compared_one_by_one(by_class, predicts_offset):
    torch.manual_seed(0)
    channels = 6 if by_class else 2
    size = (torch.randn(2, channels, 5, 7).double() * 2 + 1).requires_grad_()  # some sides are below zero
    offset = torch.randn(2, 2, 5, 7).double().requires_grad_() if predicts_offset else None
    cells, labels = torch.randint(35, (2, 6)), torch.randint(3, (2, 6))
    target_size, target_offset = torch.rand(2, 6, 2).double() * 3, torch.rand(2, 6, 2).double()
    valid = torch.tensor([[1, 1, 0, 1, 1, 1], [1, 0, 1, 1, 1, 0]]).bool()
    heads = [head for head in (size, offset) if head is not None]

    def loss(*maps):
        return box_giou_loss(
            maps[0], maps[1] if predicts_offset else None, cells, target_size, target_offset, valid,
            labels=labels if by_class else None,
        )  # fmt: skip

    terms = []
    for i, n in valid.nonzero().tolist():
        y, x = divmod(int(cells[i, n]), 7)
        first = 2 * int(labels[i, n]) if by_class else 0
        sides = [max(float(side), 1e-2) for side in size[i, first : first + 2, y, x].detach()]
        center = [0.5, 0.5] if offset is None else offset[i, :, y, x].tolist()
        true_sides, true_center = target_size[i, n].tolist(), target_offset[i, n].tolist()
        box, truth = (
            [c + sign * s / 2 for sign in (-1, 1) for c, s in zip(at, of, strict=True)]
            for at, of in ((center, sides), (true_center, true_sides))
        )
        terms.append(1 - giou(box, truth))
    assert loss(*heads).item() == pytest.approx(sum(terms) / len(terms))
    assert torch.autograd.gradcheck(loss, heads)


def test_giou_loss_asks_of_small_boxes_what_it_asks_of_large_ones():
    """Equal relative errors cost the same, right boxes nothing, boxes far apart nearly 2, and no object nothing."""
    rows, yes = torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1).bool()

    def loss(predicted, true, shift=0.0, valid=yes):
        size = torch.full((1, 2, 1, 1), predicted)
        offset = torch.full((1, 2, 1, 1), 0.5 + shift)
        return box_giou_loss(size, offset, rows, torch.full((1, 1, 2), true), torch.full((1, 1, 2), 0.5), valid).item()

    assert loss(2.5, 2.0) == pytest.approx(loss(25.0, 20.0), rel=1e-5)
    assert loss(2.5, 2.0) == pytest.approx(1 - 4 / 6.25, rel=1e-5)
    assert loss(4.0, 4.0) == pytest.approx(0, abs=1e-6)
    assert loss(1.0, 1.0, shift=100.0) > 1.9
    assert loss(4.0, 1.0, valid=~yes) == 0


@pytest.mark.parametrize(("rules", "dense"), [("centernet", False), ("centernet", True), ("mmdet", False)])
def test_losses_of_parts_add_up_to_that_of_the_whole(rules, dense):
    """Two unequal parts of a batch, and an empty one, divided by the counts of the whole."""
    torch.manual_seed(0)
    heatmap = torch.rand(5, 3, 8, 8, dtype=torch.float64)
    heatmap[:, :, 2, 3] = 1
    valid = torch.rand(5, 4) > 0.3
    whole = center_batch(
        heatmap, torch.rand(5, 4, 2).double() * 5, torch.rand(5, 4, 2).double(), torch.randint(64, (5, 4)),
        torch.randint(3, (5, 4)), valid, torch.rand(5, 2, 8, 8).double() if dense else None,
    )  # fmt: skip
    heads = {
        "heatmap_logits": torch.randn(5, 3, 8, 8).double().requires_grad_(),
        "size": torch.randn(5, 2, 8, 8).double().requires_grad_(),
        "offset": torch.randn(5, 2, 8, 8).double().requires_grad_(),
    }
    settings = {"targets": rules, "size_targets": "dense" if dense else "center"}
    family = center_family(**settings, giou=0.7)
    expected, parts = center_loss(family, [heads], whole)
    assert tuple(parts) == family.loss_parts == ("heatmap", "size", "offset", "giou")
    without = center_loss(center_family(**settings), [heads], whole)[0].item()
    assert expected.item() == pytest.approx(without + 0.7 * parts["giou"].item())
    gradients = torch.autograd.grad(expected, list(heads.values()))
    cuts = [slice(0, 1), slice(1, 5), slice(5, 5)]
    losses = [
        center_loss(
            family,
            [{name: head[cut] for name, head in heads.items()}],
            whole.change(lambda values, cut=cut: values[cut]),
            whole,
        )
        for cut in cuts
    ]
    total = sum(loss for loss, _ in losses)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    for name, value in parts.items():
        assert sum(part[name].item() for _, part in losses) == pytest.approx(value.item(), rel=1e-6)
    for ours, theirs in zip(torch.autograd.grad(total, list(heads.values())), gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-12)


def test_masks_of_numbers_leave_the_others_out():
    head, cells = torch.arange(8.0).view(1, 4, 1, 2), torch.zeros(1, 1, dtype=torch.long)
    target, mask = torch.zeros(1, 1, 4), torch.tensor([True, True, False, False]).view(1, 1, 4)
    loss = cell_regression_loss(head, cells, target, mask)
    assert loss.item() == pytest.approx((0 + 2) / (2 + 1e-4))
    halves = [cell_regression_loss(head, cells, target, part, count=torch.tensor(2.0)).item()
              for part in (mask & (target == 0).cumsum(2).eq(1), mask & (target == 0).cumsum(2).eq(2))]  # fmt: skip
    assert sum(halves) == pytest.approx(loss.item())
