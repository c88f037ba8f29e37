"""Batch normalisation in training against torch's own, with a shortcut and a ReLU of torch's behind it."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from ctnet.ops.batch_norm import batch_norm

SHAPES = [(3, 27, 7, 5), (2, 300, 3, 4), (1, 1, 1, 2), (2, 64, 33, 41), (1, 16, 130, 67)]


def inputs(shape, dtype, *, adds, seed=0):
    """Return a map of mean 3, weight, bias and perhaps a shortcut, all of which collect gradients."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 3
    weight, bias = (torch.randn(shape[1], generator=generator, dtype=torch.float64) for _ in range(2))
    shortcut = torch.randn(shape, generator=generator, dtype=torch.float64) if adds else None
    vectors = torch.float64 if dtype == torch.float64 else torch.float32
    leaves = [x.to(dtype), weight.to(vectors), bias.to(vectors), None if shortcut is None else shortcut.to(dtype)]
    return [leaf if leaf is None else leaf.requires_grad_() for leaf in leaves]


def by_torch(x, weight, bias, shortcut, relu, eps):
    y = F.batch_norm(x, None, None, weight, bias, True, eps=eps)
    y = y if shortcut is None else y + shortcut
    return y.relu() if relu else y


def doubled(leaves):
    return [None if leaf is None else leaf.detach().double().requires_grad_() for leaf in leaves]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("relu", "adds"), itertools.product([False, True], repeat=2))
def test_value_statistics_and_gradients_equal_torchs_in_float64(shape, relu, adds):
    leaves = inputs(shape, torch.float64, adds=adds)
    got, mean, variance = batch_norm(*leaves, relu=relu, eps=1e-3)
    expected = by_torch(*leaves, relu, 1e-3)
    assert torch.allclose(got, expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(mean, leaves[0].mean((0, 2, 3)), atol=1e-12)
    assert torch.allclose(variance, leaves[0].var((0, 2, 3), correction=0), rtol=1e-12)
    grad = torch.randn_like(expected)
    wanted = [leaf for leaf in leaves if leaf is not None]
    pairs = zip(torch.autograd.grad(got, wanted, grad), torch.autograd.grad(expected, wanted, grad), strict=True)
    for mine, theirs in pairs:
        assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("shape", [(3, 27, 7, 5), (2, 64, 33, 41), (4, 320, 17, 9)])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 3e-6), (torch.bfloat16, 8e-3)])
def test_narrow_types_stay_close_to_float64(shape, dtype, bound):
    # a ReLU's gradient jumps where rounding moves an output over zero, hence none here
    leaves = inputs(shape, dtype, adds=True)
    got, _, _ = batch_norm(*leaves)
    exact = doubled(leaves)
    expected = by_torch(*exact, False, 1e-5)
    assert got.dtype == dtype
    grad = torch.randn(shape).to(dtype)
    pairs = zip(
        (got, *torch.autograd.grad(got, leaves, grad)),
        (expected, *torch.autograd.grad(expected, exact, grad.double())),
        strict=True,
    )
    for mine, theirs in pairs:
        assert (mine.double() - theirs).abs().max() <= bound * theirs.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_behind_the_relu_gradients_pass_where_the_output_is_positive(dtype):
    leaves = inputs((2, 35, 9, 11), dtype, adds=True)
    got, _, _ = batch_norm(*leaves, relu=True)
    assert 0.2 < float((got > 0).float().mean()) < 0.8
    grad = torch.randn(got.shape).to(dtype)
    passed, by_bias = torch.autograd.grad(got, (leaves[3], leaves[2]), grad)
    assert torch.equal(passed, torch.where(got > 0, grad, 0))
    assert torch.allclose(by_bias, passed.float().sum((0, 2, 3)), atol=1e-4)
    alone, _, _ = batch_norm(*leaves[:3], relu=True)
    (by_bias,) = torch.autograd.grad(alone, leaves[2], grad)
    assert torch.allclose(by_bias, torch.where(alone > 0, grad, 0).float().sum((0, 2, 3)), atol=1e-4)


