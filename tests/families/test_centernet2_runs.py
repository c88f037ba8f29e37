"""CenterNet2 in use: training and tests by commands, shapes that do not depend on data, ranks, and odd input."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from ctnet.config import Evaluation, load_recipe
from ctnet.detect.detector import prepare_detector
from ctnet.devices import open_device
from ctnet.families import cascade, family_of
from ctnet.families.found import Found
from ctnet.types import Category
from e2e.test_distributed import finish, train
from families.test_centernet2_targets import batch_of
from tiny import edit, train_file

SMALL = (
    "model.neck_channels=64", "model.head_convs=1", "model.roi_channels=16", "model.proposals=20", "loss.rois=16",
    "loss.proposals=60", "loss.candidates=100", "model.candidates=100", "data.image_size=64",
)  # fmt: skip
RUN = (*SMALL, "data.workers=0", "train.batch_size=2", "augment.photometric=0", "train.log_every=1")


def small_family(*settings, recipe="centernet2_r18"):
    return family_of(load_recipe(recipe, [*SMALL, *settings]).recipe)


def lively_network(family, classes=3):
    """Return a network whose heatmap differs from cell to cell."""
    torch.manual_seed(2)
    network = family.build(classes)
    for module in (network.head.heatmap, network.head.box, *(stage.box for stage in network.roi)):
        torch.nn.init.normal_(module.weight, std=0.1)
    for stage in network.roi:
        torch.nn.init.normal_(stage.classes.weight, std=0.5)
    network.head.heatmap.bias.data.zero_()
    network.head.box.bias.data.fill_(2.0)
    return network


def ragged(family, most=None):
    boxes = [
        np.array([[4, 4, 40, 50], [20, 20, 60, 44], [1, 30, 9, 39]], np.float32), np.zeros((0, 4), np.float32),
        np.array([[10, 8, 58, 60]], np.float32),
    ]  # fmt: skip
    labels = [np.arange(len(one)) % 3 for one in boxes]
    return batch_of(family.encoder(3), boxes, labels, (64, 64), most)


@pytest.mark.parametrize("recipe", ["centernet2_r18", "centernet_fpn_r50_rgb"])
def test_static_shapes_give_what_others_give(recipe):
    """Ragged batches: other numbers of objects, proposals and boxes in each image, none in one."""
    images = torch.randn(3, 3, 64, 64)
    results = []
    for static in (False, True):
        family = small_family("model.backbone=resnet18", "model.frozen_stages=0", recipe=recipe)
        family.static_shapes = static
        network = lively_network(family).train()
        targets = ragged(family, 7 if static else None)
        parts = family.losses(network, images, targets, family.normalisers(targets))
        family.total(parts).backward()
        gradients = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
        with torch.inference_mode():
            network.eval()
            found = family.detect(network, images, Evaluation(top_k=15, score_floor=0.01))
        results.append((parts, gradients, found))
        if static and family.model.roi_stages:
            assert found.boxes.shape[1] >= 15
            with torch.inference_mode():
                assert network.roi is not None
                proposals = family.proposals(network.first(images))
            assert proposals.boxes.shape[1] == min(20 + 64, proposals.boxes.shape[1])
    (parts, gradients, found), (static_parts, static_gradients, static_found) = results
    assert parts.keys() == static_parts.keys()
    for name, value in parts.items():
        assert torch.allclose(value, static_parts[name], rtol=1e-5, atol=1e-7), name
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, static_gradients[name], rtol=1e-3, atol=1e-6), name
    count = min(found.scores.shape[1], 15)
    assert (found.scores[:, :count] > 0).sum() > 10
    assert torch.allclose(found.scores[:, :count], static_found.scores[:, :count], atol=1e-6)
    assert torch.allclose(found.boxes[:, :count], static_found.boxes[:, :count], atol=1e-4)


def test_boxes_are_drawn_alike_whatever_is_beside_them():
    boxes = torch.randint(0, 100, (2, 50, 4)) + 0.25
    padded = torch.cat([boxes + 1e-5, torch.zeros(2, 30, 4)], 1)
    assert torch.equal(cascade.draw(boxes), cascade.draw(padded)[:, :50])
    drawn = cascade.draw(torch.rand(1, 20_000, 4) * 500)
    counts = torch.histc(drawn, 10, 0, 1)
    assert counts.min() > 1800
    assert counts.max() < 2200


def steps_of(folder):
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == "step"]


def train_and_read(ctnet, data, out, *settings):
    code, _, err = ctnet(
        "train", "centernet2_r18", "--data", data, "--device", "cpu", "--out", out, "--json", *RUN, *settings
    )  # fmt: skip
    assert code == 0, err
    return steps_of(out)


def test_a_run_trains_tests_and_is_evaluated_again(ctnet, small_set, tmp_path):
    steps = train_and_read(ctnet, small_set, tmp_path / "run", "schedule.epochs=2")
    assert {"center", "background", "box", "roi1_class", "roi2_box"} <= steps[-1].keys()
    best = tmp_path / "run" / "checkpoints" / "best.safetensors"
    trained = json.loads((tmp_path / "run" / "summary.json").read_text())
    code, out, err = ctnet("eval", "--weights", best, "--data", small_set, "--device", "cpu", "--json")
    assert code == 0, err
    assert json.loads(out)["metrics"]["AP"] == pytest.approx(trained["AP"], abs=1e-6)
    for words in (("--flip",), ("--scales", "0.75,1")):
        code, _, err = ctnet("eval", "--weights", best, "--data", small_set, "--device", "cpu", *words)
        assert code == 0, err


def test_two_ranks_one_of_them_without_objects(small_set, tmp_path):
    """Both ranks' losses add up to those of one process with the whole batch."""

    def without_boxes(content):
        kept = {image["id"] for image in content["images"][::2]}
        content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in kept]

    edit(train_file(small_set), without_boxes)
    settings = ("model.frozen_norms=true", "optimizer.name=sgd", "optimizer.lr=1e-3", "--epochs", 1, *RUN)
    common = ("centernet2_r18", "--data", small_set, "--device", "cpu", "--amp", "off", "train.eval_every=0", *settings)
    for out, more in (("one", ("train.batch_size=2",)), ("two", ("--nproc", 2, "train.batch_size=1"))):
        finish(train(*common, "--out", tmp_path / out, *more))
    one, two = (steps_of(tmp_path / name) for name in ("one", "two"))
    assert len(one) == len(two) == 6
    for name in ("loss", "center", "background", "box", "roi1_class", "roi1_box", "roi2_class"):
        assert [step[name] for step in two] == pytest.approx([step[name] for step in one], rel=1e-3, abs=1e-5), name


