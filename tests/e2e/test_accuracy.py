"""Trainings to an accuracy; minutes each, run by hand with `pytest -m slow`."""

import json

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(6000)]


def test_the_demo_set_is_learned_in_minutes(ctnet):
    code, stdout, stderr = ctnet("train", "--json")
    assert code == 0, stderr
    summary = json.loads(stdout)
    assert summary["AP"] >= 0.75
    assert summary["wall_s"] < 360


@pytest.mark.parametrize("recipe", ["centernet_res18_lateral", "centernet_resdcn18"])
def test_blood_cells_from_random_weights(recipe, ctnet, shared):
    data = shared / "data" / "bccd"
    code, stdout, stderr = ctnet(
        "train", recipe, "--data", data, "--device", "cpu", "--image-size", 256, "--json", "augment.flip_vertical=0.5",
        "augment.transpose=0.5",
    )  # fmt: skip
    assert code == 0, stderr
    summary = json.loads(stdout)
    assert summary["AP50"] >= 0.88
    assert summary["AP"] >= 0.50


@pytest.mark.parametrize("batch", [2, 4, 8])
def test_eight_images_are_learned_by_heart_at_any_batch_size(ctnet, tmp_path, batch):
    from ctnet.data.demo import write_demo

    data = write_demo(tmp_path / "eight", images_train=8, images_val=1, seed=1, size=(128, 160))
    code, stdout, stderr = ctnet(
        "train", "--data", data, "--image-size", 128, "--batch-size", batch, "--epochs", 60 * batch // 2, "--json",
        "data.val_split=train", "augment.crop=none", "augment.flip=0", "augment.photometric=0", "train.eval_every=0",
        "evaluation.test_scale=1",
    )  # fmt: skip
    assert code == 0, stderr
    assert json.loads(stdout)["AP50"] >= 0.95
