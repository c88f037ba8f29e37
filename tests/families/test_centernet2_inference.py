"""CenterNet2's published detectors against its own code: maps, proposals, each stage, and detections."""

import json
import re

import numpy as np
import pytest
import torch

import centernet2
from ctnet.codec.boxes import clip_boxes, correct_boxes, correction_weights
from ctnet.config import Evaluation
from ctnet.families import cascade, family_of
from ctnet.types import Instances

FILES = {
    "infer_cn2f": "CenterNet2-F_R50_1x", "infer_onestage": "CenterNet-FPN_R50_1x",
    "infer_dla_bifpn_p3": "CenterNet2_DLA-BiFPN-P3_4x",
}  # fmt: skip


@pytest.mark.parametrize("name", centernet2.MODELS)
def test_tensors_are_those_of_the_original(shared, name):
    theirs = centernet2.golden_json(shared, "keys_other_configs")[name]["entries"]
    family = family_of(centernet2.recipe_of(name))
    with torch.device("meta"):
        network = family.build(80)
    names = centernet2.original_names(family, network)
    own = {names[key]: list(tensor.shape) for key, tensor in network.state_dict().items()}
    optional = ("num_batches_tracked", "pixel_mean", "pixel_std")
    theirs = [e for e in theirs if not re.search(r"level[34]\.project", e["key"])]  # which feed nothing
    expected = {e["key"]: e["shape"] for e in theirs if not e["key"].endswith(optional)}
    assert {key: shape for key, shape in own.items() if not key.endswith(optional)} == expected
    trained = {names[key] for key, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained == {e["key"] for e in theirs if e["trainable"]}


def test_each_stage_of_the_cascade(shared):
    golden = centernet2.golden_file(shared, "infer_noise")
    family, network, _ = centernet2.original("CenterNet2_R50_1x")
    images, image_hw = centernet2.padded([centernet2.image(shared, "noise")])
    with torch.inference_mode():
        dense = network.eval().first(images)
        found = family.proposals(dense)
        check_maps(dense, golden, "")
        assert np.allclose(found.boxes[0], golden["prop_boxes_0"], atol=2e-3)
        assert np.allclose(found.scores[0], golden["prop_scores_0"], atol=1e-5)
        boxes = found.boxes
        for stage, module in enumerate(network.roi):
            boxes = clip_boxes(boxes, image_hw) if stage else boxes
            assert np.allclose(boxes[0], golden[f"stage{stage}_in_boxes"], atol=2e-3)
            pooled = cascade.pool(dense[2], family.strides, boxes, 7)
            assert np.allclose(pooled[::16, ::32], golden[f"stage{stage}_pooled_sub"], atol=1e-3)
            logits, corrections = module(pooled)
            assert np.allclose(logits, golden[f"stage{stage}_cls_logits"], atol=5e-4)
            assert np.allclose(corrections, golden[f"stage{stage}_deltas"], atol=5e-4)
            boxes = correct_boxes(boxes, corrections.view_as(boxes), correction_weights(stage))
            assert np.allclose(boxes[0], golden[f"stage{stage}_out_boxes"], atol=2e-3)
        check_detections(family.detect(network, images, family.recipe.evaluation, image_hw), golden, "det_{}_0")


def check_maps(dense, golden, prefix):
    for level, (heatmap, box) in enumerate(zip(*dense[:2], strict=True), 3):
        assert np.allclose(box, golden[f"{prefix}reg_p{level}"], atol=1e-4)
        if f"{prefix}hm_logit_p{level}" in golden.files:
            assert np.allclose(heatmap, golden[f"{prefix}hm_logit_p{level}"], atol=1e-4)
        else:
            assert np.allclose(heatmap[:, ::8], golden[f"{prefix}cls_logit_sub_p{level}"], atol=1e-4)


def check_detections(found: Instances, golden, pattern, image=0, scale=None):
    boxes, scores, labels = (golden[pattern.format(name)] for name in ("boxes", "scores", "classes"))
    count = int((found.scores[image] > 0).sum())
    ours = found.boxes[image, :count].numpy()
    if scale is not None:  # as the original does it last: other pixels, and boxes without an area dropped
        ours = np.clip(ours * scale[1], 0, scale[0])
        count = int((kept := (ours[:, 2:] > ours[:, :2]).all(1)).sum())
        ours, found = ours[kept], Instances(*(values[:, : len(kept)][:, kept] for values in found.named().values()))
    assert count == len(scores)
    assert np.allclose(found.scores[image, :count], scores, atol=1e-5)
    assert np.array_equal(found.labels[image, :count], labels)
    assert np.allclose(ours, boxes, atol=2e-3 * (1 if scale is None else scale[1].max()))


def to_pixels(size_hw, image_hw):
    """Return limits and factors (4,) that bring boxes into an image of this size."""
    height, width = size_hw.tolist()
    factors = np.array([width / int(image_hw[0, 1]), height / int(image_hw[0, 0])] * 2, np.float32)
    return np.array([width, height] * 2, np.float32), factors


@pytest.mark.parametrize("picture", ["noise", "photo"])
@pytest.mark.parametrize("file", FILES)
def test_other_detectors(shared, file, picture):
    golden = centernet2.golden_file(shared, file)
    family, network, _ = centernet2.original(FILES[file])
    images, image_hw = centernet2.padded([centernet2.image(shared, picture)], family.size_multiple)
    assert images.shape == tuple(golden[f"{picture}/padded_shape"])
    with torch.inference_mode():
        dense = network.eval().first(images)
        check_maps(dense, golden, f"{picture}/")
        if family.model.roi_stages:
            found = family.proposals(dense)
            assert np.allclose(found.boxes[0], golden[f"{picture}/prop_boxes"], atol=2e-3)
        found = family.detect(network, images, family.recipe.evaluation, image_hw)
    size = to_pixels(golden[f"{picture}/post_size_hw"], image_hw)
    check_detections(found, golden, f"{picture}/post_{{}}", scale=size)


def test_few_detections(shared):
    golden = centernet2.golden_file(shared, "infer_thresholds")
    _, network, _ = centernet2.original("CenterNet2_R50_1x")
    settings = {"score_floor": 0.45, "top_k": 30}
    family = family_of(
        centernet2.recipe_of("CenterNet2_R50_1x", settings, nms=0.5, score_floor=0.2, proposal_nms=0.7, proposals=100)
    )
    for picture in ("noise", "photo"):
        images, image_hw = centernet2.padded([centernet2.image(shared, picture)])
        with torch.inference_mode():
            found = family.detect(network.eval(), images, family.recipe.evaluation, image_hw)
        check_detections(found, golden, f"a_{picture}_det_{{}}_0")


def test_a_padded_batch_gives_what_single_images_give(shared):
    """Of one size after padding, as the original batches them; both images keep their own edges."""
    family, network, _ = centernet2.original("CenterNet2_R50_1x")
    pictures = [centernet2.image(shared, name)[:250, :320] for name in ("noise", "photo")]
    pictures[1] = pictures[1][:230, :300]
    images, image_hw = centernet2.padded(pictures)
    settings = Evaluation(score_floor=0.3)
    with torch.inference_mode():
        both = family.detect(network.eval(), images, settings, image_hw)
        for i in range(2):
            alone = family.detect(network, images[i : i + 1], settings, image_hw[i : i + 1])
            count = int((alone.scores[0] > 0).sum())
            assert count == int((both.scores[i] > 0).sum()) > 0
            assert torch.allclose(both.boxes[i, :count], alone.boxes[0, :count], atol=2e-3)
            assert torch.equal(both.labels[i, :count], alone.labels[0, :count])
            assert (alone.boxes[0, :count] <= image_hw[i].flip(0).repeat(2)).all()


def test_flip_test_sees_a_mirrored_image_alike(shared):
    family, network, _ = centernet2.original("CenterNet-FPN_R50_1x")
    picture = centernet2.image(shared, "photo")
    settings = Evaluation(flip=True, top_k=20)
    width = picture.shape[1]
    with torch.inference_mode():
        ours, theirs = (
            family.detect(network.eval(), *((batch := centernet2.padded([one]))[0], settings, batch[1]))
            for one in (picture, np.ascontiguousarray(picture[:, ::-1]))
        )
    x1, y1, x2, y2 = theirs.boxes[0].unbind(-1)
    assert torch.allclose(ours.scores, theirs.scores, atol=1e-4)
    assert torch.allclose(ours.boxes[0], torch.stack([width - x2, y1, width - x1, y2], -1), atol=1e-2)


def test_fresh_weights_are_spread_as_in_the_original(shared):
    stats = json.loads((shared / "golden" / "centernet2" / "init_stats_CenterNet2_R50_1x.json").read_text())
    family = family_of(centernet2.recipe_of("CenterNet2_R50_1x"))
    torch.manual_seed(0)
    network = family.build(80)
    names = centernet2.original_names(family, network)
    for key, parameter in network.named_parameters():
        tensor = parameter.detach()
        if (expected := stats.get(names[key])) and tensor.dim() > 1:
            assert float(tensor.std()) == pytest.approx(expected["std"], rel=0.08), key
            assert float(tensor.abs().max()) < 2 * max(abs(expected["min"]), abs(expected["max"])), key
        elif expected:
            assert float(tensor.mean()) == pytest.approx(expected["mean"], abs=1e-3), key
