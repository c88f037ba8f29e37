"""The recipes that ship: each is valid, says what it is, and can take a step."""

import pytest

from ctnet.config import load_recipe, recipe_names
from ctnet.config.load import _shipped
from ctnet.data.demo import demo_of, write_demo
from ctnet.engine.schedule import peak_lr

# what is published for each: batch, rate at that batch, epochs, drops
PUBLISHED = {
    "centernet_resdcn18_coco": (114, 5e-4, 140, (90, 120)),
    "centernet_resdcn101_coco": (96, 3.75e-4, 140, (90, 120)),
    "centernet_dla34_coco_1x": (128, 5e-4, 140, (90, 120)),
    "centernet_dla34_coco_2x": (128, 5e-4, 230, (180, 210)),
    "centernet_hourglass104_coco": (24, 2.5e-4, 50, (40,)),
    "centernet_resdcn18_voc": (32, 1.25e-4, 70, (45, 60)),
    "centernet_resdcn101_voc": (32, 1.25e-4, 70, (45, 60)),
    "centernet_dla34_voc": (32, 1.25e-4, 70, (45, 60)),
    "centernet_resdcn18_mmdet": (128, 0.02, 140, (90, 120)),
    "centernet_res18_mmdet": (128, 0.02, 140, (90, 120)),
    "centernet_resdcn18_mindspore": (128, 5e-4, 140, (90, 120)),
    "pose_dla34_coco_1x": (128, 5e-4, 140, (90, 120)),
    "pose_dla34_coco_3x": (128, 5e-4, 320, (270, 300)),
    "pose_hourglass104_coco_1x": (24, 2.5e-4, 50, (40,)),
    "pose_hourglass104_coco_3x": (24, 2.5e-4, 150, (130,)),
    "centerface_mobilenetv2_wider": (8, 1.25e-4, 140, (30, 80)),
    "centerface_mobilenetv2_wider_8p": (128, 2.5e-3, 160, (85, 120)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_schedules(name):
    recipe = load_recipe(name).recipe
    schedule, optimizer = recipe.schedule, recipe.optimizer
    batch = recipe.train.global_batch
    assert batch == optimizer.lr_batch or optimizer.lr_scaling == "linear"
    at_batch = optimizer.lr * batch / optimizer.lr_batch
    assert (batch, round(at_batch, 10), schedule.epochs, schedule.milestones) == PUBLISHED[name]
    crop = "centerface" if recipe.model.family == "centerface" else "random"
    assert (schedule.name, schedule.gamma, recipe.augment.crop) == ("multistep", 0.1, crop)
    for processes in (1, 2, 4, 8):  # as many as published or not: the batch and its rate stay the same
        if batch % processes == 0:
            effective = recipe.train.images_per_process(processes) * processes
            assert peak_lr(optimizer, effective)[0] == pytest.approx(PUBLISHED[name][1])


@pytest.mark.parametrize("name", recipe_names())
def test_headers_say_data_and_command(name):
    text = (_shipped() / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    assert f"ctnet train {name}" in text or name == "demo"


# one of each kind; the others take minutes together
QUICK = {
    "demo",
    "centernet_res18_mmdet",
    "centernet_resdcn18_mindspore",
    "centernet_dla34_voc",
    "centerface_mobilenetv2",
    "pose_res18_lateral",
}


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in recipe_names()])
def test_every_recipe_takes_a_step(name, ctnet, small_set, tmp_path):
    family = load_recipe(name).recipe.model.family
    if family != "centernet":
        kind = "faces" if family == "centerface" else "pose"
        small_set = write_demo(tmp_path / kind, 12, 6, seed=3, size=(96, 120), demo=demo_of(kind))
    size = 128 if "hourglass" in name else 64
    out = tmp_path / "run"
    where = ("--data", small_set, "--device", "cpu", "--out", out, "data.workers=0")
    code, _, err = ctnet(
        "train", name, *where, "--image-size", size, "--batch-size", 2, "--max-steps", 1, "evaluation.batch_size=2"
    )
    assert code == 0, err
    assert (out / "checkpoints" / "best.safetensors").is_file()
