"""CenterFace's published ONNX file: run as its reference program runs it, and rebuilt as a network."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from ctnet.config import load_recipe
from ctnet.data.image import read_image
from ctnet.detect.opening import load_detector
from ctnet.errors import WeightsError
from ctnet.export.centerface_onnx import any_size
from ctnet.nn import restate_norms
from ctnet.weights.opening import load_network, open_weights


@pytest.fixture(scope="module")
def published(shared):
    return shared / "data" / "centerface"


@pytest.fixture(scope="module")
def file(published):
    return published / "centerface.onnx"


def test_faces_are_those_of_the_reference_program(file, published, shared):
    expected = np.load(published / "detections.npz")
    detector = load_detector(file)
    assert [category.name for category in detector.categories] == ["face"]
    checked = 0
    for name in json.loads((published / "detections.json").read_text()):
        [found] = detector.detect(shared / "data" / "photos" / name)
        for threshold in (0.5, 0.2):
            faces, rows = found.above(threshold), expected[f"{name}/{threshold}"]
            rows = rows[np.argsort(-rows[:, 4], kind="stable")]
            assert len(faces) == len(rows)
            assert np.allclose(faces.scores, rows[:, 4], atol=1e-5)
            assert np.allclose(faces.boxes_xyxy, rows[:, :4], atol=0.01)
            assert np.allclose(faces.keypoints.reshape(len(rows), 10), rows[:, 5:], atol=0.01)
            checked += len(rows)
    assert checked > 300


def outputs_of(network, x):
    with torch.no_grad():
        heads = network(x)[-1]
    return [heads["heatmap_logits"].sigmoid(), heads["log_size"].flip(1), heads["offset"].flip(1) - 0.5,
            heads["box_landmarks"].unflatten(1, (5, 2)).flip(2).flatten(1, 2)]  # fmt: skip


def test_the_network_that_is_rebuilt_computes_the_same(file, shared):
    import onnxruntime

    weights = open_weights(file)
    network = load_network(weights, file)[0].eval()
    image = read_image(shared / "data" / "photos" / "000388.jpg")[:320, :480]
    x = torch.from_numpy(image[None, ..., ::-1].transpose(0, 3, 1, 2).astype(np.float32))
    session = onnxruntime.InferenceSession(any_size(file.read_bytes()), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"input.1": x.numpy()})
    for ours, theirs in zip(outputs_of(network, x), expected, strict=True):
        assert np.abs(ours.numpy() - theirs).max() < 1e-5
    restate_norms(network, x)  # as training begins
    for ours, theirs in zip(outputs_of(network, x), expected, strict=True):
        assert np.abs(ours.numpy() - theirs).max() < 2e-5
    for ours, theirs in zip(outputs_of(network.train(), x), expected, strict=True):
        assert np.abs(ours.numpy() - theirs).max() < 1e-3  # the norms have the statistics of this batch


def test_it_is_converted_inspected_and_fine_tuned(file, ctnet, small_set, tmp_path):
    code, out, err = ctnet("weights", "convert", file, "--to", "ctnet", "--out", tmp_path / "face.safetensors")
    assert code == 0, err
    weights = open_weights(tmp_path / "face.safetensors")
    assert weights.keypoints.names[2] == "nose"
    assert weights.recipe.model.neck_channels[-1] == 24
    code, out, _ = ctnet("weights", "inspect", file, "--json")
    document = json.loads(out)
    assert (code, document["fits"], document["format"]) == (0, True, "centerface-onnx")


def spoiled(file, path, change):
    model = onnx.load(file)
    change(model.graph)
    onnx.save(model, path)
    return path


def with_another_window(graph):
    for attribute in graph.node[2].attribute:
        if attribute.name in ("dilations", "pads"):
            attribute.ints[:] = [2] * len(attribute.ints)


def with_another_activation(graph):
    next(node for node in graph.node if node.op_type == "Relu").op_type = "Elu"


def with_another_connection(graph):
    node = next(node for node in graph.node if node.op_type == "Add")
    node.input[0] = node.input[1]


@pytest.mark.parametrize("change", [with_another_window, with_another_activation, with_another_connection])
def test_a_graph_that_differs_is_refused(change, file, tmp_path):
    other = spoiled(file, tmp_path / "other.onnx", change)
    with pytest.raises(WeightsError, match="no network that ctnet can train"):
        open_weights(other)
    with pytest.raises(WeightsError, match="does not say what it is") as caught:
        load_detector(other)
    assert "centerface.onnx" in str(caught.value)


def test_another_projects_onnx_is_one_clear_message(tmp_path, ctnet, small_set):
    node = helper.make_node("Relu", ["x"], ["y"])
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 64, 64])
    graph = helper.make_graph([node], "g", [value], [helper.make_tensor_value_info("y", 1, [1, 3, 64, 64])])
    onnx.save(helper.make_model(graph), tmp_path / "yolo.onnx")
    file = tmp_path / "yolo.onnx"
    image = next(small_set.rglob("*.jpg"))
    for command in (["predict", "--weights", file, image], ["weights", "inspect", file]):
        code, _, err = ctnet(*command)
        assert code == 3
        assert "CenterFace" in err or "centerface" in err
        assert "Traceback" not in err


def test_the_recipe_is_the_one_that_comes_with_the_file(file):
    recipe = open_weights(file).recipe
    assert recipe.model_copy(update={"name": "x"}) == load_recipe(
        "centerface_mobilenetv2_onnx", ["name=x"]
    ).recipe  # fmt: skip
