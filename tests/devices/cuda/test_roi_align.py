"""RoIAlign over a pyramid against the reference in float64: value and gradients."""

import pytest
import torch

from ctnet.devices.conformance.result import deviation
from ctnet.ops import roi_align, roi_align_reference

BOUNDS = {torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}
STRIDES = [4.0, 8.0]
SHAPES = ((2, 7, 5), (2, 3, 4))


def problem(channels, boxes):
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randn(n, channels, *hw, generator=generator) for n, *hw in SHAPES]
    corner = torch.rand(boxes, 2, generator=generator) * 30 - 8
    rois = torch.cat([corner, corner + torch.rand(boxes, 2, generator=generator) * 25], 1)
    return levels, rois, *(torch.randint(0, 2, (boxes,), generator=generator) for _ in range(2))


def assert_close_to_reference(levels, given, size, ratio, aligned, device):
    dtype, bound = levels[0].dtype, BOUNDS[levels[0].dtype]
    leaves = [map.to(device).requires_grad_() for map in levels]
    result = roi_align(leaves, *(t.to(device) for t in given), STRIDES, size, ratio, aligned=aligned)
    exact = (given[0].double(), *given[1:])
    settings = (STRIDES, size, ratio, aligned)
    expected = roi_align_reference.forward([map.double() for map in levels], *exact, *settings)
    assert result.dtype == dtype
    deviation(result, expected, "bins", bound)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    result.backward(grad.to(device))
    sides = [side for shape in SHAPES for side in shape[1:]]
    wanted = roi_align_reference.backward(grad.double(), *exact, 2, sides, STRIDES, *settings[2:])
    for index, (leaf, gradient) in enumerate(zip(leaves, wanted, strict=True)):
        deviation(leaf.grad, gradient, f"gradient of level {index}", bound)
    return result


@pytest.mark.parametrize(
    ("channels", "size", "ratio", "aligned", "dtype"),
    [
        (3, 3, 0, True, torch.float32),
        (70, 1, 0, False, torch.float32),
        (2, 2, 3, True, torch.bfloat16),
        (1, 4, 1, False, torch.float16),
    ],
)
def test_values_and_gradients(channels, size, ratio, aligned, dtype, device):
    levels, *given = problem(channels, 5)
    assert_close_to_reference([map.to(dtype) for map in levels], given, size, ratio, aligned, device)


def test_boxes_that_are_none_and_numbers_that_are_not_finite(device):
    levels, rois, images, level = problem(2, 9)
    rois[0, 1], rois[1, 2], rois[2, 0], level[3], images[4] = torch.nan, torch.inf, -1e30, -1, 2
    rois[5, 2:], rois[6] = rois[5, :2], torch.tensor([-500.0, -400, 600, 500])
    levels[0][0, 1, 3, 2], levels[1][1, 0, 1, 1] = torch.nan, torch.inf
    result = assert_close_to_reference(levels, (rois, images, level), 2, 0, True, device)
    assert (result[:6] == 0).all()


def test_no_boxes_and_deterministic_algorithms(device):
    levels, *given = problem(2, 3)
    assert_close_to_reference(levels, [t[:0] for t in given], 2, 0, True, device)
    torch.use_deterministic_algorithms(True)
    try:
        assert_close_to_reference(levels, given, 2, 0, True, device)
    finally:
        torch.use_deterministic_algorithms(False)
