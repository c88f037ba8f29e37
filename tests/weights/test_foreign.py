"""Other projects' checkpoints: every format gives the original's numbers, and nothing that does not fit slips in."""

import pickle
import re

import numpy as np
import pytest
import torch

from ctnet.detect.opening import load_detector
from ctnet.errors import ConfigError, WeightsError
from ctnet.weights.opening import load_network, open_weights


def save(path, state, **rest):
    torch.save({"epoch": 140, "state_dict": state, **rest}, path)
    return path


def to_mindspore(tensors):
    """Return a network in MindSpore's spelling, without deformable biases, its counters and heads' prefix."""
    renamed = {}
    for name, tensor in tensors.items():
        if re.fullmatch(r"deconv_layers\.(0|6|12)\.bias", name) or name.endswith("num_batches_tracked"):
            continue
        module, _, leaf = name.rpartition(".")
        if f"{module}.running_mean" in tensors:
            leaf = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean"}.get(leaf, "moving_variance")
        module = re.sub(r"^(hm|wh|reg)\b", r"\1_fn", module).replace("conv_offset_mask", "conv_offset")
        prefix = "" if module.startswith(("hm_", "wh_", "reg_", "deconv")) else "backbone."
        renamed[f"network.{prefix}{module}.{leaf}"] = tensor
    return renamed


def assert_outputs(detector, golden_file, name, image, heads=("hm", "wh", "reg")):
    """Compare with the original's float64 outputs as closely as float32 computes."""
    with torch.inference_mode():
        outputs = detector.model(image)[-1]
    for ours, theirs in zip(("heatmap_logits", "size", "offset"), heads, strict=True):
        expected = golden_file[f"{name}/{theirs}"]
        got = outputs[ours].numpy()[:, :: 10 if ours == "heatmap_logits" else 1]
        assert np.abs(got - expected).max() < 2e-4 * np.abs(expected).max(), ours


@pytest.mark.parametrize("network", ["res_18", "resdcn_18", "dla_34", "dlav0_34"])
def test_files_of_the_original_give_its_outputs(network, original_tensors, golden, image, tmp_path):
    file = save(tmp_path / "model_best.pth", original_tensors(network))
    detector = load_detector(file, "cpu", "fp32")
    assert_outputs(detector, golden("models"), network, image)
    assert [c.name for c in detector.categories][:2] == ["person", "bicycle"]
    assert detector.categories[-1].id == 90
    assert detector.recipe.data.color_order == "bgr"
    assert detector.recipe.evaluation.keep_res


@pytest.mark.parametrize("wrapper", ["module.", "module.module.", "_orig_mod.module."])
def test_wrapped_names_and_old_files_load_the_same(wrapper, original_tensors, golden, image, tmp_path):
    state = {wrapper + k: v for k, v in original_tensors("resdcn_18").items() if not k.endswith("tracked")}
    detector = load_detector(save(tmp_path / "a.pth", state), "cpu", "fp32")
    assert_outputs(detector, golden("models"), "resdcn_18", image)


