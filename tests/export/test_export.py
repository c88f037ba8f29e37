"""`ctnet export` in real runtimes: the file is the network, and is used like any weights."""

import json

import cv2
import numpy as np
import pytest
import torch

from ctnet.data.demo import write_demo
from ctnet.detect.opening import load_detector
from ctnet.export.formats import format_of
from ctnet.export.verify import match_detections

CLASSES = ["cup", "fork", "Löffel"]
OTHERS = ["centernet_dla34", "centernet_res18", "centernet_mobilenetv2", "centernet_hourglass104"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of little images for the proof."""
    return write_demo(tmp_path_factory.mktemp("demo"), images_train=1, images_val=3, size=(70, 90)) / "images" / "val"


@pytest.fixture
def export(ctnet, pictures, tmp_path):
    """Run `ctnet export` and return (exit code, report or message, file)."""

    def run(format, weights, *flags, suffix=None):
        out = tmp_path / f"net.{suffix or {'openvino': 'xml'}.get(format, format)}"
        words = ("export", format, "--weights", weights, "--out", out, "--images", pictures, "--json", *flags)
        code, stdout, stderr = ctnet(*words)
        return code, json.loads(stdout) if stdout.startswith("{") else stderr, out

    return run


def photo(height, width):
    generator = np.random.default_rng(height)
    image = generator.integers(0, 255, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(image, (0, 0), 3)


def as_outputs(found):
    arrays = {"boxes": found.boxes_xyxy, "scores": found.scores, "labels": found.labels}
    return {name: torch.from_numpy(array)[None] for name, array in arrays.items()}


def assert_same_detections(file, weights, sizes=((64, 96), (51, 133), (200, 40))):
    """Both detectors see images of several sizes, three at a time."""
    ours = load_detector(weights, "cpu", "fp32").with_image_size((64, 96))
    theirs = load_detector(file)
    settings = theirs.recipe.evaluation
    images = [photo(*size) for size in sizes]
    for mine, other in zip(ours.detect(images, settings), theirs.detect(images, settings), strict=True):
        found, _, _, total = match_detections(*(as_outputs(d) for d in (mine, other)), 1e-3)
        assert found == total > 5
    assert [c.name for c in theirs.categories] == CLASSES


@pytest.mark.parametrize("format", ["onnx", "openvino", "pt2"])
def test_decoded_files_detect_what_torch_detects(format, export, narrow):
    code, report, file = export(format, narrow)
    assert code == 0, report
    proof = report["verification"]
    assert proof["passed"]
    assert proof["matched"] == proof["detections"] > 20
    assert (report["outputs"], report["size"], report["batch"]) == (["boxes", "scores", "labels"], [64, 96], None)
    assert_same_detections(file, narrow)


def test_raw_decomposed_files_of_a_fixed_batch(export, narrow):
    code, report, file = export("onnx", narrow, "--raw", "--dcn", "decompose", "--batch-size", 2)
    assert code == 0, report
    assert all(output["relative"] < 1e-4 for output in report["verification"]["outputs"])
    import onnx

    model = onnx.load(file)
    kinds = {node.op_type for node in model.graph.node}
    assert "GridSample" in kinds
    assert "DeformConv" not in kinds
    assert [value.name for value in model.graph.output] == ["heatmap_logits", "size", "offset"]
    assert_same_detections(file, narrow)  # three images in batches of two


def test_a_graph_of_any_size_takes_images_as_they_are(export, narrow, ctnet):
    code, report, file = export("onnx", narrow, "--image-size", "dynamic")
    assert (code, report["size"]) == (0, None), report
    detector = load_detector(file)
    kept = detector.recipe.evaluation.model_copy(update={"keep_res": True})
    ours = load_detector(narrow, "cpu", "fp32").detect([photo(75, 210)], kept)[0]
    theirs = detector.detect([photo(75, 210)], kept)[0]
    assert np.abs(ours.scores[:20] - theirs.scores[:20]).max() < 1e-4


def test_half_precision_files_are_half_as_large(export, narrow):
    code, report, file = export("onnx", narrow, "--precision", "fp16", "--raw")
    assert code == 0, report["verification"]
    assert file.stat().st_size < 0.6 * narrow.stat().st_size


def test_eval_and_predict_take_exported_files(export, narrow, ctnet, small_set):
    file = export("openvino", narrow)[2]
    annotations = small_set / "annotations" / "instances_val.json"
    content = json.loads(annotations.read_text())
    for category, name in zip(content["categories"], CLASSES, strict=False):
        category["name"] = name
    annotations.write_text(json.dumps(content))
    code, out, err = ctnet("eval", "--weights", file, "--data", small_set, "--against", narrow, "--no-flip", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["protocol"]["precision"] == "OpenVINO float32"
    for name, value in document["metrics"].items():
        assert value == pytest.approx(document["against"]["metrics"][name], abs=1e-3)
    code, out, err = ctnet("predict", "--weights", file, small_set / "images" / "val", "--json", "--score", 0.2)
    assert code == 0, err
    assert {d["category_name"] for p in json.loads(out)["pictures"] for d in p["detections"]} <= set(CLASSES)


def test_a_file_that_differs_is_not_called_done(export, narrow, monkeypatch, tmp_path):
    from ctnet.export import onnx_format

    whole = onnx_format.write

    def spoiled(program, about, path, options):
        with torch.no_grad():
            program.state_dict["network.heads.size.2.bias"] += 0.5
        return whole(program, about, path, options)

    table = format_of(tmp_path / "net.onnx")
    monkeypatch.setitem(table.__dict__, "write", spoiled)
    code, _, file = export("onnx", narrow)
    assert (code, file.exists()) == (3, False)
    assert file.with_name("net.onnx.unverified").is_file()


def test_images_without_a_detection_prove_nothing(export, narrow, monkeypatch):
    from ctnet.export import verify

    monkeypatch.setattr(verify, "COUNTED", 1.1)
    code, _, file = export("pt2", narrow)
    assert (code, file.exists()) == (3, False)
    assert file.with_name("net.pt2.unverified").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino"])
@pytest.mark.parametrize(
    "recipe",
    ["centernet_dla34", "centernet_res18_lateral", "centernet_mobilenetv2", "centernet_hourglass104"],
)
def test_other_networks(format, recipe, export, trained_like):
    size = ("data.image_size=[128,256]",) if "hourglass" in recipe else ()
    code, report, _ = export(format, trained_like(recipe, *size), "--raw")
    assert code == 0, report
    assert all(output["relative"] < 1e-4 for output in report["verification"]["outputs"])
