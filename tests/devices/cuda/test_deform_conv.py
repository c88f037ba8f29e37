"""The deformable convolution against the reference in float64 and the golden operator: value and every gradient."""

import pytest
import torch

from ctnet.devices.conformance.result import deviation
from ctnet.devices.cuda import deform_conv as kernels
from ctnet.devices.cuda import deform_conv_backward as gradient_kernels
from ctnet.ops import deform_conv2d, deform_conv_reference

NAMES = ("x", "offset", "weight", "bias", "mask")
BOUNDS = {torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
GOLDEN = ("dil3_stride2", "no_mask_no_bias_dg2", "odd_1x1_image", "kernel_2x2")


def problem(images=2, channels=5, hw=(4, 5), filters=3, groups=1, deform_groups=1, kernel=(3, 3), out=None):
    generator = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    taps, out = kernel[0] * kernel[1], out or hw
    return {
        "x": normal(images, channels, *hw),
        "offset": normal(images, 2 * deform_groups * taps, *out) * 2,
        "weight": normal(filters, channels // groups, *kernel),
        "bias": normal(filters),
        "mask": torch.rand(images, deform_groups * taps, *out, generator=generator),
    }


def assert_close_to_reference(tensors, device, bound, stride=1, padding=1, dilation=1, grad=None):
    """Return our result; fail where it or a gradient is farther than `bound` from the reference in float64.

    The reference is given the same rounded numbers.
    """
    ours, exact = (
        {name: to(t).detach().requires_grad_() for name, t in tensors.items()}
        for to in (lambda t: t.to(device), lambda t: t.double().contiguous())
    )
    call = lambda t: deform_conv2d(*(t[n] for n in NAMES[:3]), t.get("bias"), stride, padding, dilation, t.get("mask"))  # noqa: E731
    result, expected = call(ours), call(exact)
    deviation(result, expected, "value", bound)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)) if grad is None else grad
    grad = grad.to(result.dtype)
    result.backward(grad.to(device))
    expected.backward(grad.double())
    for name in tensors:
        assert ours[name].grad.dtype == tensors[name].dtype
        deviation(ours[name].grad, exact[name].grad, f"gradient of {name}", bound)
    return result


@pytest.mark.parametrize("name", GOLDEN)
def test_it_equals_the_golden_operator(name, device, golden, golden_cases):
    file = golden("dcn_op")
    arrays = {key.partition("/")[2]: torch.tensor(file[key]) for key in file.files if key.startswith(f"{name}/")}
    leaves = {n: arrays[n].float().to(device).requires_grad_() for n in NAMES if n in arrays}
    arguments = (leaves["x"], leaves["offset"], leaves["weight"], leaves.get("bias"))
    result = deform_conv2d(*arguments, mask=leaves.get("mask"), **golden_cases["dcn_op"][name])
    deviation(result, arrays["y"], "value", 2e-6)
    result.backward(arrays["grad_out"].float().to(device))
    for name, leaf in leaves.items():
        # the slope of a sample is a difference of two corners, so float32 keeps fewer digits of it
        deviation(leaf.grad, arrays[f"d{name}"], f"gradient of {name}", 1e-5)


@pytest.mark.parametrize("busy", [1, 10**9], ids=["large tiles", "small tiles"])
def test_several_tiles_of_cells_filters_and_channels(busy, device, monkeypatch):
    monkeypatch.setattr(kernels, "BUSY", busy)
    monkeypatch.setattr(gradient_kernels, "BUSY", busy)
    tensors = problem(images=3, channels=37, hw=(4, 5), filters=67, kernel=(2, 1), out=(5, 7))
    assert_close_to_reference(tensors, device, BOUNDS[torch.float32])


@pytest.mark.parametrize(("dtype", "side"), [(torch.float16, "as the map"), (torch.bfloat16, "float32")])
def test_reduced_precision_multiplies_rounded_columns(dtype, side, device):
    sides = ("offset", "mask") if side == "float32" else ()
    tensors = {name: t if name in sides else t.to(dtype) for name, t in problem(channels=18, filters=17).items()}
    assert assert_close_to_reference(tensors, device, BOUNDS[dtype]).dtype == dtype


