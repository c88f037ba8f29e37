"""`ctnet export executorch` in ExecuTorch's own runtime."""

import importlib.util
import json

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None, reason='needs pip install "ctnet[executorch]"'
)


def test_programs_detect_what_torch_detects(ctnet, trained_like, small_set, tmp_path):
    weights = trained_like("centernet_res18")
    file, pictures = tmp_path / "net.pte", small_set / "images" / "val"
    code, out, err = ctnet(
        "export", "executorch", "--weights", weights, "--out", file, "--pictures", pictures, "--json"
    )
    assert code == 0, err
    report = json.loads(out)
    proof = report["verification"]
    assert proof["matched"] == proof["detections"] > 20
    assert report["batch"] is None
    code, out, err = ctnet("predict", "--weights", file, pictures, "--json", "--score", 0.05)
    assert (code, "ExecuTorch float32" in err) == (0, True), err
    assert any(picture["detections"] for picture in json.loads(out)["pictures"])
    (tmp_path / "cut.pte").write_bytes(file.read_bytes()[:5000])
    (tmp_path / "text.pte").write_text("nothing")
    for name in ("cut.pte", "text.pte"):
        code, _, err = ctnet("predict", "--weights", tmp_path / name, pictures)
        assert (code, "ExecuTorch cannot load" in err) == (3, True), err


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["centernet_resdcn18", "centernet_mobilenetv2"])
def test_operators_of_ours_become_ordinary_ones(recipe, ctnet, trained_like, small_set, tmp_path):
    words = (
        "export",
        "executorch",
        "--weights",
        trained_like(recipe),
        "--out",
        tmp_path / "net.pte",
        "--raw",
        "--json",
    )
    code, out, err = ctnet(*words, "--pictures", small_set)
    assert code == 0, err
    assert all(output["relative"] < 1e-4 for output in json.loads(out)["verification"]["outputs"])


def test_only_float32_is_written(ctnet, narrow, tmp_path):
    words = ("export", "executorch", "--weights", narrow, "--out", tmp_path / "net.pte", "--precision", "fp16")
    code, _, err = ctnet(*words)
    assert (code, "not written in this precision" in err) == (2, True), err
