"""The scripts of docs/export.md find, without ctnet, what ctnet finds; and the shapes are as the page says."""

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

DOCS = Path(__file__).parents[2] / "docs" / "export.md"
SCRIPTS = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def photo(tmp_path):
    """An image that is neither square nor of the input's shape."""
    noise = np.random.default_rng(1).integers(0, 255, (90, 131, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "photo.jpg"), cv2.GaussianBlur(noise, (0, 0), 3))
    return tmp_path / "photo.jpg"


@pytest.mark.parametrize(("format", "suffix", "script"), [("onnx", "onnx", 0), ("openvino", "xml", 1)])
def test_a_script_without_ctnet_finds_the_same(format, suffix, script, ctnet, narrow, photo, tmp_path):
    pytest.importorskip({"onnx": "onnxruntime"}.get(format, format))
    file = tmp_path / f"best.{suffix}"
    code, _, err = ctnet("export", format, "--weights", narrow, "--out", file, "--no-verify")
    assert code == 0, err
    words = ("predict", "--weights", file, photo, "--score", 0.05, "--no-flip", "--json", "--out", tmp_path / "seen")
    code, out, err = ctnet(*words)
    assert code == 0, err
    found = json.loads(out)["pictures"][0]["detections"]
    expected = [(one["category_name"], one["score"], one["box"]) for one in found]
    assert len(expected) > 5
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", SCRIPTS[script].replace(">= 0.3", ">= 0.05")],
        cwd=tmp_path, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [line.split() for line in done.stdout.splitlines()]
    assert "ctnet." not in SCRIPTS[script]
    assert len(found) == len(expected)
    for (name, score, box), (other, *numbers) in zip(expected, found, strict=True):
        assert other == name
        numbers = [float(number) for number in numbers]
        assert numbers[0] == pytest.approx(score, abs=2e-3)
        assert numbers[1:] == pytest.approx(box, abs=0.15)


def test_the_free_axis_is_called_batch(ctnet, narrow, tmp_path):
    onnx = pytest.importorskip("onnx")
    file = tmp_path / "best.onnx"
    code, _, err = ctnet("export", "onnx", "--weights", narrow, "--out", file, "--no-verify")
    assert code == 0, err
    (given,) = onnx.load(file).graph.input
    assert given.name == "images"
    assert [axis.dim_param or axis.dim_value for axis in given.type.tensor_type.shape.dim] == ["batch", 3, 64, 96]