def test_nothing_above_the_threshold_and_everything_suppressed():
    for setting in ("model.score_floor=0.9999", "model.proposal_nms=0"):
        family = small_family(setting)
        network = lively_network(family)
        images, targets = torch.randn(3, 3, 64, 64), ragged(family)
        parts = family.losses(network.train(), images, targets, family.normalisers(targets))
        assert all(torch.isfinite(part) for part in parts.values())
        family.total(parts).backward()
        with torch.inference_mode():
            found = family.detect(network.eval(), images, Evaluation())
        if "floor" in setting:
            assert not found.scores.any()
        assert torch.isfinite(found.boxes).all()


def test_boxes_that_collapse_are_dropped_and_cost_nothing():
    """Refined boxes outside of the image have no area after clipping."""
    stage = torch.nn.Linear(4, 1)
    stage.forward = lambda x: (
        torch.zeros(len(x), 3, requires_grad=True),
        torch.tensor([[-1e4, 0.0, 0.0, 0.0]]).expand(len(x), 4),
    )
    boxes = torch.tensor([[[10.0, 10, 30, 30], [0, 0, 2, 900]]])
    labels, exists = torch.tensor([[0, 2]]), torch.ones(1, 2, dtype=torch.bool)
    matched = cascade.Matched(boxes, exists, labels, boxes)
    seen = []

    def match_again(refined, there, number):
        seen.append(there)
        return matched._replace(boxes=refined, exists=there)

    found = cascade.teach(
        [stage, stage], lambda b: torch.zeros(b.shape[1], 4), matched, match_again, torch.tensor([[64, 64]])
    )  # fmt: skip
    assert not seen[0].any()
    assert [float(loss.boxes) for loss in found] == [2.0, 0.0]
    assert float(found[1].classes.detach()) == 0.0
    assert all(torch.isfinite(torch.stack(tuple(loss))).all() for loss in found)


