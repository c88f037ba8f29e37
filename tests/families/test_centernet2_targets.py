"""Targets, losses and decoding of CenterNet2 against the numbers of its own code, operation by operation."""

import json

import numpy as np
import pytest
import torch

import centernet2
from ctnet.codec import boxes as box_math
from ctnet.codec import pyramid
from ctnet.families import cascade, family_of
from ctnet.families.found import Found, Limits, level_candidates, select_detections, strongest, suppress
from ctnet.losses import center_focal, side_giou_loss
from ctnet.models.centernet2 import Dense
from ctnet.types import Objects, Targets

CASES = ("one", "twoempty", "allempty", "edges", "big", "three", "dense")
KINDS = {
    "targets_agnostic": ("CenterNet2_R50_1x", {}, ("agn_pos", "agn_neg", "loc")),
    "targets_onestage": ("CenterNet-FPN_R50_1x", {"more_centers": False}, ("pos", "neg", "loc")),
    "targets_onestage_morepos": ("CenterNet-FPN_R50_1x", {}, ("pos", "neg", "loc")),
}


def batch_of(encoder, boxes, classes, input_hw, most=None) -> Targets:
    """Return the targets of images, stacked as the loader does it."""
    each = [encoder(Objects(b, c), input_hw) for b, c in zip(boxes, classes, strict=True)]
    most = most or max(1, *(len(t.rows["valid"]) for t in each)) if each else 1

    def pad(rows):
        return np.pad(rows, [(0, most - len(rows))] + [(0, 0)] * (rows.ndim - 1))

    maps = {name: torch.from_numpy(np.stack([t.maps[name] for t in each])) for name in each[0].maps}
    rows = {name: torch.from_numpy(np.stack([pad(t.rows[name]) for t in each])) for name in each[0].rows}
    return Targets(maps, rows)


def objects_of(golden, case):
    count = len([name for name in golden.files if name.startswith(f"{case}/gt_boxes_")])
    return [[golden[f"{case}/gt_{what}_{i}"] for i in range(count)] for what in ("boxes", "classes")]


def flattened(index, images, sizes):
    """Return our cells (B,M) of indices into the original's order: level by level, in it image by image."""
    order = torch.arange(images * sum(h * w for h, w in sizes))
    parts = [part.view(images, -1) for part in order.split([images * h * w for h, w in sizes])]
    place = torch.empty_like(order)
    place[torch.cat(parts, 1).flatten()] = order
    return place[torch.as_tensor(np.asarray(index, np.int64))]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_targets_and_losses_are_those_of_the_original(shared, kind, case):
    golden = centernet2.golden_file(shared, kind)
    name, changes, parts = KINDS[kind]
    recipe = centernet2.recipe_of(name)
    family = family_of(recipe.model_copy(update={"loss": recipe.loss.model_copy(update=changes)}))
    boxes, classes = objects_of(golden, case)
    input_hw = tuple(golden[f"{case}/image_hw"].tolist())
    sizes = [tuple(hw) for hw in golden[f"{case}/level_hw"].tolist()]
    assert pyramid.level_sizes(input_hw, family.strides) == sizes
    targets = batch_of(family.encoder(6), boxes, classes, input_hw)
    images, cells = targets.maps["heat"].shape
    learns = targets.maps["learns"].flatten()
    reg = flattened(golden[f"{case}/reg_inds"], images, sizes)
    assert torch.equal(learns.nonzero().flatten(), reg.sort().values)
    assert np.allclose(
        targets.maps["box"].flatten(0, 1)[reg], golden[f"{case}/reg_targets_at_inds"], rtol=1e-6, atol=1e-6
    )
    logits = [torch.from_numpy(golden[f"{case}/logit_l{i}"]).requires_grad_() for i in range(5)]
    sides = [torch.from_numpy(golden[f"{case}/reg_l{i}"]).requires_grad_() for i in range(5)]
    if kind == "targets_agnostic":
        heat = torch.zeros(images * cells)
        where = flattened(golden[f"{case}/hm_nonzero_index"][:, 0], images, sizes)
        heat[where] = torch.from_numpy(golden[f"{case}/hm_nonzero_value"])
        assert torch.allclose(targets.maps["heat"].flatten(), heat, atol=1e-6)
        ours = (targets.rows["cell"] + cells * torch.arange(images)[:, None, None])[targets.rows["center"]]
        positives = flattened(golden[f"{case}/pos_inds"], images, sizes)
        assert torch.equal(ours.sort().values, positives.sort().values)
    dense: Dense = (logits, sides, [])
    found = family.compare(dense, targets, family.normalisers(targets))
    weighted = {part: value * family.loss_weights[part] for part, value in found.items()}
    for ours, theirs in zip(("center", "background", "box"), parts, strict=True):
        expected = float(golden[f"{case}/loss_centernet_{theirs}"])
        assert float(weighted[ours].detach()) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    sum(weighted.values()).backward()
    for i in range(5):
        for tensor, what in ((logits[i], "logit"), (sides[i], "reg")):
            expected = golden[f"{case}/grad_{what}_l{i}"]
            found = np.zeros_like(expected) if tensor.grad is None else tensor.grad.numpy()
            assert np.allclose(found, expected, rtol=1e-4, atol=1e-7), (what, i)


