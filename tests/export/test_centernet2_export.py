"""CenterNet2 in other runtimes: both stages in ONNX and OpenVINO, the first one alone elsewhere."""

import json

import numpy as np
import pytest

from ctnet.data.demo import write_demo
from ctnet.detect.opening import load_detector
from ctnet.export.atc_graph import operators
from ctnet.export.verify import match_detections
from ctnet.types import Category
from ctnet.weights.ctnet_file import Weights, save_weights
from export.test_export import as_outputs, photo
from families.test_centernet2_runs import lively_network, small_family

TWO = ("centernet2_r18", "model.proposals=40", "evaluation.top_k=30", "evaluation.score_floor=0.1")
ONE = ("centernet_fpn_r50_rgb", "model.backbone=resnet18", "model.frozen_stages=0", "evaluation.top_k=30",
       "evaluation.score_floor=0.1", "evaluation.short_side=null")  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return `weights(two_stages)`: a file of a network whose answers differ from cell to cell, for 96 x 128."""
    folder = tmp_path_factory.mktemp("weights")

    def write(two_stages):
        recipe, *settings = TWO if two_stages else ONE
        family = small_family(*settings, "data.image_size=[96,128]", "evaluation.test_scale=1", recipe=recipe)
        categories = tuple(Category(i, name) for i, name in enumerate(("cup", "fork", "bowl")))
        path = folder / f"{recipe}.safetensors"
        save_weights(path, Weights(lively_network(family).state_dict(), family.recipe, categories))
        return path

    return write


@pytest.fixture
def pictures(tmp_path):
    return write_demo(tmp_path / "demo", images_train=1, images_val=3, size=(70, 90)) / "images" / "val"


@pytest.mark.parametrize("two_stages", [True, False])
@pytest.mark.parametrize(("format", "suffix"), [("onnx", "onnx"), ("openvino", "xml")])
def test_detections_are_torchs(format, suffix, two_stages, weights, pictures, ctnet, tmp_path):
    out, file = tmp_path / f"net.{suffix}", weights(two_stages)
    code, stdout, err = ctnet("export", format, "--weights", file, "--out", out, "--images", pictures, "--json")
    assert code == 0, err
    proof = json.loads(stdout)["verification"]
    assert proof["passed"]
    assert proof["matched"] == proof["detections"] > 10
    ours, theirs = load_detector(file, "cpu", "fp32"), load_detector(out)
    images = [photo(*size) for size in ((96, 128), (51, 133), (200, 40))]
    for mine, other in zip(*(d.detect(images, theirs.recipe.evaluation) for d in (ours, theirs)), strict=True):
        found, _, _, total = match_detections(as_outputs(mine), as_outputs(other), 1e-3)
        assert found == total > 3
    if format == "onnx":
        import onnx

        nodes = {node.op_type for node in onnx.load(out).graph.node}
        assert "NonMaxSuppression" in nodes
        assert ("RoiAlign" in nodes) == two_stages


def test_a_graph_for_ascend_holds_the_first_stage(weights, pictures, ctnet, tmp_path):
    out = tmp_path / "net.om"
    code, stdout, err = ctnet("export", "om", "--weights", weights(True), "--out", out, "--images", pictures, "--json")
    assert code == 0, err
    report = json.loads(stdout)
    assert report["verification"]["passed"]
    assert report["outputs"] == [f"{what}_p{level}" for what in ("heatmap", "box") for level in range(3, 8)]
    import onnx

    assert operators(onnx.load(tmp_path / "net.atc.onnx"))
    assert any("second" in note for note in report["notes"])


def test_one_stage_is_decoded_beside_a_raw_file(weights, pictures, ctnet, tmp_path):
    file, out = weights(False), tmp_path / "raw.onnx"
    code, _, err = ctnet("export", "onnx", "--weights", file, "--out", out, "--images", pictures, "--raw")
    assert code == 0, err
    image = photo(96, 128)
    mine, other = (load_detector(one).detect([image])[0] for one in (file, out))
    assert np.allclose(mine.scores[:10], other.scores[:10], atol=1e-2)
    assert len(other) > 5


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("pt2",), "has no NMS"), (("onnx", "--image-size", "dynamic"), "at one size"),
        (("om", "--decoded"), "has no NMS"),
    ],
)  # fmt: skip
def test_what_a_file_cannot_hold_is_named(words, expected, weights, pictures, ctnet, tmp_path):
    code, _, err = ctnet("export", *words, "--weights", weights(True), "--images", pictures)
    assert code == 2
    assert expected in err
    assert "--raw" in err


def test_maps_of_a_first_stage_alone_are_no_detector(weights, pictures, ctnet, tmp_path):
    out = tmp_path / "raw.onnx"
    code, _, err = ctnet("export", "onnx", "--weights", weights(True), "--out", out, "--images", pictures, "--raw")
    assert code == 0, err
    code, _, err = ctnet("predict", "--weights", out, pictures)
    assert code == 2
    assert "first of two stages" in err