def test_groups_may_lie_across_deformable_groups(device):
    tensors = problem(channels=12, filters=6, groups=3, deform_groups=2, kernel=(2, 2), hw=(5, 3), out=(3, 6))
    assert_close_to_reference(tensors, device, BOUNDS[torch.float32], stride=(2, 1), padding=(1, 2), dilation=(2, 1))


def test_layout_does_not_matter_and_the_result_is_channels_last(device):
    tensors, last = problem(channels=6), torch.channels_last
    side = torch.cat([tensors["offset"], tensors["mask"]], 1).contiguous(memory_format=last)
    tensors |= {"offset": side[:, :18], "mask": side[:, 18:]}
    wide = torch.zeros(2, 12, 8, 10)
    wide[:, ::2, ::2, ::2] = tensors["x"]
    for x in (tensors["x"].contiguous(memory_format=last), wide[:, ::2, ::2, ::2]):
        weight = tensors["weight"].contiguous(memory_format=last)
        one = torch.ones(()).expand(2, 3, 4, 5)  # the gradient of a sum has no strides
        result = assert_close_to_reference(
            {**tensors, "x": x, "weight": weight}, device, BOUNDS[torch.float32], grad=one
        )
        assert result.is_contiguous(memory_format=last)


def test_unusable_offsets_contribute_nothing(device):
    tensors = problem(channels=2, hw=(3, 4))
    for channel, bad in enumerate((torch.nan, torch.inf, -torch.inf, 1e30, -1e30)):
        tensors["offset"][:, 3 * channel], tensors["offset"][1, 8, 1, channel % 4] = bad, bad
    assert assert_close_to_reference(tensors, device, BOUNDS[torch.float32]).isfinite().all()


@pytest.mark.parametrize("name", ["map", "mask", "mask outside", "gradient"])
def test_numbers_that_are_not_finite_go_as_far_as_they_are_used(name, device):
    tensors, grad = problem(channels=4, filters=3, deform_groups=2, groups=1), torch.randn(2, 3, 4, 5)
    if name == "map":
        tensors["x"][0, 1, 0, 0], tensors["x"][1, 2, 3, 4] = torch.nan, torch.inf
    elif name == "mask":
        tensors["mask"][0, 4, 2, 2] = torch.nan
    elif name == "mask outside":
        tensors["offset"][0, 6, 1, 2] = tensors["mask"][0, 3, 1, 2] = torch.nan
    else:
        grad[0, 1, 2, 3], tensors["offset"][0, :12, 2, 3] = torch.nan, 100.0
    assert_close_to_reference(tensors, device, BOUNDS[torch.float32], grad=grad)


@pytest.mark.parametrize("place", [-1.0, -0.999, 0.0, 2.0, 2.5, 2.999, 3.0])
def test_borders_are_those_of_the_reference(place, device):
    tensors = problem(images=2, channels=1, hw=(3, 3), filters=1, kernel=(1, 1))
    row, column = torch.arange(3.0)[:, None], torch.arange(3.0)
    for image, (y, x) in enumerate(((place, 0.25), (0.25, place))):
        tensors["offset"][image, 0], tensors["offset"][image, 1] = y - row, x - column
    assert_close_to_reference(tensors, device, BOUNDS[torch.float32], padding=0)


def test_an_empty_batch_has_an_empty_result_and_zero_gradients(device):
    leaves = {name: t.to(device).requires_grad_() for name, t in problem(images=0).items()}
    result = deform_conv2d(*(leaves[n] for n in NAMES[:4]), padding=1, mask=leaves["mask"])
    result.sum().backward()
    assert result.shape == (0, 3, 4, 5)
    assert leaves["weight"].grad.abs().sum() == 0


def test_deterministic_algorithms_are_the_reference(device):
    tensors = {name: t.to(device) for name, t in problem().items()}
    arguments = [tensors[n] for n in ("x", "offset", "weight", "mask")]
    pairs, grad = [[1, 1]] * 3, torch.ones(2, 3, 4, 5, device=device)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        found = torch.ops.ctnet.deform_conv2d_backward(grad, *arguments, *pairs)
    finally:
        torch.use_deterministic_algorithms(False)
    expected = deform_conv_reference.backward(grad, *arguments, *pairs)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_float64_is_the_reference(device):
    tensors = {name: t.double() for name, t in problem().items()}
    assert_close_to_reference(tensors, device, 1e-12)
