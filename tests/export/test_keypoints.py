"""Detectors with key points in every format: decoded in the graph, of any size, with the schema in the file."""

import importlib.util
import json

import numpy as np
import pytest

from ctnet.data.image import read_image
from ctnet.detect.opening import load_detector
from ctnet.types import FACE, PERSON

NETWORKS = {
    "pose_res18_lateral": (PERSON, ("model.neck_channels=[24,16,16]", "model.head_channels=16")),
    "centerface_mobilenetv2": (FACE, ("model.neck_channels=[24,16,16]",)),
}
CASES = [
    ("onnx", ".onnx", "pose_res18_lateral"),
    ("openvino", ".xml", "centerface_mobilenetv2"),
    ("pt2", ".pt2", "pose_res18_lateral"),
]
needs_executorch = pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None, reason='needs pip install "ctnet-toolkit[executorch]"'
)


def exported(ctnet, kind, weights, file, pictures, *more):
    code, out, err = ctnet("export", kind, "--weights", weights, "--out", file, "--images", pictures, "--json", *more)
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize(("kind", "suffix", "recipe"), CASES)
def test_key_points_are_decoded_in_the_graph(kind, suffix, recipe, trained_like, small_set, tmp_path, ctnet):
    schema, overrides = NETWORKS[recipe]
    weights, pictures = trained_like(recipe, *overrides), small_set / "images" / "val"
    report = exported(ctnet, kind, weights, tmp_path / f"net{suffix}", pictures, "--image-size", "dynamic")
    assert report["verification"]["passed"]
    assert report["verification"]["detections"] > 0
    assert report["outputs"] == ["boxes", "scores", "labels", "keypoints"]
    image = read_image(next(pictures.iterdir()))[:90, :75]
    ours, theirs = (load_detector(file, "cpu") for file in (weights, tmp_path / f"net{suffix}"))
    assert theirs.family.keypoints == ours.family.keypoints == schema
    settings = theirs.recipe.evaluation
    [a], [b] = ours.detect(image, settings), theirs.detect(image, settings)
    assert a.keypoints.shape[1:] == (len(schema.names), 2)
    for box, points in zip(a.boxes_xyxy[:10], a.keypoints[:10], strict=True):  # equal scores may change places
        same = np.abs(b.boxes_xyxy - box).max(1).argmin()
        assert np.allclose(b.keypoints[same], points, atol=0.05)


def test_graphs_for_ascend_return_every_map(trained_like, small_set, tmp_path, ctnet):
    weights = trained_like("pose_res18_lateral", *NETWORKS["pose_res18_lateral"][1])
    code, _, err = ctnet("export", "om", "--weights", weights, "--out", tmp_path / "net.om", "--soc-version",
                         "Ascend310P3", "--images", small_set / "images" / "val")  # fmt: skip
    assert code == 0, err
    script = (tmp_path / "net.atc.sh").read_text()
    assert "--soc_version=Ascend310P3" in script
    about = json.loads((tmp_path / "net.om.json").read_text())
    assert about["keypoints"]["names"] == list(PERSON.names)
    assert about["output"] == "raw"


@needs_executorch
@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["pose_res18_lateral", "centerface_mobilenetv2"])
def test_programs_for_phones_decode_key_points(recipe, trained_like, small_set, tmp_path, ctnet):
    weights = trained_like(recipe, *NETWORKS[recipe][1])
    report = exported(ctnet, "executorch", weights, tmp_path / "net.pte", small_set / "images" / "val")
    assert report["verification"]["passed"]
    assert "keypoints" in report["outputs"]
