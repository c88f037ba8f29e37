"""`ctnet export om` and the tools it drives: atc and npu-smi as real processes, images on a card."""

import gc
import json
import os
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ascend import SMI_310P, SMI_910B
from ctnet.codec.pixels import normalise
from ctnet.config import Recipe
from ctnet.config.schema import Data
from ctnet.data.dataset import open_dataset
from ctnet.data.demo import write_demo
from ctnet.data.image import read_image
from ctnet.detect.opening import load_detector, open_exported
from ctnet.export.atc import aipp_config, find_soc_version
from ctnet.export.formats import format_named
from ctnet.export.om_format import prove
from ctnet.families import build_network
from ctnet.types import Category
from ctnet.weights.ctnet_file import Weights, save_weights
from lively import lively

CONTENT = {
    "name": "narrow",
    "model": {"neck_channels": (16, 16, 16), "head_channels": 8},
    "data": {"image_size": (64, 96), "color_order": "rgb", "mean": (0.2, 0.4, 0.6), "std": (0.3, 0.2, 0.25)},
    "evaluation": {"flip": True, "batch_size": 3},
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return write_demo(tmp_path_factory.mktemp("demo"), images_train=1, images_val=5, seed=3, size=(96, 120))


@pytest.fixture(scope="module")
def weights(tmp_path_factory, demo):
    """A narrow network with offsets that are not zero, for the demo's classes."""
    torch.manual_seed(0)
    recipe = Recipe.model_validate(CONTENT)
    categories = tuple(Category(c.id, c.name) for c in open_dataset(demo, "val").categories)
    network = lively(build_network(recipe.model, len(categories)), recipe.data.image_size)
    nn.init.constant_(network.heads["size"][-1].bias, 8.0)
    file = tmp_path_factory.mktemp("weights") / "best.safetensors"
    save_weights(file, Weights(network.state_dict(), recipe, categories))
    return file


@pytest.fixture
def export(ctnet, weights, demo):
    """Run `ctnet export om` with the weights and one image."""
    picture = next((demo / "images").rglob("*.png"), None) or next((demo / "images").rglob("*.jpg"))
    return lambda *words: ctnet("export", "om", "--weights", weights, "--images", picture, *words)


def shown(*command) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def flags(call):
    return dict(word[2:].split("=", 1) for word in call if word.startswith("--"))


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (SMI_310P, "Ascend310P3"),
        (SMI_910B, "Ascend910B4"),
        (SMI_910B.replace("910B4    ", "Ascend910"), None),  # several chips are called so
        (SMI_310P.replace("| 1       310P3                 | W", "| 1       910B4                 | W"), None),
        ("DrvMngGetConsoleLogLevel failed. (g_conLogLevel=3)", None),
    ],
    ids=["310P3", "910B4", "vague", "two kinds", "no driver"],
)
def test_npu_smi_names_the_chip(ascend, table, expected):
    assert find_soc_version() is None
    ascend.add_npu_smi(table)
    assert find_soc_version() == expected


@pytest.mark.parametrize("order", ["bgr", "rgb"])
def test_aipp_normalises_as_the_loader_does(ascend, order):
    """What the chip does, by the stand-in of its arithmetic in float64, is what `normalise` does."""
    data = Data(color_order=order, mean=(0.1, 0.4, 0.7), std=(0.2, 0.3, 0.5), image_size=(64, 96))
    ascend.add_ais_bench()
    from ais_bench.infer.interface import InferSession

    session = InferSession.__new__(InferSession)
    session.aipp = aipp_config(data, (64, 96))
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    expected = normalise(torch.from_numpy(pictures), data.mean, data.std, color_order=order)
    np.testing.assert_allclose(session.normalised(pictures), expected.numpy(), atol=1e-5)


