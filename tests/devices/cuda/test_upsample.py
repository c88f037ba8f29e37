"""Depthwise up-sampling against torch's grouped transposed convolution in float64: value and both gradients."""

import pytest
import torch
import torch.nn.functional as F

from ctnet.devices.conformance.result import deviation
from ctnet.devices.cuda import upsample as kernels
from ctnet.ops import depthwise_upsample

BOUNDS = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}
# shape, kernel, stride, padding
CASES = {
    "by 2": ((2, 5, 7, 3), 4, 2, 1),
    "by 4": ((1, 3, 2, 3), 8, 4, 2),
    "kernel of the stride": ((1, 70, 3, 2), 2, 2, 0),
    "kernel below the stride": ((1, 4, 3, 2), 2, 3, 0),
    "odd kernel": ((2, 4, 3, 5), 3, 2, 1),
    "no enlargement": ((1, 4, 3, 5), 3, 1, 1),
    "no images": ((0, 4, 3, 5), 4, 2, 1),
}


def assert_close_to_reference(x, weight, stride, padding, device, bound):
    """Fail where the result or a gradient is farther than `bound` from torch's in float64."""
    ours, exact = ([t.detach().to(to).requires_grad_() for t in (x, weight)] for to in (device, torch.float64))
    result = depthwise_upsample(*ours, stride, padding)
    expected = F.conv_transpose2d(*exact, stride=stride, padding=padding, groups=x.shape[1])
    assert result.dtype == x.dtype
    deviation(result, expected, "value", bound)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(x.dtype)
    result.backward(grad.to(device))
    expected.backward(grad.double())
    for name, leaf, wanted in zip(("input", "weight"), ours, exact, strict=True):
        deviation(leaf.grad, wanted.grad, f"gradient of {name}", bound)


@pytest.mark.parametrize(("case", "dtype"), [*((case, torch.float32) for case in CASES), ("by 2", torch.bfloat16)])
def test_value_and_gradients(case, dtype, device):
    shape, kernel, stride, padding = CASES[case]
    torch.manual_seed(0)
    x, weight = torch.randn(shape).to(dtype), torch.randn(shape[1], 1, kernel, kernel).to(dtype)
    assert_close_to_reference(x, weight, stride, padding, device, BOUNDS[dtype])


def test_one_program_may_sum_over_several_tiles(device, monkeypatch):
    monkeypatch.setattr(kernels, "BUSY", 1)
    torch.manual_seed(0)
    assert_close_to_reference(torch.randn(2, 3, 5, 7), torch.randn(3, 1, 2, 2), 2, 0, device, BOUNDS[torch.float32])


def test_numbers_that_are_not_finite_stay_in_their_channel_and_reach(device):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 5, 4, 3), torch.randn(5, 1, 4, 4)
    x[0, 1, 2, 1], x[1, 3, 0, 0] = torch.nan, torch.inf
    ours = depthwise_upsample(x.to(device), weight.to(device), 2, 1)
    exact = F.conv_transpose2d(x, weight, stride=2, padding=1, groups=5)
    deviation(ours, exact.double(), "value", BOUNDS[torch.float32])


def test_half_precision_and_channels_last(device):
    torch.manual_seed(0)
    x = torch.randn(2, 17, 3, 5).half().contiguous(memory_format=torch.channels_last)
    assert_close_to_reference(x, torch.randn(17, 1, 4, 4).half(), 2, 1, device, BOUNDS[torch.float16])
