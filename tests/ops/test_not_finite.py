"""What is not a number, infinite or not there at all: one answer of every implementation, stated in the docstrings."""

import functools
import itertools

import pytest
import torch
import torch.nn.functional as F

from ctnet.devices.conformance.result import deviation
from ctnet.ops import decode_peaks, deform_conv2d, depthwise_upsample, nms, soft_nms
from ctnet.ops.batch_norm import batch_norm
from ctnet.ops.max_pool import max_pool2d

NAN, INF = torch.nan, torch.inf
BOUNDS = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 2e-2}
DTYPES = pytest.mark.parametrize("dtype", BOUNDS)
BAD = pytest.mark.parametrize("bad", [NAN, INF, -INF])


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def deform_by_hand(x, offset, weight, mask, grad):
    """Return value and gradients of a 3x3 convolution with padding 1, sample by sample as the docstring has it."""
    x, offset, weight, mask = (t.detach().clone() for t in (x, offset, weight, mask))
    images, channels, height, width = x.shape
    out = torch.zeros(images, len(weight), height, width, dtype=x.dtype)
    d_x, d_offset, d_weight, d_mask = (torch.zeros_like(t) for t in (x, offset, weight, mask))
    for n, i, j, tap in itertools.product(range(images), range(height), range(width), range(9)):
        y = float(i - 1 + tap // 3 + offset[n, 2 * tap, i, j])
        z = float(j - 1 + tap % 3 + offset[n, 2 * tap + 1, i, j])
        if not (-1 < y < height and -1 < z < width):
            nothing = torch.zeros(channels, dtype=x.dtype)
            out[n, :, i, j] += weight[:, :, tap // 3, tap % 3] @ nothing
            d_weight[:, :, tap // 3, tap % 3] += grad[n, :, i, j, None] * nothing
            continue
        top, left = int(y // 1), int(z // 1)
        fy, fx = y - top, z - left
        sample = torch.zeros(channels, dtype=x.dtype)
        by_y, by_x = sample.clone(), sample.clone()
        column_grad = grad[n, :, i, j] @ weight[:, :, tap // 3, tap % 3]
        m = mask[n, tap, i, j]
        for dy, dx in itertools.product((0, 1), (0, 1)):
            if not (0 <= top + dy < height and 0 <= left + dx < width):
                continue
            value, wy, wx = x[n, :, top + dy, left + dx], (fy if dy else 1 - fy), (fx if dx else 1 - fx)
            sample += value * (wy * wx)
            by_y += value * ((1 if dy else -1) * wx)
            by_x += value * ((1 if dx else -1) * wy)
            d_x[n, :, top + dy, left + dx] += column_grad * (wy * wx * m)
        out[n, :, i, j] += weight[:, :, tap // 3, tap % 3] @ (sample * m)
        d_weight[:, :, tap // 3, tap % 3] += grad[n, :, i, j, None] * (sample * m)
        d_offset[n, 2 * tap, i, j] = (by_y * column_grad).sum() * m
        d_offset[n, 2 * tap + 1, i, j] = (by_x * column_grad).sum() * m
        d_mask[n, tap, i, j] = (sample * column_grad).sum()
    return out, d_x, d_offset, d_weight, d_mask


def spoil(name, tensors, bad):
    """Put a number that is not finite in a place or two of one tensor."""
    x, offset, weight, mask, grad = tensors
    if name == "map":
        x[0, 1, 0, 0] = x[1, 2, 3, 4] = bad
    elif name == "offset and mask":
        offset[0, 3, 1, 2], mask[0, 1, 1, 2] = bad, bad
    elif name == "mask outside":
        offset[0, 3, 1, 2], mask[0, 1, 1, 2] = 100.0, bad
    elif name == "mask":
        mask[1, 4, 2, 2] = bad
    elif name == "weight":
        weight[2, 1, 1, 1] = bad
    elif name == "gradient":
        grad[0, 1, 2, 3], offset[0, :6, 2, 3] = bad, 100.0


@functools.cache
def deform_problem(name, bad, dtype):
    """Return map, offset, weight, mask and gradient, and what comes out by hand."""
    shapes = ((2, 5, 4, 6), (2, 18, 4, 6), (3, 5, 3, 3), (2, 9, 4, 6), (2, 3, 4, 6))
    tensors = [normal(*shape, seed=i).to(dtype) for i, shape in enumerate(shapes)]
    tensors[1][0, 8:10] = 0  # whole-pixel positions, with corners of weight zero
    spoil(name, tensors, bad)
    return tensors, deform_by_hand(*(t.double() for t in tensors))


@DTYPES
@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize("name", ["map", "offset and mask", "mask outside", "mask", "weight", "gradient"])
def test_deform_conv_spreads_them_as_far_as_they_are_used(name, bad, dtype):
    tensors, expected = deform_problem(name, bad, dtype)
    x, offset, weight, mask = (t.clone().requires_grad_() for t in tensors[:4])
    result = deform_conv2d(x, offset, weight, padding=1, mask=mask)
    grads = torch.autograd.grad(result, (x, offset, weight, mask), tensors[4])
    for what, got, wanted in zip(("value", "map", "offset", "weight", "mask"), (result, *grads), expected, strict=True):
        deviation(got, wanted, what, BOUNDS[dtype])


def upsampling_by_hand(x, weight, grad):
    """Return value and the map's gradient of a 4x4 kernel with stride 2 and padding 1."""
    x, weight, grad = (t.detach().double() for t in (x, weight, grad))
    out, d_x = torch.zeros_like(grad), torch.zeros_like(x)
    for i, j, ky, kx in itertools.product(range(4), range(5), range(4), range(4)):
        row, column = 2 * i - 1 + ky, 2 * j - 1 + kx
        if 0 <= row < 8 and 0 <= column < 10:
            out[:, :, row, column] += x[:, :, i, j] * weight[:, 0, ky, kx]
            d_x[:, :, i, j] += grad[:, :, row, column] * weight[:, 0, ky, kx]
    return out, d_x


@DTYPES
@BAD
def test_upsampling_spreads_them_over_a_kernel(bad, dtype):
    for channels in (3, 70):
        x, weight = normal(2, channels, 4, 5).to(dtype), normal(channels, 1, 4, 4, seed=1).to(dtype)
        x[0, 1, 0, 0] = x[1, 2, 3, 2] = weight[0, 0, 1, 1] = bad
        weight[2] = 0
        x, weight = x.requires_grad_(), weight.requires_grad_()
        result = depthwise_upsample(x, weight, 2, 1)
        grad = normal(*result.shape, seed=2).to(dtype)
        grad[0, 1, 5, 5] = bad
        got = (result, *torch.autograd.grad(result, (x, weight), grad))
        for what, mine, theirs in zip(("value", "map"), got, upsampling_by_hand(x, weight, grad), strict=False):
            deviation(mine, theirs, what, BOUNDS[dtype])
        assert got[2][3:].isfinite().all()
        assert not got[2][1].isfinite().all()


@DTYPES
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("adds", [False, True])
@BAD
def test_a_norm_keeps_them_in_their_channel(bad, relu, adds, dtype):
    x, wide = normal(3, 6, 9, 7).to(dtype), torch.promote_types(dtype, torch.float32)
    x[0, 1, 0, 0] = x[2, 3, 8, 6] = bad
    shortcut = normal(3, 6, 9, 7, seed=1).to(dtype) if adds else None
    if adds:
        shortcut[1, 5, 4, 4] = bad
    leaves = [x, normal(6, seed=2).to(wide), normal(6, seed=3).to(wide), shortcut]
    leaves = [leaf if leaf is None else leaf.requires_grad_() for leaf in leaves]
    result, mean, variance = batch_norm(*leaves, relu=relu)
    assert result[:, [1, 3]].isnan().all()
    assert variance[[1, 3]].isnan().all()
    assert not mean[[1, 3]].isfinite().any()
    alone = [0, 2, 4, 5]
    expected = F.batch_norm(x.double(), None, None, leaves[1].double(), leaves[2].double(), True)
    expected = expected + shortcut.double() if adds else expected
    deviation(result[:, alone], (expected.relu() if relu else expected)[:, alone], "value", BOUNDS[dtype])
    wanted = [leaf for leaf in leaves if leaf is not None]
    grad_x, grad_weight, *_ = torch.autograd.grad(result, wanted, torch.ones_like(result))
    assert grad_x[:, [1, 3]].isnan().all()
    assert grad_weight[[1, 3]].isnan().all()
    assert grad_x[:, [0, 2, 4]].isfinite().all()


@DTYPES
def test_pooling_takes_what_torch_takes(dtype):
    x = normal(2, 70, 9, 7).to(dtype)
    x[0, 0, 2, 2] = x[0, 0, 2, 3] = x[1, 69, 8, 6] = NAN
    x[0, 1, 4, 4], x[1, 65] = INF, -INF
    got, taps = max_pool2d(x.clone().requires_grad_(), 3, 2, 1)
    expected, cells = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    assert torch.equal(got.detach().nan_to_num(123.0), expected.nan_to_num(123.0))
    rows, columns = torch.arange(5)[:, None] * 2 - 1, torch.arange(4) * 2 - 1
    assert torch.equal((rows + taps // 3) * 7 + columns + taps % 3, cells)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("last", [False, True])
def test_peaks_are_numbers(dtype, last):
    logits = normal(2, 5, 40, 37).to(dtype)
    logits[0, 0, 5, 5], logits[0, 0, 5, 6], logits[0, 1, 0, 0], logits[0, 2, 39, 36] = NAN, 50.0, INF, INF
    logits[1] = NAN
    peaks = decode_peaks(logits.contiguous(memory_format=torch.channels_last) if last else logits, 30)
    assert peaks.scores[0, :2].tolist() == [1, 1]
    assert (peaks.labels[0, :2].tolist(), peaks.cells[0, :2].tolist()) == ([1, 2], [0, 39 * 37 + 36])
    near = {(5 + dy) * 37 + 5 + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)}
    of_first = peaks.cells[0][peaks.labels[0] == 0].tolist()
    assert not near & set(of_first)
    assert peaks.scores[0].isfinite().all()
    assert (peaks.scores[1].abs().sum(), peaks.labels[1].sum(), peaks.cells[1].sum()) == (0, 0, 0)


def test_nms_keeps_no_box_whose_score_is_not_a_number():
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 4 + [[20.0, 0, 30, 10]])
    labels = torch.zeros(5, dtype=torch.int64)
    assert nms(boxes, torch.tensor([NAN, 0.5, INF, NAN, -INF]), labels).tolist() == [2, 4]
    assert nms(boxes, torch.full((5,), NAN), labels).tolist() == []


@BAD
def test_boxes_with_a_side_that_is_not_finite_overlap_none(bad):
    for side, plus_one in itertools.product(range(4), (False, True)):
        boxes = torch.tensor([[0.0, 0, 10, 10]] * 3)
        boxes[1, side] = bad
        scores, labels = torch.tensor([0.8, 0.9, 0.7]), torch.zeros(3, dtype=torch.int64)
        assert nms(boxes, scores, labels, plus_one=plus_one).tolist() == [1, 0]
        for method in ("gaussian", "linear"):
            decayed = soft_nms(boxes, scores, method=method, plus_one=plus_one)
            assert torch.equal(decayed[:2], scores[:2])
            assert decayed[2] < 0.2


@pytest.mark.parametrize("method", ["gaussian", "linear"])
def test_soft_nms_leaves_scores_that_are_not_numbers_alone(method):
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 9, 10], [0, 0, 10, 10]])
    scores = torch.tensor([NAN, 0.9, 0.8, NAN])
    decayed = soft_nms(boxes, scores, method=method)
    assert decayed.isnan().tolist() == [True, False, False, True]
    assert torch.allclose(decayed[1:3], soft_nms(boxes[1:3], scores[1:3], method=method))
    assert soft_nms(boxes, torch.full((4,), NAN), method=method).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(0, 3, 4, 6), (2, 0, 4, 6), (0, 0, 4, 6)])
def test_maps_without_images_or_channels_have_empty_results_and_gradients(shape, dtype):
    x = torch.zeros(shape, dtype=dtype, requires_grad=True)
    channels = shape[1]
    weight = torch.zeros(channels, 1, 4, 4, dtype=dtype, requires_grad=True)
    result = depthwise_upsample(x, weight, 2, 1)
    assert result.shape == (shape[0], channels, 8, 12)
    grads = torch.autograd.grad(result.sum(), (x, weight))
    assert [g.shape for g in grads] == [x.shape, weight.shape]
    values, taps = max_pool2d(x, 3, 2, 1)
    assert values.shape == taps.shape == (shape[0], channels, 2, 3)
    assert torch.autograd.grad(values.sum(), x)[0].shape == x.shape
    assert decode_peaks(x, 5).scores.tolist() == [[0.0] * 5] * shape[0]
    if channels == 0:
        vector = torch.zeros(0, requires_grad=True)
        result, mean, variance = batch_norm(x, vector, vector, x, relu=True)
        assert (result.shape, mean.shape, variance.shape) == (x.shape, (0,), (0,))
        assert torch.autograd.grad(result.sum(), x)[0].shape == x.shape


@pytest.mark.parametrize("shape", [(2, 3, 0, 6), (2, 3, 4, 0)])
def test_maps_without_sides_are_refused_or_hold_no_peak(shape):
    x = torch.zeros(shape)
    with pytest.raises(ValueError, match="sides expected"):
        depthwise_upsample(x, torch.zeros(3, 1, 8, 8), 2)
    with pytest.raises(ValueError, match="no window"):
        max_pool2d(x, 2, 2, 1)
    with pytest.raises(ValueError, match="more than one value"):
        batch_norm(x, torch.zeros(3), torch.zeros(3))
    assert decode_peaks(x, 5).scores.tolist() == [[0.0] * 5] * 2


def test_a_deformable_convolution_of_nothing_is_its_bias_or_refused():
    offset, weight, bias = torch.zeros(2, 18, 2, 2), torch.randn(4, 3, 3, 3), torch.randn(4)
    x = torch.zeros(2, 3, 0, 0, requires_grad=True)
    result = deform_conv2d(x, offset, weight, bias, padding=2)
    assert torch.equal(result.detach(), bias[:, None, None].expand(2, 4, 2, 2))
    assert torch.autograd.grad(result.sum(), x)[0].shape == x.shape
    none = deform_conv2d(torch.zeros(2, 3, 2, 2), offset, weight[:0], bias[:0], padding=1)
    assert none.shape == (2, 0, 2, 2)
    with pytest.raises(ValueError, match="must have channels"):
        deform_conv2d(torch.zeros(2, 0, 2, 2), offset, weight, padding=1)


@pytest.mark.parametrize("arguments", [{"sigma": 0.0}, {"sigma": NAN}, {"iou_threshold": NAN}, {"score_floor": NAN}])
def test_settings_of_suppression_are_numbers(arguments):
    boxes, scores = torch.zeros(2, 4), torch.zeros(2)
    with pytest.raises(ValueError, match="numbers expected"):
        soft_nms(boxes, scores, **arguments)
    with pytest.raises(ValueError, match="must be a number"):
        nms(boxes, scores, torch.zeros(2, dtype=torch.int64), NAN)