def test_losses_one_by_one(shared):
    golden = centernet2.golden_file(shared, "losses_elementwise")
    predicted = torch.from_numpy(golden["pred_ltrb"]).requires_grad_()
    loss = side_giou_loss(predicted, torch.from_numpy(golden["target_ltrb"]))
    loss.sum().backward()
    assert np.allclose(loss.detach(), golden["loss_giou"], rtol=1e-5, atol=1e-6)
    assert np.allclose(predicted.grad, golden["grad_giou"], rtol=1e-4, atol=1e-6)
    for kind, ignore in (("cn2", 0.85), ("cn1", 1.0)):
        logits = torch.from_numpy(golden["focal_logit"]).view(1, 1, -1).requires_grad_()
        heat = torch.from_numpy(golden["focal_target"]).view(1, 1, -1)
        centers = torch.from_numpy(golden["focal_pos_inds"])[None]
        parts = center_focal(logits, heat, centers, torch.ones_like(centers), ignore_above=ignore)
        for part, name in zip(parts, ("pos", "neg"), strict=True):
            assert float(part.detach()) == pytest.approx(float(golden[f"focal_{kind}_{name}"]), rel=1e-5)
        sum(parts).backward()
        assert np.allclose(logits.grad.flatten(), golden[f"focal_{kind}_grad"], rtol=1e-4, atol=1e-6)


