"""Depthwise up-sampling against torch's grouped transposed convolution."""

import pytest
import torch
import torch.nn.functional as F

from ctnet.ops import depthwise_upsample


def reference(x, weight, stride, padding):
    return F.conv_transpose2d(x, weight, stride=stride, padding=padding, groups=x.shape[1])


@pytest.mark.parametrize(("images", "channels"), [(1, 1), (3, 19), (2, 70)])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [((5, 7), 4, 2, 1), ((3, 2), 8, 4, 2), ((1, 1), 16, 8, 4), ((4, 5), 3, 2, 0), ((6, 3), 5, 1, 3), ((2, 9), 2, 3, 0)],
)
def test_value_and_gradients_equal_the_grouped_convolution(images, channels, size, kernel, stride, padding):
    torch.manual_seed(0)
    x = torch.randn(images, channels, *size, dtype=torch.float64).requires_grad_()
    weight = torch.randn(channels, 1, kernel, kernel, dtype=torch.float64).requires_grad_()
    expected = reference(x, weight, stride, padding)
    got = depthwise_upsample(x, weight, stride, padding)
    grad = torch.randn_like(expected)
    assert torch.allclose(got, expected, atol=1e-12)
    for mine, theirs in zip(
        torch.autograd.grad(got, (x, weight), grad), torch.autograd.grad(expected, (x, weight), grad), strict=True
    ):
        assert torch.allclose(mine, theirs, atol=1e-10)


def test_more_channels_than_are_summed_at_a_time():
    x, weight = torch.randn(1, 300, 3, 2), torch.randn(300, 1, 3, 3)
    assert torch.allclose(depthwise_upsample(x, weight, 2), reference(x, weight, 2, 0), atol=1e-5)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_other_types_and_strided_maps_stay_close_to_float64(dtype, bound):
    torch.manual_seed(1)
    wide = torch.randn(2, 66, 9, 14).to(dtype)
    x, weight = wide[:, ::2, :, ::2].requires_grad_(), torch.randn(33, 1, 4, 4).to(dtype).requires_grad_()
    got = depthwise_upsample(x, weight, 2, 1)
    exact_x, exact_weight = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    expected = reference(exact_x, exact_weight, 2, 1)
    grad = torch.randn_like(expected)
    assert got.dtype == dtype
    pairs = zip(
        (got, *torch.autograd.grad(got, (x, weight), grad.to(dtype))),
        (expected, *torch.autograd.grad(expected, (exact_x, exact_weight), grad)),
        strict=True,
    )
    for mine, theirs in pairs:
        assert (mine.double() - theirs).abs().max() < bound * theirs.abs().max()


def test_an_empty_batch_has_an_empty_result():
    assert depthwise_upsample(torch.zeros(0, 3, 4, 5), torch.zeros(3, 1, 4, 4), 2, 1).shape == (0, 3, 8, 10)


def test_operator_contract_holds():
    x, weight = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(3, 1, 4, 4, dtype=torch.float64)
    torch.library.opcheck(torch.ops.ctnet.depthwise_upsample, (x.requires_grad_(), weight.requires_grad_(), 2, 1))
    grad = torch.randn(2, 3, 8, 10, dtype=torch.float64)
    plain = (grad, x.detach(), weight.detach(), 2, 1)
    torch.library.opcheck(torch.ops.ctnet.depthwise_upsample_backward, plain)


def test_autocast_runs_in_bf16():
    x, weight = torch.randn(1, 3, 4, 5), torch.randn(3, 1, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert depthwise_upsample(x, weight, 2, 1).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("x", "weight", "stride", "message"),
    [
        (torch.zeros(3, 4, 5), torch.zeros(3, 1, 4, 4), 2, "expected"),
        (torch.zeros(1, 3, 4, 5), torch.zeros(2, 1, 4, 4), 2, "expected"),
        (torch.zeros(1, 3, 4, 5), torch.zeros(3, 1, 4, 3), 2, "expected"),
        (torch.zeros(1, 3, 4, 5), torch.zeros(3, 1, 4, 4), 0, "nothing is left"),
        (torch.zeros(1, 3, 4, 5), torch.zeros(3, 1, 4, 4).double(), 2, "one floating type"),
        (torch.zeros(1, 3, 4, 5), torch.zeros(3, 1, 4, 4, device="meta"), 2, "one device"),
    ],
)
def test_wrong_shapes_are_refused(x, weight, stride, message):
    with pytest.raises(ValueError, match=message):
        depthwise_upsample(x, weight, stride, 1)
