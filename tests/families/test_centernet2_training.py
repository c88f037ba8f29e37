"""Whole training steps of CenterNet2's published detectors against its own code: losses, boxes and gradients."""

import numpy as np
import pytest
import torch

import centernet2
from ctnet.families import cascade
from families.test_centernet2_targets import batch_of, objects_of

CASES = ("both", "noempty", "allempty")
PARTS = {
    "center": "centernet_agn_pos", "background": "centernet_agn_neg", "box": "centernet_loc",
    **{f"roi{k + 1}_class": f"cls_stage{k}" for k in range(3)},
    **{f"roi{k + 1}_box": f"box_reg_stage{k}" for k in range(3)},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _first_in_order(monkeypatch):
    """Draw the first boxes in order, as the golden numbers have it."""
    monkeypatch.setattr(cascade, "draw", lambda boxes: torch.linspace(0, 0.9, boxes.shape[1]).expand(boxes.shape[:2]))


def step(shared, name, golden, case, *, most=None):
    """Return family, network, losses and targets of a step, whose gradients are there."""
    family, network, names = centernet2.original(name)
    network.train().zero_grad(set_to_none=True)
    images, _ = centernet2.padded([centernet2.image(shared, kind) for kind in ("noise", "photo")])
    boxes, classes = objects_of(golden, case)
    targets = batch_of(family.encoder(80), boxes, classes, tuple(images.shape[2:]), most)
    return family, network, names, images, targets


def check_gradients(network, names, golden, case, norms):
    for ours, parameter in network.named_parameters():
        key = names[ours]
        if parameter.requires_grad and norms[key] is not None:
            norm = float(torch.linalg.vector_norm(parameter.grad.double()))
            assert norm == pytest.approx(norms[key], rel=2e-3, abs=1e-4), key
        if f"{case}/grad/{key}" in golden.files:
            expected = golden[f"{case}/grad/{key}"]
            assert np.allclose(parameter.grad, expected, rtol=5e-3, atol=2e-3 * np.abs(expected).max() + 1e-6), key


@pytest.mark.parametrize("case", CASES)
def test_a_step_of_two_stages(shared, case, monkeypatch):
    golden = centernet2.golden_file(shared, "train_cn2")
    family, network, names, images, targets = step(shared, "CenterNet2_R50_1x", golden, case)
    stages = []
    compare = cascade._compare
    monkeypatch.setattr(
        cascade, "_compare", lambda logits, corrections, matched, stage: (
            stages.append((logits.detach(), corrections.detach(), matched)),
            compare(logits, corrections, matched, stage),
        )[1],
    )  # fmt: skip
    family_hw = centernet2.padded([centernet2.image(shared, kind) for kind in ("noise", "photo")])[1]
    monkeypatch.setattr("ctnet.families.centernet2._whole", lambda _: family_hw)
    parts = family.losses(network, images, targets, family.normalisers(targets))
    total = family.total(parts)
    total.backward()
    document = centernet2.golden_json(shared, "train_cn2_grads")[case]
    for ours, theirs in PARTS.items():
        value = float(parts[ours].detach()) * family.loss_weights[ours]
        assert value == pytest.approx(document["losses"][f"loss_{theirs}"], rel=1e-4, abs=1e-6), ours
    assert float(total.detach()) == pytest.approx(document["total"], rel=1e-5)
    for number, (logits, corrections, matched) in enumerate(stages):
        exists = matched.exists
        assert exists.sum(1).tolist() == golden[f"{case}/stage{number}_num"].tolist()
        assert np.allclose(matched.boxes[exists], golden[f"{case}/stage{number}_boxes"], atol=2e-3)
        assert np.array_equal(matched.labels[exists], golden[f"{case}/stage{number}_gt_classes"])
        expected = golden[f"{case}/stage{number}_cls_logits"]
        every = len(exists[exists]) // len(expected) if case == "allempty" else 1
        there = logits[exists.flatten()][:: 8 if case == "allempty" else every]
        assert np.allclose(there, expected, atol=1e-3)
        assert np.allclose(corrections[exists], golden[f"{case}/stage{number}_deltas"], atol=5e-4)
    check_gradients(network, names, golden, case, document["grad_l2"])


@pytest.mark.parametrize("case", CASES)
def test_a_step_of_one_stage(shared, case):
    golden = centernet2.golden_file(shared, "train_onestage")
    family, network, names, images, targets = step(shared, "CenterNet-FPN_R50_1x", golden, case)
    parts = family.losses(network, images, targets, family.normalisers(targets))
    family.total(parts).backward()
    document = centernet2.golden_json(shared, "train_onestage_grads")[case]
    for ours, theirs in {"center": "pos", "background": "neg", "box": "loc"}.items():
        value = float(parts[ours].detach()) * family.loss_weights[ours]
        assert value == pytest.approx(document["losses"][f"loss_centernet_{theirs}"], rel=1e-5, abs=1e-6), ours
    check_gradients(network, names, golden, case, document["grad_l2"])
