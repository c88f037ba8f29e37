"""The graph for ATC: its node, its operators, its opsets, and its numbers by onnxruntime."""

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from ctnet.config import CenterNetModel, Recipe
from ctnet.errors import WeightsError
from ctnet.export.about import KEY, About, read_about
from ctnet.export.atc_graph import (
    NpuDeformConv2d,
    atc_model,
    check_operators,
    known_operators,
    operators,
    standard_model,
)
from ctnet.export.graph import ExportedGraph, trace
from ctnet.families import build_network
from ctnet.nn import DeformConv2d
from ctnet.types import Category
from lively import lively

SIZE = (64, 96)
CATEGORIES = (Category(1, "one"), Category(7, "seven"))


def narrow(**model) -> CenterNetModel:
    return CenterNetModel(**{"neck_channels": (16, 16, 16), "head_channels": 8, **model})


def traced(model: CenterNetModel, output="raw", size=SIZE):
    torch.manual_seed(0)
    network = lively(build_network(model, len(CATEGORIES)), size)
    recipe = Recipe(model=model, data={"image_size": size})
    about = About(recipe, CATEGORIES, output, None, size)
    return network, about, trace(network, about, dcn="npu")


def greatest_difference(network, about, model, batch=2) -> float:
    """Return how far onnxruntime is from torch, relative to the largest value of each output."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(batch, 3, *about.size, generator=generator)
    with torch.no_grad():
        expected = ExportedGraph(network, about)(images)
    session = onnxruntime.InferenceSession(standard_model(model).SerializeToString())
    got = session.run(None, {"images": images.numpy()})
    return max(float(np.abs(a.numpy() - b).max() / a.abs().max()) for a, b in zip(expected, got, strict=True))


@pytest.fixture(scope="module")
def deformable():
    """A network whose deformable layers have no bias, its description, its graph and its model for ATC."""
    network, about, program = traced(narrow(deform_bias=False))
    return network, about, program, atc_model(program, about, "npu")


def vendor_nodes(model):
    return [node for node in model.graph.node if "Deform" in node.op_type]


def attributes(node):
    return {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}


def test_npu_dialect_is_what_the_parser_reads(deformable):
    network, about, _, model = deformable
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 18, "npu": 1}
    assert model.ir_version == 8
    nodes = vendor_nodes(model)
    assert len(nodes) == 3
    for node in nodes:
        assert (node.domain, node.op_type, len(node.input), len(node.output)) == ("npu", "NPUDeformableConv2d", 4, 2)
        assert all(node.input), "the bias is required"
        assert attributes(node) == {
            "strides": [1, 1, 1, 1], "paddings": [1, 1, 1, 1], "dilations": [1, 1, 1, 1],
            "groups": 1, "deformable_groups": 1, "modulated": 1,
        }  # fmt: skip
        assert not node.metadata_props
    assert operators(model) <= known_operators()
    (entry,) = model.metadata_props
    assert entry.key == KEY
    assert read_about(entry.value, "model") == about
    assert greatest_difference(network, about, model) < 1e-4


def test_single_domain_dialect_is_opset_11_with_two_numbers_an_attribute(deformable):
    network, about, program, _ = deformable
    model = atc_model(program, about, "ai.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 11)]
    assert model.ir_version == 6
    nodes = vendor_nodes(model)
    assert len(nodes) == 3
    for node in nodes:
        assert (node.domain, node.op_type, len(node.input), len(node.output)) == ("", "DeformableConv2D", 4, 1)
        assert attributes(node) == {
            "strides": [1, 1], "pads": [1, 1], "dilations": [1, 1],
            "groups": 1, "deformable_groups": 1, "modulated": 1,
        }  # fmt: skip
    assert "ai.onnx::11::DeformableConv2D" in operators(model) <= known_operators()
    assert greatest_difference(network, about, model) < 1e-4


def test_the_proof_sees_offsets_in_the_wrong_order(deformable):
    network, about, _, model = deformable
    model = copy.deepcopy(model)
    weight = next(w for w in model.graph.initializer if w.name.endswith("deform.offset_mask.weight"))
    values = onnx.numpy_helper.to_array(weight).copy()
    values[:18] = np.concatenate([values[9:18], values[:9]])  # all dy, then all dx
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    assert greatest_difference(network, about, model) > 1e-2


def test_both_nodes_become_the_same_standard_node():
    """Unequal numbers show which one goes where: the parser reads top, bottom, left, right and two of four."""
    common = {"groups": 2, "deformable_groups": 1, "modulated": 1}
    nodes = {
        "npu": onnx.helper.make_node(
            "NPUDeformableConv2d", ["x", "w", "p", "b"], ["y", "columns"], "dcn", domain="npu",
            strides=[1, 1, 2, 3], paddings=[1, 1, 2, 2], dilations=[1, 1, 1, 2], **common,
        ),
        "ai.onnx": onnx.helper.make_node(
            "DeformableConv2D", ["x", "w", "p", "b"], ["y"], "dcn",
            strides=[2, 3], pads=[1, 2], dilations=[1, 2], **common,
        ),
    }  # fmt: skip
    found = []
    for name, node in nodes.items():
        float32 = onnx.TensorProto.FLOAT
        shapes = {"x": [1, 4, 9, 11], "p": [1, 27, 5, 4]}
        graph = onnx.helper.make_graph(
            [node],
            "one",
            [onnx.helper.make_tensor_value_info(n, float32, s) for n, s in shapes.items()],
            [onnx.helper.make_tensor_value_info("y", float32, [1, 6, 5, 4])],
            [onnx.helper.make_tensor("w", float32, [6, 2, 3, 3], np.arange(108) / 50),
             onnx.helper.make_tensor("b", float32, [6], np.arange(6))],
        )  # fmt: skip
        opsets = {"npu": [("", 18), ("npu", 1)], "ai.onnx": [("", 11)]}[name]
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(*o) for o in opsets])
        standard = standard_model(model)
        onnx.checker.check_model(standard, full_check=True)
        (node,) = vendor_nodes(standard)
        assert attributes(node) == {
            "kernel_shape": [3, 3], "strides": [2, 3], "pads": [1, 2, 1, 2], "dilations": [1, 2],
            "group": 2, "offset_group": 1,
        }  # fmt: skip
        order = {w.name: onnx.numpy_helper.to_array(w).tolist() for w in standard.graph.initializer}
        assert order["dcn_offset_order"][:4] == [9, 0, 10, 1]
        assert order["dcn_mask_order"] == list(range(18, 27))
        rng = np.random.default_rng(0)
        feeds = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
        found.append(onnxruntime.InferenceSession(standard.SerializeToString()).run(None, feeds)[0])
    assert np.array_equal(*found)


def test_boxes_in_the_graph_need_no_operator_that_atc_lacks():
    _, about, program = traced(narrow(), output="decoded")
    model = atc_model(program, about, "npu")
    assert "ai.onnx::18::TopK" in operators(model) <= known_operators()
    with pytest.raises(WeightsError, match="opset 11 has no form for this graph") as refused:
        atc_model(program, about, "ai.onnx")
    assert refused.value.hint == "--dialect npu is opset 18"


def test_operators_that_atc_lacks_are_named(deformable, monkeypatch):
    *_, model = deformable
    known = known_operators() - {"npu::1::NPUDeformableConv2d", "ai.onnx::18::Sigmoid"}
    monkeypatch.setattr("ctnet.export.atc_graph.known_operators", lambda: known)
    with pytest.raises(WeightsError, match="does not know") as refused:
        check_operators(model)
    assert refused.value.facts["operators"] == "ai.onnx::18::Sigmoid, npu::1::NPUDeformableConv2d"
    assert refused.value.exit_code == 3


def test_the_list_of_operators(shared):
    known = known_operators()
    assert "ai.onnx::18::Conv" in known
    assert "ai.onnx::19::DeformConv" not in known
    assert "ai.onnx::17::NPUDeformableConv2d" not in known
    full = shared / "design" / "experiments" / "cann_onnx_registry.txt"
    if full.is_file():
        # the npu domain is registered beside the other names of the same plug-in
        assert known - {"npu::1::NPUDeformableConv2d"} <= set(full.read_text().split())


def test_the_layer_has_the_same_parameters_in_another_order():
    layer = DeformConv2d(4, 6)
    nn.init.normal_(layer.offset_mask.weight)
    twin = NpuDeformConv2d(copy.deepcopy(layer))
    x = torch.randn(1, 4, 5, 7)
    ours, theirs = layer.offset_mask(x), twin.offset_mask(x)
    torch.testing.assert_close(theirs[:, :9], ours[:, 1:18:2])
    torch.testing.assert_close(theirs[:, 9:18], ours[:, 0:18:2])
    torch.testing.assert_close(theirs[:, 18:], ours[:, 18:])


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["dla34", "mobilenetv2", "resnet50"])
@pytest.mark.parametrize("dialect", ["npu", "ai.onnx"])
def test_other_networks(backbone, dialect):
    network, about, program = traced(CenterNetModel(backbone=backbone))
    assert greatest_difference(network, about, atc_model(program, about, dialect)) < 1e-3


@pytest.mark.slow
def test_hourglass_is_opset_18_only():
    network, about, program = traced(CenterNetModel(backbone="hourglass104"), size=(128, 256))
    model = atc_model(program, about, "npu")
    assert {entry.domain for entry in model.opset_import} == {""}
    assert greatest_difference(network, about, model, batch=1) < 1e-3
    with pytest.raises(WeightsError, match="opset 11 has no form"):
        atc_model(program, about, "ai.onnx")
