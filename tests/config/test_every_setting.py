"""Every setting changes something: a row for each says what is looked at, and with which others it is set."""

import hashlib
import json
import shutil
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ctnet.config import load_recipe
from ctnet.config.effects import NEEDS, without_effect
from ctnet.config.load import flatten
from ctnet.config.schema import EITHER_OR
from ctnet.data.checks.usable import look_over
from ctnet.data.dataset import open_dataset
from ctnet.data.image import read_image
from ctnet.data.loader import EpochOrder, worker_count
from ctnet.data.repeat import repeat_factors
from ctnet.detect.detector import Detector
from ctnet.detect.views import network_input, render_views
from ctnet.devices import open_device
from ctnet.engine import train as engine
from ctnet.engine.precision import choose_precision
from ctnet.engine.processes.world import World
from ctnet.engine.report import Silence
from ctnet.engine.schedule import lr_factor, peak_lr
from ctnet.engine.state import new_state, seed_generators
from ctnet.engine.step import Updater
from ctnet.engine.trainer import training_samples
from ctnet.errors import CtnetError
from ctnet.families import build_network, family_of
from lively import lively

TINY = (
    "model.backbone=resnet18", "model.neck=deform", "model.neck_channels=[8,8,8]", "model.head_channels=8",
    "augment.crop=random",
    "data.image_size=64", "data.workers=0", "train.batch_size=4", "train.amp=fp32", "evaluation.flip=false",
    "optimizer.name=adamw", "optimizer.lr=1e-3", "schedule.warmup=0", "loss.giou=0", "evaluation.test_scale=1",
)  # fmt: skip
RUN = ("model.neck=plain", "schedule.epochs=2", "train.log_every=1", "train.sample_batches=0", "train.ema=0")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight and four images: one without objects, one whose first object is a crowd, and a split of another name."""
    from ctnet.data.demo import write_demo

    folder = write_demo(
        tmp_path_factory.mktemp("settings") / "shapes", images_train=8, images_val=4, seed=3, size=(96, 120)
    )
    file = folder / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != content["images"][0]["id"]]
    first = next(a for a in content["annotations"] if a["image_id"] == content["images"][1]["id"])
    first["iscrowd"] = 1
    file.write_text(json.dumps(content))
    broken = shutil.copytree(folder, folder.parent / "broken")
    (broken / "images" / "train" / content["images"][1]["file_name"]).write_bytes(b"no image")
    without = shutil.copytree(folder, folder.parent / "without") / "annotations" / "instances_train.json"
    without.write_text(
        json.dumps(content | {"annotations": [a | {"bbox": [1, 1, 0, 0]} for a in content["annotations"]]})
    )
    deep = np.random.default_rng(0).integers(0, 4000, (8, 8, 3), np.uint16)
    cv2.imwrite(str(folder.parent / "deep.png"), deep)
    return folder


def digest(*arrays) -> str:
    total = hashlib.sha256()
    for array in arrays:
        total.update(
            np.ascontiguousarray(array.detach().numpy() if isinstance(array, torch.Tensor) else array).tobytes()
        )
    return total.hexdigest()


def train_set(recipe):
    return open_dataset(recipe.data.path, recipe.data.train_split)


def network(recipe):
    seed_generators(recipe.seed)
    built = build_network(recipe.model, 6)
    return [(name, tuple(t.shape), digest(t)) for name, t in built.state_dict().items()], str(built)


def samples(recipe):
    found = training_samples(train_set(recipe), recipe)
    several = [found[epoch, index] for epoch in (0, 1) for index in range(4)]
    return [digest(s.image, s.lighting, *s.targets.maps.values(), *s.targets.rows.values()) for s in several]


def order(recipe):
    return list(EpochOrder(8, recipe.train.images_per_process(), 2, recipe.seed, shuffle=recipe.data.shuffle))


def repeated(recipe):
    factors = repeat_factors(train_set(recipe), recipe.data.repeat_threshold)
    return None if factors is None else digest(factors)


def sets(recipe):
    _, *found = engine.open_data(recipe, Silence())
    kept = engine._with_objects(found[0], recipe)
    return len(kept.images), [None if one is None else one.split for one in found]


def a_broken_image(recipe):
    try:
        items = training_samples(open_dataset(Path(recipe.data.path).with_name("broken"), "train"), recipe)
        return items[0, 1].image_id
    except CtnetError as error:
        return error.message


def a_set_without_boxes(recipe):
    annotations = open_dataset(Path(recipe.data.path).with_name("without"), "train")
    try:
        return len(look_over(annotations, settings=recipe.data).findings)
    except CtnetError as error:
        return error.message


def twelve_bits(recipe):
    return digest(read_image(Path(recipe.data.path).with_name("deep.png"), value_range=recipe.data.value_range))


def weights_after_updates(recipe, processes=1):
    """Two updates, the first with a gradient so large that it is clipped."""
    device = open_device("cpu")
    seed_generators(recipe.seed)
    family = family_of(recipe)
    precision = choose_precision(recipe.train.amp, device, recipe.train.loss_scale)
    share = recipe.train.images_per_process(processes)
    lr, _ = peak_lr(recipe.optimizer, share * recipe.train.accumulate * processes)
    state = new_state(family, 6, device, precision, lr, synchronised=recipe.train.sync_bn)
    updater = Updater(state, device, precision, World())
    from ctnet.data.loader import collate

    items = training_samples(train_set(recipe), recipe)
    for step in range(2):
        batches = [collate([items[step, i] for i in range(1, 3)]) for _ in range(recipe.train.accumulate)]
        updater.update(batches, lr)
    average = digest(*state.average.network.state_dict().values()) if state.average else None
    strides = [tuple(t.stride()) for t in state.network.parameters()]
    kinds = sorted({type(m).__name__ for m in state.network.modules()})
    return digest(*state.network.state_dict().values()), average, strides, kinds, lr, share, precision.sentence()


def rates(recipe):
    return [lr_factor(recipe.schedule, step, 10, 10 * recipe.schedule.epochs) for step in range(0, 600, 7)]


def losses(recipe):
    family = family_of(recipe)
    items = training_samples(train_set(recipe), recipe)
    from ctnet.data.loader import collate

    targets = collate([items[0, i] for i in range(1, 4)]).targets
    generator = torch.Generator().manual_seed(1)
    heads = {"heatmap_logits": 6, "size": 2, "offset": 2}
    outputs = {name: torch.randn(3, width, 16, 16, generator=generator) for name, width in heads.items()}
    parts = family.compare([outputs], targets, family.normalisers(targets))
    return digest(family.total(parts))


@lru_cache
def answering():
    recipe = load_recipe("centernet_resdcn18", TINY).recipe
    torch.manual_seed(5)
    return lively(build_network(recipe.model, 6), (64, 64)).eval()


def detections(recipe):
    calls = []
    device = open_device("cpu")
    detector = Detector(answering(), recipe, train_set(recipe).categories, device)
    hook = detector.model.register_forward_pre_hook(lambda _, inputs: calls.append(tuple(inputs[0].shape)))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (90, 130, 3), np.uint8) for _ in range(3)]
    found = detector.detect(images)
    hook.remove()
    return [digest(f.boxes_xyxy, f.scores, f.labels) for f in found], calls


def network_sees(recipe):
    image = np.random.default_rng(0).integers(0, 255, (90, 130, 3), np.uint8)
    views = render_views(image, recipe.data.image_size, 32, recipe.evaluation)
    x = network_input(views[:1], recipe.data, torch.device("cpu"))
    return tuple(x.shape), digest(x)


def run(recipe, folder):
    """What a run leaves: its files, and what is logged where."""
    error = None
    try:
        engine.train(recipe, engine.RunOptions(folder), Silence(), open_device("cpu"), World())
    except CtnetError as caught:
        error = caught.message
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "tfevents" not in path.name)
    return files, [(line["event"], line.get("step"), line.get("scale")) for line in lines], error


FP16 = ("train.loss_scale=1024", "optimizer.name=sgd", "optimizer.lr=1e6", "loss.size=1e6", "optimizer.clip_norm=0")
# key: (what is looked at, its other value, settings beside)
ROWS = {
    "name": (lambda r: r.name, "other", ()),
    "seed": (network, 7, ()),
    "model.family": None,  # one until there are several
    "model.backbone": (network, "resnet34", ()),
    "model.stride_in_1x1": (network, "true", ("model.backbone=resnet50",)),
    "model.neck": (network, "conv", ()),
    "model.neck_channels": (network, "[8,8,16]", ()),
    "model.stride": (network, 8, ()),
    "model.dense_up": (network, "true", ("model.neck=lateral",)),
    "model.relu6": (network, "false", ("model.backbone=mobilenetv2",)),
    "model.deform_bias": (network, "false", ()),
    "model.head_channels": (network, 16, ()),
    "model.heatmap_bias": (network, -4, ()),
    "model.heads": (network, "[heatmap,log_size]", ()),
    "model.class_specific_size": (network, "true", ()),
    "model.predict_offset": (network, "false", ()),
    "data.path": (sets, None, ()),
    "data.train_split": (sets, "val", ()),
    "data.val_split": (sets, "none", ()),
    "data.image_size": (network_sees, 96, ()),
    "data.color_order": (network_sees, "rgb", ()),
    "data.mean": (network_sees, "[0.1,0.2,0.3]", ()),
    "data.std": (network_sees, "[0.1,0.2,0.3]", ()),
    "data.max_objects": (samples, 1, ()),
    "data.repeat_threshold": (repeated, 1.0, ()),
    "data.shuffle": (order, "false", ()),
    "data.crowd": (samples, "true", ()),
    "data.empty_images": (sets, "false", ()),
    "data.value_range": (twelve_bits, "[0,2000]", ()),
    "data.on_bad_image": (a_broken_image, "error", ()),
    "data.allow_background": (a_set_without_boxes, "true", ()),
    "data.workers": (lambda r: worker_count(r.data.workers), 3, ()),
    "augment.crop": (samples, "none", ()),
    "augment.anchors": (samples, "[16]", ("augment.crop=anchor",)),
    "augment.short_sides": (samples, "[64]", ("augment.crop=short_side",)),
    "augment.long_side": (samples, 50, ("augment.crop=short_side",)),
    "augment.scale": (samples, "[0.8,0.9]", ()),
    "augment.border": (samples, 10, ()),
    "augment.shift": (samples, 0.2, ("augment.crop=shift",)),
    "augment.scale_jitter": (samples, 0.1, ("augment.crop=shift",)),
    "augment.rotate": (samples, 10, ()),
    "augment.rotate_probability": (samples, 0.5, ("augment.rotate=10",)),
    "augment.flip": (samples, 0.0, ()),
    "augment.flip_vertical": (samples, 0.5, ()),
    "augment.transpose": (samples, 0.5, ()),
    "augment.photometric": (samples, 0.3, ()),
    "augment.jitter": (samples, "float", ()),
    "augment.lighting": (samples, 0.3, ()),
    "augment.eigenvalues": (samples, "[1,1,1]", ()),
    "augment.eigenvectors": (samples, "[[1,0,0],[0,1,0],[0,0,1]]", ()),
    "optimizer.name": (weights_after_updates, "sgd", ()),
    "optimizer.lr": (weights_after_updates, 2e-3, ()),
    "optimizer.lr_batch": (weights_after_updates, 16, ()),
    "optimizer.lr_scaling": (weights_after_updates, "none", ("optimizer.lr_batch=2",)),
    "optimizer.offset_lr": (weights_after_updates, 0.5, ()),
    "optimizer.weight_decay": (weights_after_updates, 0.2, ()),
    "optimizer.decay": (weights_after_updates, "['*', '!*norm*']", ()),
    "optimizer.betas": (weights_after_updates, "[0.8,0.99]", ()),
    "optimizer.eps": (weights_after_updates, 1e-3, ()),
    "optimizer.momentum": (weights_after_updates, 0.5, ("optimizer.name=sgd",)),
    "optimizer.clip_norm": (weights_after_updates, 1e-3, ("optimizer.name=sgd",)),
    "optimizer.clip_value": (weights_after_updates, 1e-3, ("optimizer.name=sgd",)),
    "optimizer.decay_biases": (weights_after_updates, "true", ()),
    "schedule.epochs": (rates, 30, ()),
    "schedule.name": (rates, "poly", ()),
    "schedule.unit": (rates, "updates", ("schedule.warmup=5",)),
    "schedule.warmup": (rates, 5, ()),
    "schedule.warmup_steps": (rates, 31, ()),
    "schedule.warmup_start": (rates, 0.2, ("schedule.warmup=5",)),
    "schedule.milestones": (rates, "[10]", ("schedule.name=multistep",)),
    "schedule.gamma": (rates, 0.5, ("schedule.name=multistep", "schedule.milestones=[10]")),
    "schedule.power": (rates, 2, ("schedule.name=poly",)),
    "schedule.final": (rates, 0.1, ()),
    "loss.heatmap": (losses, 2, ()),
    "loss.size": (losses, 2, ()),
    "loss.offset": (losses, 2, ()),
    "loss.giou": (losses, 2, ()),
    "loss.heatmap_form": (losses, "mse", ()),
    "loss.sigma": (losses, 1.0, ("loss.heatmap_form=mse",)),
    "loss.regression": (losses, "smooth_l1", ("loss.size_targets=dense", "loss.offset=0")),
    "loss.targets": (losses, "mmdet", ()),
    "loss.size_targets": (losses, "dense", ()),
    "loss.class_weights": (losses, "[1,1,1,1,1,5]", ()),
    "train.freeze": (weights_after_updates, "backbone", ()),
    "train.batch_size": (weights_after_updates, 8, ()),
    "train.global_batch": (weights_after_updates, 8, ()),
    "train.accumulate": (weights_after_updates, 2, ()),
    "train.sync_bn": (weights_after_updates, "true", ()),
    "train.amp": (weights_after_updates, "bf16", ()),
    "train.loss_scale": (weights_after_updates, 1024, ()),
    "train.overflows": (run, 2, (*RUN, *FP16)),
    "train.channels_last": (weights_after_updates, "false", ()),
    "train.ema": (weights_after_updates, 0, ()),
    "train.max_steps": (run, 3, RUN),
    "train.log_every": (run, 2, RUN),
    "train.eval_every": (run, 1, RUN),
    "train.save_every": (run, 2, (*RUN, "train.keep=5")),
    "train.save_every_steps": (run, 1, (*RUN, "train.keep=5")),
    "train.keep": (run, 0, RUN),
    "train.checkpoints": (run, "false", RUN),
    "train.sample_batches": (run, 1, RUN),
    "evaluation.top_k": (detections, 5, ()),
    "evaluation.max_detections": (detections, 5, ()),
    "evaluation.score_floor": (detections, 0.5, ()),
    "evaluation.batch_size": (detections, 2, ()),
    "evaluation.keep_res": (detections, "true", ()),
    "evaluation.short_side": (detections, 70, ()),
    "evaluation.long_side": (detections, 80, ("evaluation.short_side=70",)),
    "evaluation.stretch": (detections, "true", ()),
    "evaluation.image_size": (detections, 70, ()),
    "evaluation.tiles": (detections, 64, ()),
    "evaluation.overlap": (detections, 0.5, ("evaluation.tiles=64",)),
    "evaluation.test_scale": (detections, 1.5, ()),
    "evaluation.flip": (detections, "true", ()),
    "evaluation.scales": (detections, "[0.5,1.0]", ()),
    "evaluation.nms": (detections, "soft", ()),
}  # fmt: skip


def test_every_setting_has_a_row():
    assert set(ROWS) == {key for key, _ in flatten(load_recipe("demo").recipe)}


@pytest.fixture(scope="module")
def plain():
    """What is seen without the other value, by what is looked at and the settings beside."""
    return {}


@pytest.mark.parametrize("key", [key for key, row in ROWS.items() if row is not None])
def test_every_setting_changes_something(key, data, plain, tmp_path):
    look, value, beside = ROWS[key]
    common = [f"data.path={data}", *(one for one in TINY if key not in EITHER_OR or not one.startswith(EITHER_OR[key]))]

    def seen(folder, *more):
        recipe = load_recipe("centernet_resdcn18", [*common, *beside, *more]).recipe
        return look(recipe, tmp_path / folder) if look is run else look(recipe)

    place = (look, beside)
    if place not in plain:
        plain[place] = seen("plain")
        if look is not run:
            assert seen("again") == plain[place]  # it depends on the recipe alone
    if key == "data.path":
        assert sets(load_recipe("demo", TINY).recipe) != plain[place]
    else:
        assert seen("other", f"{key}={value}") != plain[place]


@pytest.mark.parametrize("key", NEEDS)
def test_settings_without_effect_are_warned_about(key):
    _, needed = NEEDS[key]
    without = {
        "augment": ("augment.crop=none", "augment.lighting=0", "augment.photometric=0"),
        "optimizer": ("optimizer.lr_scaling=none", "optimizer.weight_decay=0"),
        "schedule": ("schedule.name=constant", "schedule.warmup=0"),
        "loss": ("model.predict_offset=false",),
        "train": ("train.loss_scale=off",),
        "evaluation": ("evaluation.keep_res=true",),
    }[key.partition(".")[0]]  # fmt: skip
    if key in ("optimizer.betas", "optimizer.eps"):
        without += ("optimizer.name=sgd",)
    elif key == "optimizer.momentum":
        without += ("optimizer.name=adamw",)
    elif key == "optimizer.offset_lr":
        without += ("model.neck=plain",)
    value = ROWS[key][1]
    loaded = load_recipe("centernet_resdcn18", [*without, f"{key}={value}"])
    assert f"{key} has no effect without {needed}" in without_effect(loaded.recipe, loaded.sources)
    shipped = load_recipe("centernet_resdcn18_coco")
    assert without_effect(shipped.recipe, shipped.sources) == []