def test_corrections_of_boxes(shared):
    golden = centernet2.golden_file(shared, "box2box")
    source, target = (torch.from_numpy(golden[name]) for name in ("src", "tgt"))
    for stage in range(3):
        at, _, by, _ = golden[f"weights_{stage}"]
        weights = box_math.correction_weights(stage)
        assert weights == (at, by)
        encoded = box_math.encode_corrections(source, target, weights)
        assert np.allclose(encoded, golden[f"encoded_{stage}"], rtol=1e-5, atol=1e-5)
        there = box_math.correct_boxes(source, torch.from_numpy(golden[f"encoded_{stage}"]), weights)
        assert np.allclose(there, golden[f"roundtrip_{stage}"], rtol=1e-5, atol=1e-3)
        large = box_math.correct_boxes(source, torch.from_numpy(golden["deltas_in"]), weights)
        assert np.allclose(large, golden[f"decoded_{stage}"], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("case", ["random", "no_gt", "no_prop", "exact"])
def test_matching(shared, case):
    golden = centernet2.golden_file(shared, "matcher")
    objects, boxes = (torch.from_numpy(golden[f"{case}/{name}"])[None] for name in ("gt", "proposals"))
    valid = torch.ones(objects.shape[:2], dtype=torch.bool)
    if case == "no_gt":  # as the loader pads
        objects, valid = torch.zeros(1, 1, 4), torch.zeros(1, 1, dtype=torch.bool)
    labels, exists = torch.zeros(objects.shape[:2], dtype=torch.int64), torch.ones(boxes.shape[:2], dtype=torch.bool)
    for tenths in (6, 7, 8):
        found = cascade.match(boxes, exists, objects, labels, valid, tenths / 10, 1)
        label = golden[f"{case}/label_{tenths}"]
        assert np.array_equal(found.labels[0] == 0, label == 1)
        if label.any():
            which = torch.from_numpy(golden[f"{case}/matched_idx_{tenths}"][label == 1])
            assert torch.equal(found.objects[0][label == 1], objects[0][which])


def test_levels_that_boxes_are_pooled_from(shared):
    golden = centernet2.golden_file(shared, "levels_pooler")
    boxes = torch.from_numpy(golden["boxes"])
    for name, levels in (("levels_p3_p7", 5), ("levels_p3_p5", 3), ("levels_p3_p4", 2)):
        assert np.array_equal(box_math.pooling_level(boxes, levels), golden[name])


def test_pooling_from_several_levels_with_gradients(shared):
    golden = centernet2.golden_file(shared, "levels_pooler")
    levels = [torch.from_numpy(golden[f"pool_feat_l{i}"]).requires_grad_() for i in range(5)]
    rows = [torch.from_numpy(golden[f"pool_boxes_{i}"]) for i in range(2)]
    boxes = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    pooled = cascade.pool(levels, (8, 16, 32, 64, 128), boxes, 7).unflatten(0, boxes.shape[:2])
    there = torch.cat([pooled[i, : len(one)] for i, one in enumerate(rows)])
    assert np.allclose(there.detach(), golden["pool_out"], atol=1e-5)
    there.backward(torch.from_numpy(golden["pool_grad_out"]))
    for i, level in enumerate(levels):
        assert np.allclose(level.grad, golden[f"pool_grad_l{i}"], atol=1e-4)


VARIANTS = {
    "test": (1e-4, 1000, 0.9, 256), "train": (1e-4, 4000, 0.9, 2000), "th": (0.2, 300, 0.6, 50),
    "nonms": (1e-4, 1000, 1.0, 256),
}  # fmt: skip


@pytest.mark.parametrize("variant", [*VARIANTS, "onestage"])
def test_candidates_of_levels(shared, variant):
    golden = centernet2.golden_file(shared, "decode")
    one_stage = variant == "onestage"
    limits = Limits(0.05, 1000, 0.6, 100) if one_stage else Limits(*VARIANTS[variant])
    kind = "cls_logit" if one_stage else "logit"
    heatmaps, sides = ([torch.from_numpy(golden[f"{k}_l{i}"]) for i in range(5)] for k in (kind, "reg"))
    found = level_candidates(heatmaps, sides, (8, 16, 32, 64, 128), limits)
    found = found if one_stage else found._replace(scores=found.scores.sqrt())
    found = found if variant == "nonms" else suppress(found, limits.nms, limits.most)
    found = strongest(found, limits.most, ties=64)
    for i in range(2):
        boxes, scores = golden[f"{variant}_boxes_{i}"], golden[f"{variant}_scores_{i}"]
        count = int((found.scores[i] > 0).sum())
        assert count == len(scores)
        order = np.argsort(-scores, kind="stable") if variant == "nonms" else slice(None)
        assert np.allclose(found.scores[i, :count], scores[order], atol=1e-6)
        assert np.allclose(found.boxes[i, :count], boxes[order], atol=1e-3)
        if one_stage:
            assert np.array_equal(found.labels[i, :count], golden[f"{variant}_classes_{i}"])


def test_nms_by_class(shared):
    golden = centernet2.golden_file(shared, "nms")
    for case in sorted({name.split("/")[0] for name in golden.files}):
        boxes, scores, classes = (torch.from_numpy(golden[f"{case}/{n}"]) for n in ("boxes", "scores", "classes"))
        found = suppress(Found(boxes[None], scores[None], classes[None].long()), float(golden[f"{case}/iou_threshold"]))
        kept = (found.scores[0] > 0).nonzero().flatten()
        assert np.array_equal(kept, np.sort(golden[f"{case}/keep"])), case


@pytest.mark.parametrize("variant", ["default", "strict", "all", "none"])
def test_selection_of_detections(shared, variant):
    golden = centernet2.golden_file(shared, "fast_rcnn_inference")
    floor, threshold, count = golden[f"{variant}/params"].tolist()
    boxes, scores = (torch.from_numpy(golden[name]) for name in ("boxes", "scores"))
    image_hw = torch.from_numpy(golden["image_hw"])[None]
    clipped = box_math.clip_boxes(boxes[None], image_hw)
    found = select_detections(
        clipped, scores[None, :, :-1], floor, threshold, int(count) if count > 0 else scores.numel()
    )  # fmt: skip
    kept = int((found.scores > 0).sum())
    assert kept == len(golden[f"{variant}/scores"])
    assert np.allclose(found.scores[0, :kept], golden[f"{variant}/scores"])
    assert np.allclose(found.boxes[0, :kept], golden[f"{variant}/pred_boxes"], atol=1e-4)
    assert np.array_equal(found.labels[0, :kept], golden[f"{variant}/classes"])


def test_schedule_and_sizes_are_those_of_detectron2(shared):
    from ctnet.codec.affine import short_side_view
    from ctnet.config import load_recipe
    from ctnet.engine.schedule import lr_factor

    document = json.loads((shared / "golden" / "centernet2" / "resize_and_schedule.json").read_text())
    for height, width, short, long, new_h, new_w in document["resize_shortest_edge"]["rows"]:
        assert short_side_view((height, width), short, long, 32).resized_hw == (new_h, new_w)
    for name, theirs in (("centernet2_r50", "CenterNet2_R50_1x"), ("centernet_fpn_r50", "CenterNet-FPN_R50_1x")):
        recipe = load_recipe(name).recipe
        for step, rate in document["lr_at_iteration"][theirs].items():
            factor = lr_factor(recipe.schedule, int(step), 7330, 90_000)
            assert recipe.optimizer.lr * factor == pytest.approx(rate, rel=1e-6), step