def test_statistics_far_from_zero_do_not_cancel():
    x = torch.randn(2, 5, 40, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    far = (x + 1000).float()
    _, mean, variance = batch_norm(far, torch.ones(5), torch.zeros(5))
    assert torch.allclose(variance.double(), far.double().var((0, 2, 3), correction=0), rtol=1e-4)
    assert torch.allclose(mean.double(), far.double().mean((0, 2, 3)), rtol=1e-7)


def test_layouts_and_parts_of_larger_maps_give_the_same():
    base = torch.randn(2, 40, 10, 12)
    shortcut = torch.randn(2, 20, 5, 12)
    part = base[:, ::2, ::2]
    weight, bias = torch.randn(20), torch.randn(20)
    wanted = batch_norm(part.contiguous(memory_format=torch.channels_last), weight, bias, shortcut, relu=True)
    for x in (part, part.contiguous()):
        for mine, theirs in zip(batch_norm(x, weight, bias, shortcut, relu=True), wanted, strict=True):
            assert torch.allclose(mine, theirs, atol=1e-6)
    assert wanted[0].is_contiguous(memory_format=torch.channels_last)


def test_what_is_not_finite_stays_visible():
    x = torch.randn(2, 3, 4, 5)
    x[1, 1, 2, 3] = torch.nan
    output, *statistics = batch_norm(x, torch.ones(3), torch.zeros(3), relu=True)
    assert output[:, 1].isnan().all()
    assert output[:, [0, 2]].isfinite().all()
    for values in statistics:
        assert values.isnan().tolist() == [False, True, False]


def test_threads_do_not_change_a_bit(implementation):
    if implementation == "reference":
        pytest.skip("torch's sums depend on the number of threads")
    leaves = inputs((2, 70, 65, 63), torch.float32, adds=True)
    grad = torch.randn(2, 70, 65, 63)
    results, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            got = batch_norm(*leaves, relu=True)
            results.append([*got, *torch.autograd.grad(got[0], leaves, grad)])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(("relu", "adds"), [(True, True), (False, False)])
def test_operator_contract_holds(relu, adds):
    leaves = inputs((2, 3, 4, 5), torch.float64, adds=adds)
    x, weight, bias, shortcut = (None if leaf is None else leaf.detach() for leaf in leaves)
    torch.library.opcheck(torch.ops.ctnet.batch_norm, (x, weight, bias, shortcut, relu, 1e-3))
    output, mean, variance = batch_norm(x, weight, bias, shortcut, relu=relu)
    backward = (torch.randn_like(x), x, output, weight, bias, mean, variance, relu, adds, 1e-3)
    torch.library.opcheck(torch.ops.ctnet.batch_norm_backward, backward)


@pytest.mark.parametrize(("relu", "adds"), [(False, True), (True, False)])
def test_gradients_agree_with_finite_differences(relu, adds):
    leaves = inputs((2, 3, 3, 2), torch.float64, adds=adds)
    assert torch.autograd.gradcheck(lambda *tensors: batch_norm(*tensors, relu=relu, eps=1e-3)[0], leaves)


@pytest.mark.parametrize(
    ("x", "weight", "shortcut", "message"),
    [
        (torch.zeros(3, 4, 5), torch.zeros(3), None, "expected"),
        (torch.zeros(1, 3, 4, 5), torch.zeros(4), None, "expected"),
        (torch.zeros(1, 3, 4, 5), torch.zeros(3), torch.zeros(1, 3, 4, 4), "a shortcut"),
        (torch.zeros(1, 3, 4, 5), torch.zeros(3), torch.zeros(1, 3, 4, 5).double(), "a shortcut"),
        (torch.zeros(1, 3, 4, 5).long(), torch.zeros(3), None, "floating types"),
        (torch.zeros(1, 3, 4, 5), torch.zeros(3, device="meta"), None, "one device"),
        (torch.zeros(1, 3, 1, 1), torch.zeros(3), None, "more than one value"),
        (torch.zeros(0, 3, 4, 5), torch.zeros(3), None, "more than one value"),
    ],
)
def test_wrong_shapes_are_refused(x, weight, shortcut, message):
    with pytest.raises(ValueError, match=message):
        batch_norm(x, weight, torch.zeros(len(weight)), shortcut)
