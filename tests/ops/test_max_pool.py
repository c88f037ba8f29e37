"""Max-pooling in training against torch's own."""

import pytest
import torch
import torch.nn.functional as F

from ctnet.ops.max_pool import max_pool2d

# shape of the map, kernel, stride, padding
CASES = [
    ((2, 70, 33, 41), 3, 2, 1),
    ((1, 5, 7, 9), 2, 2, 0),
    ((3, 1, 8, 3), 2, 1, 1),
    ((1, 130, 20, 11), 5, 3, 2),
    ((2, 3, 6, 6), 3, 4, 0),
    ((1, 2, 1, 1), 1, 1, 0),
]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def ties(shape, dtype):
    """Return a map with many equal values, stored channels-last."""
    values = torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(0))
    return values.to(dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "kernel", "stride", "padding"), CASES)
def test_values_and_gradients_equal_torchs(shape, kernel, stride, padding, dtype):
    mine, theirs = ties(shape, dtype).requires_grad_(), ties(shape, torch.float64).requires_grad_()
    got, taps = max_pool2d(mine, kernel, stride, padding)
    expected = F.max_pool2d(theirs, kernel, stride, padding)
    assert (got.dtype, taps.dtype) == (dtype, torch.uint8)
    assert torch.equal(got.double(), expected)
    grad = torch.randint(-8, 9, expected.shape, generator=torch.Generator().manual_seed(1)) / 8  # exact in every type
    got.backward(grad.to(dtype))
    expected.backward(grad.double())
    assert torch.equal(mine.grad.double(), theirs.grad)
    assert mine.grad.is_contiguous(memory_format=torch.channels_last)


def test_layouts_and_parts_of_larger_maps_give_the_same():
    base = ties((2, 40, 10, 12), torch.float32)
    part = base[:, ::2, ::2]
    wanted = max_pool2d(part.contiguous(memory_format=torch.channels_last), 3, 2, 1)
    for x in (part, part.contiguous()):
        assert all(torch.equal(a, b) for a, b in zip(max_pool2d(x, 3, 2, 1), wanted, strict=True))
    x = part.clone().requires_grad_()
    (first,) = torch.autograd.grad(max_pool2d(x, 3, 2, 1)[0], x, torch.ones(2, 20, 3, 6))
    (second,) = torch.autograd.grad(max_pool2d(x, 3, 2, 1)[0], x, torch.ones(1, 1, 1, 1).expand(2, 20, 3, 6))
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_is_larger_than_any(dtype):
    x = ties((1, 3, 6, 5), dtype)
    x[0, 1, 2, 2], x[0, 2, 4, 4], x[0, 0] = torch.nan, torch.inf, -torch.inf
    got, _ = max_pool2d(x, 3, 2, 1)
    assert torch.equal(got, F.max_pool2d(x, 3, 2, 1)) or torch.allclose(
        got, F.max_pool2d(x, 3, 2, 1), rtol=0, atol=0, equal_nan=True
    )
    assert got[0, 1].isnan().any()
    assert (got[0, 0] == -torch.inf).all()


def test_an_empty_batch_has_an_empty_result():
    x = torch.zeros(0, 3, 8, 6, requires_grad=True)
    output, _ = max_pool2d(x, 2, 2)
    output.sum().backward()
    assert (output.shape, x.grad.shape) == ((0, 3, 4, 3), x.shape)


def test_operator_contract_holds():
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    torch.library.opcheck(torch.ops.ctnet.max_pool2d, (x.clone().requires_grad_(), 3, 2, 1))
    output, taps = max_pool2d(x, 3, 2, 1)
    torch.library.opcheck(torch.ops.ctnet.max_pool2d_backward, (torch.randn_like(output), taps, 5, 7, 3, 2, 1))


def test_gradients_agree_with_finite_differences():
    x = torch.randperm(84).reshape(1, 2, 6, 7).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: max_pool2d(x, 3, 2, 1)[0], (x,))


@pytest.mark.parametrize(
    ("x", "window", "message"),
    [
        (torch.zeros(3, 4, 5), (2, 2), "N,C,H,W"),
        (torch.zeros(1, 3, 4, 5).long(), (2, 2), "floating"),
        (torch.zeros(1, 3, 4, 5), (0, 1), "kernel 1 to 15"),
        (torch.zeros(1, 3, 40, 50), (16, 1), "kernel 1 to 15"),
        (torch.zeros(1, 3, 4, 5), (2, 0), "stride from 1"),
        (torch.zeros(1, 3, 4, 5), (2, 2, 2), "half the kernel"),
        (torch.zeros(1, 3, 4, 5), (2, 2, -1), "half the kernel"),
        (torch.zeros(1, 3, 2, 5), (3, 1), "no window"),
        (torch.zeros(1, 3, 0, 5), (1, 1), "no window"),
    ],
)
def test_wrong_arguments_are_refused(x, window, message):
    with pytest.raises(ValueError, match=message):
        max_pool2d(x, *window)