def test_proposals_with_extreme_sides_are_pooled():
    levels = [torch.randn(1, 4, 64 >> i, 64 >> i) for i in range(5)]
    boxes = torch.tensor([[[0.0, 5, 512, 5.01], [5, 0, 5.01, 512], [-1e4, -1e4, 1e4, 1e4], [3, 3, 3, 3]]])
    pooled = cascade.pool(levels, (8, 16, 32, 64, 128), boxes, 7)
    assert pooled.shape == (4, 4, 7, 7)
    assert torch.isfinite(pooled).all()


@pytest.mark.parametrize("short_side", [None, 96])
def test_tiny_long_and_large_images(short_side):
    family = small_family(
        *([] if short_side is None else [f"evaluation.short_side={short_side}", "evaluation.long_side=256"])
    )
    detector = prepare_detector(
        lively_network(family), family, [Category(i, str(i)) for i in range(3)], open_device("cpu"), "fp32"
    )  # fmt: skip
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 255, (*hw, 3), dtype=np.uint8) for hw in ((1, 1), (3, 900), (700, 2), (1500, 1400), (64, 90))
    ]
    for image, found in zip(images, detector.detect(images), strict=True):
        assert np.isfinite(found.boxes_xyxy).all()
        if short_side is not None and len(found):
            height, width = image.shape[:2]
            assert found.boxes_xyxy.min() >= -1e-3
            assert (found.boxes_xyxy <= np.array([width, height] * 2) + 1e-2).all()


@pytest.mark.parametrize("classes", [1, 1203])
def test_class_counts(classes):
    """With the classes of LVIS as well, a step and a detection take bounded memory."""
    program = f"""
import resource, numpy as np, torch
from families.test_centernet2_runs import *
torch.set_num_threads(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for recipe in ("centernet2_r18", "centernet_fpn_r50_rgb"):
    family = small_family("model.backbone=resnet18", "model.frozen_stages=0", recipe=recipe)
    network = lively_network(family, {classes})
    boxes = np.random.default_rng(0).uniform(0, 200, (300, 4)).astype(np.float32)
    boxes[:, 2:] = boxes[:, :2] + 30
    labels = np.arange(300) % {classes}
    targets = batch_of(family.encoder({classes}), [boxes, boxes[:9]], [labels, labels[:9]], (256, 256))
    images = torch.randn(2, 3, 256, 256)
    parts = family.losses(network.train(), images, targets, family.normalisers(targets))
    family.total(parts).backward()
    assert all(torch.isfinite(part) for part in parts.values())
    with torch.inference_mode():
        found = family.detect(network.eval(), images, Evaluation(score_floor=0.0))
    assert found.labels.max() < {classes} and found.boxes.shape[1] <= 100 + 64
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False,
        env={"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": "/tmp"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < (2200 if classes > 1 else 1200)  # MB


def test_settings_that_do_not_fit_together_are_named(ctnet):
    for words, expected in (
        ("model.neck=bifpn", "model.levels=3"), ("model.backbone=hourglass104", "pyramid"),
        ("model.neck_channels=60", "multiple of 32"), ("loss.more_centers=true", "roi_stages=0"),
        ("loss.size_ranges=[[0,9],[3,30],[9,99]]", "5 ranges"), ("model.stride_in_1x1=true", "does not apply"),
        ("model.head_channels=3", "no setting"),
    ):  # fmt: skip
        code, _, err = ctnet("config", "validate", "centernet2_r18", words)
        assert code == 2
        assert expected in err, err


def test_found_boxes_are_taken_by_index():
    found = Found(torch.arange(8.0).view(1, 2, 4), torch.tensor([[0.2, 0.9]]), torch.tensor([[3, 4]]))
    taken = found.take(torch.tensor([[1, 1, 0]]))
    assert taken.labels.tolist() == [[4, 4, 3]]
    assert taken.boxes[0, 0].tolist() == [4, 5, 6, 7]
