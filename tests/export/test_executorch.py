"""`ctnet export executorch` in ExecuTorch's own runtime; lowering a whole network takes long."""

import importlib.util
import json

import pytest
import torch

from ctnet.errors import WeightsError
from ctnet.export import executorch_format
from ctnet.export.export import about_export
from ctnet.export.options import ExportOptions
from ctnet.weights.opening import open_weights

needs_executorch = pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None, reason='needs pip install "ctnet-toolkit[executorch]"'
)


class Toy(torch.nn.Module):
    """Three maps, by a convolution and the up-sampling that is an operator of ours."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = torch.nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.kernel = torch.nn.Parameter(torch.randn(5, 1, 4, 4))

    def forward(self, images):
        maps = torch.ops.ctnet.depthwise_upsample(self.convolution(images).relu(), self.kernel, 2, 1)
        return maps[:, :1], maps[:, 1:3], maps[:, 3:]


@needs_executorch
def test_a_program_returns_what_torch_returns_and_says_what_it_is(narrow, tmp_path, ctnet):
    about = about_export(open_weights(narrow, None), ExportOptions(output="raw"))
    toy, batch = Toy().eval(), torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(toy, (torch.zeros(2, 3, 64, 96),), dynamic_shapes=({0: batch},))
    file = tmp_path / "net.pte"
    assert executorch_format.write(program, about, file, ExportOptions()) == [file]
    runtime = executorch_format.load(file, None)
    assert runtime.about == about
    first = None
    for count in (1, 3):
        images = torch.randn(count, 3, 64, 96)
        outputs = runtime(images)
        assert list(outputs) == ["heatmap_logits", "size", "offset"]
        with torch.inference_mode():
            for ours, theirs in zip(toy(images), outputs.values(), strict=True):
                torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)
        if first is None:
            first, kept = outputs["size"], outputs["size"].clone()
    assert torch.equal(first, kept)  # a later call leaves earlier results alone
    for content in (file.read_bytes()[:2000], b"nothing"):
        file.write_bytes(content)
        with pytest.raises(WeightsError, match="ExecuTorch cannot load"):
            executorch_format.load(file, None)


@needs_executorch
@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["centernet_resdcn18", "centernet_mobilenetv2"])
def test_networks_detect_what_torch_detects(recipe, ctnet, trained_like, small_set, tmp_path):
    file, pictures = tmp_path / "net.pte", small_set / "images" / "val"
    words = ("export", "executorch", "--weights", trained_like(recipe), "--out", file, "--json")
    code, out, err = ctnet(*words, "--images", pictures, "--raw")
    assert code == 0, err
    assert all(output["relative"] < 1e-4 for output in json.loads(out)["verification"]["outputs"])
    code, out, err = ctnet("predict", "--weights", file, pictures, "--json", "--score", 0.05)
    assert (code, "ExecuTorch float32" in err) == (0, True), err
    assert any(image["detections"] for image in json.loads(out)["pictures"])


@needs_executorch
def test_only_float32_is_written(ctnet, narrow, tmp_path):
    words = ("export", "executorch", "--weights", narrow, "--out", tmp_path / "net.pte", "--precision", "fp16")
    code, _, err = ctnet(*words)
    assert (code, "not written in this precision" in err) == (2, True), err


def test_a_missing_package_is_named_with_the_command(ctnet, narrow, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "executorch" else found(name))
    code, _, err = ctnet("export", "executorch", "--weights", narrow)
    assert (code, 'pip install "ctnet-toolkit[executorch]"' in err) == (4, True), err