def test_half_precision_files_become_float32(original_tensors, golden, image, tmp_path):
    state = {k: v.half() if v.is_floating_point() else v for k, v in original_tensors("resdcn_18").items()}
    detector = load_detector(save(tmp_path / "a.pth", state), "cpu", "fp32")
    assert "float16 became float32" in detector.notes
    with torch.inference_mode():
        logits = detector.model(image)[-1]["heatmap_logits"]
    assert logits.dtype == torch.float32
    expected = golden("models")["resdcn_18/hm"]
    assert np.abs(logits.numpy()[:, ::10] - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("old", [False, True])
def test_files_of_mmdet(old, original_tensors, golden, image, tmp_path):
    names = [f"thing {i}" for i in range(80)]
    tensors = original_tensors("mmdet_centernet_r18-dcnv2")
    if old:  # mmdet 2 with mmcv's first deformable convolution, and an average beside the weights
        state = {k.replace(".conv.conv_offset.", ".conv_offset."): v for k, v in tensors.items()}
        state |= {"ema_" + k.replace(".", "_"): v * 0 for k, v in tensors.items()}
        file = {"meta": {"CLASSES": tuple(names), "epoch": 28}, "state_dict": state}
    else:
        averaged = {"module." + k: v * 0 for k, v in tensors.items()} | {"steps": torch.tensor(7)}
        file = {"meta": {"dataset_meta": {"classes": names}}, "state_dict": tensors, "ema_state_dict": averaged}
    torch.save(file, tmp_path / "epoch_28.pth")
    detector = load_detector(tmp_path / "epoch_28.pth", "cpu", "fp32")
    with torch.inference_mode():
        outputs = detector.model(image)[-1]
    outputs["heatmap_logits"] = outputs["heatmap_logits"].sigmoid()
    expected = golden("models")
    for ours, theirs in (("heatmap_logits", "center_heatmap_sigmoid"), ("size", "wh"), ("offset", "offset")):
        truth = expected[f"mmdet_centernet_r18-dcnv2/{theirs}"]
        got = outputs[ours].numpy()[:, :: 10 if ours == "heatmap_logits" else 1]
        assert np.abs(got - truth).max() < 2e-4 * np.abs(truth).max()
    assert [c.name for c in detector.categories] == names
    assert (detector.recipe.data.color_order, detector.recipe.model.deform_bias) == ("rgb", False)


@pytest.mark.parametrize("prefix", ["network.", ""])
def test_files_of_mindspore(prefix, original_tensors, image, write_mindspore, tmp_path):
    tensors = original_tensors("resdcn_18")
    renamed = {prefix + k.removeprefix("network."): v for k, v in to_mindspore(tensors).items()}
    renamed |= {f"moment1.{k}": v for k, v in list(renamed.items())[:5]}
    renamed |= {"global_step": torch.tensor([9], dtype=torch.int32), "learning_rate": torch.tensor([5e-4])}
    write_mindspore(tmp_path / "0-140_458.ckpt", renamed, part_bytes=100_000)
    detector = load_detector(tmp_path / "0-140_458.ckpt", "cpu", "fp32")
    no_bias = {k: v * 0 if re.fullmatch(r"deconv_layers\.(0|6|12)\.bias", k) else v for k, v in tensors.items()}
    same = load_detector(save(tmp_path / "a.pth", no_bias), "cpu", "fp32")
    with torch.inference_mode():
        [ours], [theirs] = detector.model(image), same.model(image)
    for head in ours:
        assert torch.allclose(ours[head], theirs[head], rtol=1e-5, atol=1e-5)
    assert detector.recipe.evaluation.nms == "soft"
    assert not detector.recipe.model.deform_bias


@pytest.mark.parametrize("head_conv", [0, 24])
def test_widths_and_classes_are_read_off_the_tensors(head_conv, original_tensors, tmp_path):
    state = {k: v for k, v in original_tensors("resdcn_18").items() if not k.startswith(("hm", "wh", "reg"))}
    for head, out in (("hm", 3), ("wh", 6)):  # class-specific sizes, no offset
        if head_conv:
            state |= {f"{head}.0.weight": torch.ones(head_conv, 64, 3, 3), f"{head}.0.bias": torch.ones(head_conv)}
        last = f"{head}.2" if head_conv else head
        state |= {f"{last}.weight": torch.ones(out, head_conv or 64, 1, 1), f"{last}.bias": torch.ones(out)}
    weights = open_weights(save(tmp_path / "a.pth", state))
    model = weights.recipe.model
    assert (model.head_channels, model.class_specific_size, model.predict_offset) == (head_conv, True, False)
    assert [category.name for category in weights.categories] == ["class 1", "class 2", "class 3"]
    load_network(weights, "a.pth")


def test_a_recipe_can_replace_what_comes_with_the_file(original_tensors, tmp_path):
    file = save(tmp_path / "a.pth", original_tensors("dla_34"))
    weights = open_weights(file, "centernet_dla34_voc")
    assert weights.recipe.data.mean == (0.485, 0.456, 0.406)
    assert (weights.recipe.evaluation.flip, weights.recipe.model.head_channels) == (True, 256)
    with pytest.raises(WeightsError, match="another network"):
        open_weights(file, "centernet_resdcn18_voc")
    with pytest.raises(ConfigError, match="no recipe named"):
        open_weights(file, "centernet_dla35")


def test_what_does_not_fit_is_named(original_tensors, tmp_path):
    tensors = original_tensors("resdcn_18")
    without = {k: v for k, v in tensors.items() if not k.startswith("layer3.1.conv2")}
    file = save(tmp_path / "a.pth", without | {"hm_hp.0.weight": torch.ones(3)})
    with pytest.raises(WeightsError, match="do not fit") as caught:
        load_detector(file, "cpu", "fp32")
    assert caught.value.facts["missing"] == "1: layer3.1.conv2.weight"
    assert caught.value.facts["unexpected"] == "1: hm_hp.0.weight"
    detector = load_detector(file, "cpu", "fp32", allow_partial=True)
    assert "layer3.1.conv2.weight" in detector.notes[-1]

    narrow = tensors | {"layer4.0.conv1.weight": torch.ones(500, 256, 3, 3)}
    with pytest.raises(WeightsError) as caught:
        load_detector(save(tmp_path / "b.pth", narrow), "cpu", "fp32")
    assert "layer4.0.conv1.weight" in caught.value.facts["other_shape"]


def test_half_a_checkpoint_and_other_networks_are_refused(original_tensors, tmp_path):
    tensors = original_tensors("resdcn_18")
    cases = {
        "hm.2.weight": {k: v for k, v in tensors.items() if not k.startswith("hm")},
        "a backbone, not": {k: v for k, v in tensors.items() if k.startswith(("conv1", "bn1", "layer"))},
        "no known network": {"some.weight": torch.ones(3)},
        "CenterNet2 with another": {"proposal_generator.centernet_head.bbox_pred.weight": torch.ones(4, 256, 3, 3)},
        "twice": tensors | {f"module.{k}": v for k, v in tensors.items()},
    }
    for message, state in cases.items():
        with pytest.raises(WeightsError) as caught:
            open_weights(save(tmp_path / "a.pth", state))
        assert message in str(caught.value)


def test_nothing_in_a_file_runs(tmp_path):
    class Bomb:
        def __reduce__(self):
            import os

            return os.system, (f"touch {tmp_path / 'exploded'}",)

    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"model": Bomb()}))
    torch.save({"state_dict": Bomb()}, tmp_path / "model.pth")
    for name in ("R-50.pkl", "model.pth"):
        with pytest.raises(WeightsError, match="system"):
            open_weights(tmp_path / name)
    assert not (tmp_path / "exploded").exists()
