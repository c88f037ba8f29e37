"""`ctnet export --precision int8`: eight bits in the file, learned from the images given, and what they cost."""

import importlib.util
import json
import os

import cv2
import numpy as np
import onnx
import pytest
from onnx.numpy_helper import from_array, to_array

from ctnet.bench.operations import random_network
from ctnet.cli.export import _against
from ctnet.config import load_recipe
from ctnet.data.image import read_image
from ctnet.export import onnx_int8
from ctnet.export.export import about_export
from ctnet.export.formats import format_named
from ctnet.export.options import ExportOptions
from ctnet.export.verify import AgainstFloat32, image_input
from ctnet.types import Category
from ctnet.weights.ctnet_file import Weights, save_weights
from ctnet.weights.opening import open_weights

SUFFIX = {"onnx": ".onnx", "openvino": ".xml"}
needs_nncf = pytest.mark.skipif(
    importlib.util.find_spec("nncf") is None, reason='needs pip install "ctnet-toolkit[int8]"'
)
BOTH = pytest.mark.parametrize("format", ["onnx", pytest.param("openvino", marks=needs_nncf)])


@pytest.fixture
def scenes(small_set):
    """A little data set in the network's classes."""
    for split in ("train", "val"):
        annotations = small_set / "annotations" / f"instances_{split}.json"
        content = json.loads(annotations.read_text())
        for category, name in zip(content["categories"], ("cup", "fork", "Löffel"), strict=False):
            category["name"] = name
        annotations.write_text(json.dumps(content))
    return small_set


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A ctnet file of a narrow network whose outputs depend on what it sees, and that returns all its peaks."""
    narrow = ["model.neck_channels=[24,16,16]", "model.head_channels=16", "evaluation.top_k=400"]
    recipe = load_recipe("centernet_resdcn18", ["data.image_size=[64,96]", "evaluation.test_scale=1", *narrow]).recipe
    categories = (Category(1, "cup"), Category(7, "fork"), Category(9, "Löffel"))
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_weights(path, Weights(random_network(recipe.model, 3).state_dict(), recipe, categories))
    return path


@pytest.fixture
def export(ctnet, weights, tmp_path):
    """Run `ctnet export FORMAT --precision int8` and return (exit code, report or message, file)."""

    def run(format, *flags):
        file = tmp_path / f"net{SUFFIX.get(format, '.bin')}"
        words = ("export", format, "--weights", weights, "--out", file, "--precision", "int8", "--json", *flags)
        code, out, err = ctnet(*words)
        return code, json.loads(out) if code == 0 else err, file

    return run


def int8_weights(file):
    """Return how many convolutions there are, and the element types of their weights in the file."""
    if file.suffix == ".onnx":
        graph = onnx.load(file).graph
        stored = {tensor.name: tensor.data_type for tensor in graph.initializer}
        origin = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
        weights = [node.input[1] for node in graph.node if node.op_type == "Conv"]
        return [onnx.TensorProto.DataType.Name(stored[origin.get(name, name)]).lower() for name in weights]
    import openvino

    kinds = []
    for node in openvino.Core().read_model(file).get_ordered_ops():
        if node.get_type_name() == "Convolution":
            while node.get_type_name() != "Constant":  # from the weights through their scale
                node = node.input_value(1 if node.get_type_name() == "Convolution" else 0).get_node()
            kinds.append(node.get_element_type().get_type_name().replace("i8", "int8"))
    return kinds


@BOTH
def test_convolutions_are_8_bits_and_the_report_says_what_they_cost(format, export, scenes, ctnet, monkeypatch):
    monkeypatch.delenv("NNCF_CI", raising=False)
    code, report, file = export(format, "--data", scenes, "--images", scenes)
    assert code == 0, report
    kinds = int8_weights(file)
    assert len(kinds) == 29
    # in ONNX three layers of offsets and three last ones stay float32
    assert kinds.count("int8") == (23 if format == "onnx" else 29)
    proof = report["verification"]
    assert proof["passed"]
    assert proof["detections"] > 10
    cost = proof["against_float32"]
    assert cost["speedup"] > 0
    assert cost["batch"] == 1
    code, out, err = ctnet("eval", "--weights", file, "--data", scenes, "--json")
    assert code == 0, err
    assert json.loads(out)["metrics"]["AP"] == cost["ap"]
    assert json.loads(out)["protocol"]["precision"].endswith(" int8")
    if format == "openvino":
        assert os.environ["NNCF_CI"]  # else it opens connections


def test_the_words_name_both_aps_and_the_drop():
    words = _against(AgainstFloat32(2.5, 4, ap=0.508, ap_float32=0.5107))
    assert words == [
        "2.50 times as fast as its float32 file, 4 at a time, medians of alternating runs",
        "AP 50.8, float32 51.1: a drop of 0.27",
    ]
    assert len(_against(AgainstFloat32(2.5, 4))) == 1


def test_ranges_are_those_of_the_images_given(export, weights, scenes, tmp_path):
    folder = tmp_path / "given"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(3):
        picture = generator.integers(60, 130 + 20 * index, (70, 90, 3), np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), picture)
    code, report, file = export("onnx", "--calibrate", folder, "--calibrate-count", 2, "--no-verify")
    assert code == 0, report
    graph = onnx.load(file).graph
    first = next(node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "images")
    scale = next(float(to_array(t)) for t in graph.initializer if t.name == first.input[1])
    about = about_export(open_weights(weights, None), ExportOptions())
    seen = [image_input(read_image(folder / f"{index}.png"), about) for index in range(2)]
    low, high = min(0.0, *(float(x.min()) for x in seen)), max(float(x.max()) for x in seen)
    assert scale == pytest.approx((high - low) / 255, rel=1e-5)


def test_a_file_that_differs_is_not_called_done(export, scenes, monkeypatch):
    whole = onnx_int8.quantize

    def spoiled(plain, path, about, inputs):
        model = onnx.load(plain)
        weight = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("heads.size.2.weight"))
        weight.CopyFrom(from_array(to_array(weight) + 1, weight.name))
        onnx.save(model, plain)
        return whole(plain, path, about, inputs)

    monkeypatch.setitem(format_named("onnx").__dict__, "quantize", spoiled)
    code, message, file = export("onnx", "--calibrate", scenes, "--images", scenes)
    assert (code, file.exists(), "--calibrate" in message) == (3, False, True), message
    assert file.with_name("net.onnx.unverified").is_file()


@pytest.mark.parametrize(
    ("format", "flags", "code", "words"),
    [
        ("onnx", [], 2, "--calibrate PATH"),
        ("onnx", ["--calibrate", "nowhere"], 3, "no such file"),
        ("onnx", ["--calibrate", ".", "--calibrate-count", "0"], 2, "calibrate-count"),
        ("onnx", ["--precision", "fp16", "--data", "."], 2, "means nothing without --precision int8"),
        ("pt2", ["--calibrate", "."], 2, "not written in this precision"),
        ("om", ["--calibrate", "."], 2, "not written in this precision"),
    ],
)
def test_wrong_flags(format, flags, code, words, export):
    got, message, file = export(format, *flags)
    assert (got, words in message, file.exists()) == (code, True, False), message


def test_a_missing_nncf_is_named_with_the_command(export, scenes, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "nncf" else found(name))
    code, message, _ = export("openvino", "--data", scenes)
    assert (code, 'pip install "ctnet-toolkit[int8]"' in message) == (4, True), message