def test_without_atc_a_script_is_left_that_makes_the_files(export, ascend, tmp_path):
    code, out, err = export("--out", "out/shapes.om", "--batch-size", "4,1", "--aipp", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "shapes.aipp.cfg", "shapes.atc.onnx", "shapes.atc.sh", "shapes_bs1.om.json", "shapes_bs4.om.json",
    ]  # fmt: skip
    assert report["verification"]["passed"]
    assert report["output"] == "raw"
    assert report["notes"][0].startswith("no OM was run")
    assert report["notes"][1].startswith("atc is not installed here; shapes.atc.sh makes the OM")

    script = tmp_path / "out" / "shapes.atc.sh"
    assert os.access(script, os.X_OK)
    assert report["notes"][2] == script.read_text()
    ascend.add_atc()  # the machine it is carried to
    refused = subprocess.run([script], capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "SOC_VERSION: set it to the chip, such as Ascend310P3" in refused.stderr
    subprocess.run([script], check=True, capture_output=True, env={**os.environ, "SOC_VERSION": "Ascend310P3"})
    first, second = map(flags, ascend.calls())
    nodes = first["out_nodes"].split(";")
    assert first == {
        "framework": "5", "model": "shapes.atc.onnx", "output": "shapes_bs1", "input_format": "NCHW",
        "input_shape": "images:1,3,64,96", "out_nodes": ";".join(nodes),
        "output_type": ";".join(f"{node}:FP32" for node in nodes), "precision_mode": "force_fp16",
        "insert_op_conf": "shapes.aipp.cfg", "soc_version": "Ascend310P3", "log": "error",
    }  # fmt: skip
    assert second == {**first, "output": "shapes_bs4", "input_shape": "images:4,3,64,96"}

    import onnx

    graph = onnx.load(tmp_path / "out" / "shapes.atc.onnx").graph
    source = {f"{node.name}:{i}": name for node in graph.node for i, name in enumerate(node.output)}
    assert [source[node] for node in nodes] == ["heatmap_logits", "size", "offset"]


def test_eval_of_an_om_is_eval_of_the_network(export, ctnet, ascend, weights, demo, tmp_path):
    """With atc, npu-smi and ais_bench here: one command makes the OM, the next scores it, batches filled up."""
    ascend.add_atc()
    ascend.add_npu_smi(SMI_310P)
    ascend.add_ais_bench()
    code, out, err = export("--batch-size", "4")
    assert code == 0, err
    assert "best.om" in out
    assert "verified" in out
    assert flags(*ascend.calls())["soc_version"] == "Ascend310P3"
    assert json.loads((tmp_path / "best.om.json").read_text())["batch"] == 4

    scores = []
    for words in ((weights, "--device", "cpu", "--precision", "fp32"), (tmp_path / "best.om",)):
        code, _, err = ctnet("eval", "--data", demo, "--save-results", "found.json", "--weights", *words)
        assert code == 0, err
        scores.append([found["score"] for found in json.loads((tmp_path / "found.json").read_text())])
    assert "Ascend OM float16 (on an Ascend chip)" in err
    assert len(scores[0]) == 500
    np.testing.assert_allclose(*scores, atol=1e-3)
    assert set(map(str, ascend.record())) <= {"((4, 3, 64, 96), 'float32')", "free"}


def test_an_om_gives_the_detections_of_its_graph(export, ascend, demo, tmp_path):
    """Exactly, by an old ais_bench, which is told when the card is free; nearly where the chip normalises."""
    ascend.add_atc()
    ascend.add_ais_bench(old=True)
    for words in (["--out", "plain.om"], ["--out", "pixels.om", "--aipp"]):
        code, _, err = export("--no-verify", "--batch-size", "2", "--soc-version", "Ascend310P3", *words)
        assert code == 0, err
    pictures = [read_image(image.path) for image in open_dataset(demo, "val").images]
    graph = replace(format_named("om"), open=lambda path, _: prove(path), runtime_modules=("onnxruntime",))
    proven = open_exported(tmp_path / "plain.atc.onnx", graph, trust=True)
    compiled = load_detector(tmp_path / "plain.om")
    expected = [proven.detect([picture])[0] for picture in pictures]  # with its mirror image, batches of two
    for ours, theirs in zip(expected, compiled.detect(pictures), strict=True):
        assert len(ours.scores) == 100
        np.testing.assert_array_equal(ours.scores, theirs.scores)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_array_equal(ours.boxes_xyxy, theirs.boxes_xyxy)
    del compiled
    gc.collect()
    assert ascend.record()[0] == ((2, 3, 64, 96), "float32")
    assert ascend.record()[-1] == "free"

    pixels = load_detector(tmp_path / "pixels.om")
    assert pixels.recipe.data.mean == (0, 0, 0)
    for ours, theirs in zip(expected, pixels.detect(pictures), strict=True):
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-3)
    assert ascend.record()[-1] == ((2, 64, 96, 3), "uint8")


def test_a_failing_atc_is_shown_and_its_input_kept(export, ascend, tmp_path):
    ascend.add_atc()
    code, _, err = export("--no-verify", "--soc-version", "Ascend999", "--dialect", "ai.onnx", "--precision", "fp32")
    assert code == 3
    assert "atc failed" in err
    assert "E10001: [PID: 7] Value [Ascend999] for parameter [--soc_version] is invalid." in err
    assert flags(*ascend.calls())["precision_mode"] == "allow_fp32_to_fp16"
    assert {"best.atc.onnx", "best.atc.sh", "best.om.json"} <= {p.name for p in tmp_path.iterdir()}
    assert not (tmp_path / "best.om").exists()


def test_with_atc_but_no_chip_nothing_is_run(export, ascend):
    ascend.add_atc()
    code, out, err = export("--no-verify")
    assert code == 0, err
    assert "not compared with torch" in out
    assert "the chip is not known: no --soc-version, and none that npu-smi names clearly; best.atc.sh makes" in out
    assert not (ascend.folder / "atc.calls").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["om", "--image-size", "dynamic"], "an OM takes images of one size"),
        (["om", "--batch-size", "dynamic"], "an OM takes batches of one size"),
        (["om", "--batch-size", "1,0"], "a batch size is a number above 0"),
        (["om", "--out", "shapes.onnx"], "a file of Ascend OM is named NAME.om"),
        (["onnx", "--soc-version", "Ascend310P3", "--aipp"], "--soc-version --aipp means nothing to ONNX"),
        (["pt2", "--dialect", "npu"], "--dialect means nothing to torch.export"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_flags(ctnet, weights, words, message):
    code, _, err = ctnet("export", *words, "--weights", weights)
    assert code == 2
    assert message in err


def test_an_om_that_cannot_be_opened(ctnet, ascend, demo, tmp_path):
    om = tmp_path / "model.om"
    om.write_bytes(b"IMOD")
    evaluate = ("eval", "--weights", om, "--data", demo, "--trust")
    code, _, err = ctnet(*evaluate)
    assert code == 4
    assert "running Ascend OM needs ais_bench, aclruntime" in err
    assert "not on PyPI" in err
    ascend.add_ais_bench()
    code, _, err = ctnet(*evaluate)
    assert code == 3
    assert "model.om.json beside it" in err
    (tmp_path / "model.om.json").write_text("{}")
    code, _, err = ctnet(*evaluate)
    assert code == 3
    assert "does not say what it is" in err
    code, _, err = ctnet(*evaluate, "--device", "cuda")
    assert code == 2
    assert "runs on an Ascend chip" in err
