"""The graph that is exported: decoding by ordinary operators, and the deformable layer without its operator."""

import warnings

import onnxruntime
import pytest
import torch

from ctnet.export.graph import SampledConv2d, exported_peaks
from ctnet.export.verify import match_detections
from ctnet.nn import DeformConv2d
from ctnet.ops import decode_peaks


@pytest.mark.parametrize("shape", [(1, 1, 7, 9), (3, 5, 13, 8)])
def test_peaks_equal_those_of_the_operator(shape):
    torch.manual_seed(0)
    logits = torch.randn(shape)
    ours, theirs = decode_peaks(logits, 20), exported_peaks(logits, 20)
    for name in ours._fields:
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


class Peaked(torch.nn.Module):
    def forward(self, logits):
        return tuple(exported_peaks(logits, 20))


def test_runtimes_order_ties_and_plateaus_as_the_operator_does(tmp_path):
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 13, 8).mul(4).round() / 2  # many equal values
    logits[:, :, 2:4, 3:6] = 5  # a plateau
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Peaked(), (logits,), tmp_path / "peaks.onnx", dynamo=True, opset_version=19, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "peaks.onnx")
    theirs = session.run(None, {session.get_inputs()[0].name: logits.numpy()})
    ours = decode_peaks(logits, 20)
    assert torch.allclose(ours.scores, torch.from_numpy(theirs[0]))
    assert torch.equal(ours.labels, torch.from_numpy(theirs[1]))
    assert torch.equal(ours.cells, torch.from_numpy(theirs[2]))


def test_missing_peaks_have_no_score_class_or_cell():
    logits = torch.full((1, 2, 6, 6), -1e4)
    logits[0, 1, 2, 3] = 1.5
    peaks = exported_peaks(logits, 5)
    assert (peaks.scores[0, 1:] == 0).all()
    assert peaks.labels[0].tolist() == [1, 0, 0, 0, 0]
    assert peaks.cells[0].tolist() == [15, 0, 0, 0, 0]


@pytest.mark.parametrize("bias", [True, False])
def test_a_deformable_layer_by_grid_sample(bias):
    torch.manual_seed(0)
    layer = DeformConv2d(5, 7, bias=bias).double()
    torch.nn.init.normal_(layer.offset_mask.weight, std=0.5)  # far outside the map at times
    torch.nn.init.normal_(layer.offset_mask.bias)
    x = torch.randn(2, 5, 11, 6, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(SampledConv2d(layer)(x), layer(x), rtol=1e-9, atol=1e-9)


def detections(*rows):
    boxes, scores, labels = zip(*rows, strict=True)
    return {
        "boxes": torch.tensor([boxes], dtype=torch.float32),
        "scores": torch.tensor([scores]),
        "labels": torch.tensor([labels]),
    }


def test_detections_are_matched_by_class_box_and_score():
    ours = detections(([0, 0, 10, 10], 0.9, 1), ([5, 5, 50, 60], 0.5, 0), ([1, 1, 3, 3], 0.01, 0))
    same = detections(([5, 5.01, 50, 60], 0.5001, 0), ([0, 0, 10, 10], 0.9, 1), ([9, 9, 12, 12], 0.01, 1))
    found, score_error, box_error, total = match_detections(ours, same, 1e-3)
    assert (found, total) == (2, 2)
    assert score_error == pytest.approx(1e-4, rel=0.01)
    assert box_error == pytest.approx(0.01, rel=0.01)
    for other in (
        detections(([0, 0, 10, 10], 0.9, 2), ([5, 5, 50, 60], 0.5, 0), ([1, 1, 3, 3], 0.01, 0)),  # class
        detections(([0, 0, 10, 10.5], 0.9, 1), ([5, 5, 50, 60], 0.5, 0), ([1, 1, 3, 3], 0.01, 0)),  # box
        detections(([0, 0, 10, 10], 0.88, 1), ([5, 5, 50, 60], 0.5, 0), ([1, 1, 3, 3], 0.01, 0)),  # score
        detections(([float("nan")] * 4, 0.9, 1), ([5, 5, 50, 60], 0.5, 0), ([1, 1, 3, 3], 0.01, 0)),
    ):
        assert match_detections(ours, other, 1e-3)[0] == 1


def test_one_detection_stands_for_one_only():
    ours = detections(([0, 0, 10, 10], 0.9, 1), ([0, 0, 10, 10], 0.9, 1), ([1, 1, 3, 3], 0.01, 0))
    theirs = detections(([0, 0, 10, 10], 0.9, 1), ([7, 7, 9, 9], 0.9, 1), ([1, 1, 3, 3], 0.01, 0))
    assert match_detections(ours, theirs, 1e-3)[0] == 1
