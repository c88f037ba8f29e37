"""`ctnet train` from weights: of other classes, of other projects, of a backbone alone."""

import torch
import yaml

from ctnet.weights.ctnet_file import read_weights
from tiny import TINY, edit, train_file, val_file


def test_fine_tuning_for_other_classes_says_what_starts_afresh(ctnet, small_set, tmp_path):
    first = ("--data", small_set, "--max-steps", 1, "--out", tmp_path / "first", *TINY, "data.color_order=rgb")
    assert ctnet("train", *first)[0] == 0
    weights = tmp_path / "first" / "checkpoints" / "best.safetensors"

    def keep_two(content):
        ids = [c["id"] for c in content["categories"][:2]]
        content["categories"] = content["categories"][:2]
        content["annotations"] = [a for a in content["annotations"] if a["category_id"] in ids]

    for file in (train_file(small_set), val_file(small_set)):
        edit(file, keep_two)
    again = ("--data", small_set, "--max-steps", 1, "--weights", weights)
    follows = ("model.", "optimizer.", "data.image_size")  # from the weights
    settings = [word for word in TINY if not word.startswith(follows)]
    code, _, stderr = ctnet("train", *again, "--out", tmp_path / "second", *settings)
    assert code == 0, stderr
    assert "the median box" not in stderr  # sizes are those of the weights
    config = (tmp_path / "second" / "config.yaml").read_text()
    assert "color_order: rgb" in config
    assert yaml.safe_load(config)["data"]["image_size"] == [64, 64]
    assert "lr: 0.002" in config
    assert "classes of the weights by name; kept: " in stderr
    assert "stay random" not in stderr  # both are among the six
    code, _, stderr = ctnet("train", *again, "--out", tmp_path / "third", *TINY, "model.backbone=resnet34")
    assert code == 3
    assert "do not fit the network" in stderr


def test_training_starts_from_files_of_other_projects(ctnet, small_set, tmp_path, original_file):
    one = (
        "--data",
        small_set,
        "--max-steps",
        1,
        "--image-size",
        64,
        "data.workers=0",
        "train.batch_size=4",
        "--lr",
        1e-9,
    )
    code, _, err = ctnet("train", "--weights", original_file("resdcn_18"), "--out", tmp_path / "a", *one)
    assert code == 0, err
    assert "177 tensors loaded" in err
    assert "classes of the weights by name; stay random: " in err
    started = torch.load(original_file("resdcn_18"), weights_only=True)["state_dict"]
    trained = read_weights(tmp_path / "a" / "checkpoints" / "best.safetensors").tensors
    assert torch.allclose(trained["neck.1.deform.weight"], started["deconv_layers.6.weight"], atol=1e-6)

    file = original_file("resdcn_18", keep=("conv1", "bn1", "layer"), extra={"fc.bias": torch.ones(1000)})
    code, _, err = ctnet("train", "--backbone-weights", file, "--out", tmp_path / "b", *one)
    assert code == 0, err
    assert "120 tensors" in err
    assert "data.color_order=rgb" in err
    assert "offset_lr: 0.1" in (tmp_path / "b" / "config.yaml").read_text()  # gentler than the recipe's random weights
    trained = read_weights(tmp_path / "b" / "checkpoints" / "best.safetensors").tensors
    assert torch.allclose(trained["backbone.layer2.1.conv2.weight"], started["layer2.1.conv2.weight"], atol=1e-6)
    code, _, err = ctnet("train", "centernet_dla34", "--backbone-weights", file, *one)
    assert (code, "another backbone" in err) == (3, True)
