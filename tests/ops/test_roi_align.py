"""RoIAlign against loops written out by hand, the original's numbers and finite differences."""

import functools
import itertools
import math
import time

import numpy as np
import pytest
import torch

from ctnet.devices.conformance.result import deviation
from ctnet.ops import roi_align

NAN, INF = torch.nan, torch.inf
BOUNDS = {torch.float64: 1e-10, torch.float32: 2e-6, torch.bfloat16: 1e-2}
DTYPES = pytest.mark.parametrize("dtype", BOUNDS)
STRIDES = (4, 8, 12)


def corners(place, cells):
    """Return (cell, weight) of the two corners along an axis, none for a sample off the map."""
    if not -1 <= place <= cells:
        return ()
    low = min(int(max(place, 0)), cells - 1)
    part = max(place, 0) - low if low < cells - 1 else 0
    return ((low, 1 - part), (min(low + 1, cells - 1), part))


def by_hand(levels, rois, images, level, grad, *, ratio=0, aligned=True):
    """Return bins and the levels' gradients, corner by corner."""
    size = grad.shape[-1]
    out, grads = torch.zeros_like(grad), [torch.zeros_like(map) for map in levels]
    for n, box in enumerate(rois.tolist()):
        map, grad_map = levels[level[n]][images[n]], grads[level[n]][images[n]]
        edges = [edge / STRIDES[level[n]] - (0.5 if aligned else 0) for edge in box]
        sides = [(edges[3] - edges[1]) / size, (edges[2] - edges[0]) / size]
        if not aligned:
            sides = [max(side, 1 / size) for side in sides]
        count = [ratio or max(0, math.ceil(side)) for side in sides]
        for bins in itertools.product(range(size), range(size)):
            for sample in itertools.product(*(range(n) for n in count)):
                place = [
                    edges[1 - axis] + (bins[axis] + (sample[axis] + 0.5) / count[axis]) * sides[axis] for axis in (0, 1)
                ]
                along = [corners(place[axis], map.shape[1 + axis]) for axis in (0, 1)]
                for (y, wy), (x, wx) in itertools.product(*along):
                    weight = wy * wx / (count[0] * count[1])
                    out[n, :, bins[0], bins[1]] += weight * map[:, y, x]
                    grad_map[:, y, x] += weight * grad[n, :, bins[0], bins[1]]
    return out, *grads


@functools.cache
def problem(channels=5, size=3, dtype=torch.float64, boxes=14):
    """Return levels, boxes (some partly or wholly off the image), their images and levels, and a gradient."""
    generator = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)  # noqa: E731
    levels = [normal(2, channels, *hw) for hw in ((9, 11), (5, 6), (1, 4))]
    corner = torch.rand(boxes, 2, generator=generator) * 60 - 12
    rois = torch.cat([corner, corner + torch.rand(boxes, 2, generator=generator) ** 2 * 50], 1)
    indices = [torch.randint(0, end, (boxes,), generator=generator) for end in (2, 3)]
    return levels, rois, *indices, normal(boxes, channels, size, size)


def gradients(levels, rois, images, level, grad, **settings):
    """Return our bins and the levels' gradients."""
    leaves = [map.detach().clone().requires_grad_() for map in levels]
    result = roi_align(leaves, rois, images, level, STRIDES, grad.shape[-1], **settings)
    return result.detach(), *torch.autograd.grad(result, leaves, grad)


def assert_as_by_hand(given, bound, ratio=0, aligned=True):
    ours = gradients(*given, sampling_ratio=ratio, aligned=aligned)
    levels, rois, images, level, grad = given
    exact = by_hand([map.double() for map in levels], rois.double(), images, level, grad.double(),
                    ratio=ratio, aligned=aligned)  # fmt: skip
    for what, got, wanted in zip(("bins", "level 0", "level 1", "level 2"), ours, exact, strict=True):
        assert got.dtype == levels[0].dtype
        deviation(got, wanted, what, bound)
    return ours


@DTYPES
@pytest.mark.parametrize(("ratio", "aligned"), [(0, True), (0, False), (2, True), (3, False)])
def test_values_and_gradients_are_those_of_the_loops(ratio, aligned, dtype):
    assert_as_by_hand(problem(dtype=dtype), BOUNDS[dtype], ratio, aligned)


@DTYPES
@pytest.mark.parametrize(("channels", "size"), [(1, 1), (70, 2), (130, 5)])
def test_any_number_of_channels_and_bins(channels, size, dtype):
    assert_as_by_hand(problem(channels, size, dtype, boxes=6), BOUNDS[dtype])


@pytest.mark.parametrize("name", ["r7_aligned", "r14_aligned", "r7_legacy", "r14_legacy", "r7_aligned_ratio2"])
def test_one_level_equals_the_original(name, shared):
    file = np.load(shared / "golden" / "centernet2" / "roi_align.npz")
    features, rois = torch.tensor(file["features"]).requires_grad_(), torch.tensor(file["rois"])
    images, size = rois[:, 0].long(), 14 if "14" in name else 7
    result = roi_align([features], rois[:, 1:], images, torch.zeros_like(images), [8], size,
                       2 if "ratio2" in name else 0, aligned="aligned" in name)  # fmt: skip
    deviation(result, torch.tensor(file[f"{name}/out"]).double(), "bins", 1e-6)
    if "ratio2" not in name:
        result.backward(torch.tensor(file[f"{name}/grad_out"]))
        deviation(features.grad, torch.tensor(file[f"{name}/grad_features"]).double(), "gradient", 1e-6)


def test_a_pyramid_equals_the_original(shared):
    file = np.load(shared / "golden" / "centernet2" / "levels_pooler.npz")
    read = lambda name: torch.tensor(file[name])  # noqa: E731
    levels = [read(f"pool_feat_l{i}").requires_grad_() for i in range(5)]
    boxes = [read(f"pool_boxes_{i}") for i in range(2)]
    images = torch.repeat_interleave(torch.tensor([len(some) for some in boxes]))
    result = roi_align(levels, torch.cat(boxes), images, read("pool_levels").long(), [8, 16, 32, 64, 128], 7)
    deviation(result, read("pool_out").double(), "bins", 1e-6)
    result.backward(read("pool_grad_out"))
    for i, map in enumerate(levels):
        deviation(map.grad, read(f"pool_grad_l{i}").double(), f"gradient of level {i}", 1e-6)


def test_layouts_and_parts_of_larger_tensors_give_the_same():
    levels, rois, images, level, grad = problem(channels=6, dtype=torch.float32)
    wanted = gradients(levels, rois, images, level, grad)
    assert wanted[0].is_contiguous()
    assert wanted[1].is_contiguous(memory_format=torch.channels_last)
    wide = [torch.zeros(2, 12, *(2 * side for side in map.shape[2:])) for map in levels]
    for whole, map in zip(wide, levels, strict=True):
        whole[:, ::2, ::2, ::2] = map
    parts = [whole[:, ::2, ::2, ::2] for whole in wide]
    table = torch.cat([rois, torch.stack([images, level], 1)], 1)
    last = grad.contiguous(memory_format=torch.channels_last)
    got = gradients(parts, table[:, :4], table[:, 4].long(), table.long()[:, 5], last)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    one = torch.ones(()).expand_as(grad)  # the gradient of a sum has no strides
    exact = gradients(levels, rois, images, level, torch.ones_like(grad))
    assert all(torch.equal(a, b) for a, b in zip(gradients(levels, rois, images, level, one), exact, strict=True))


@pytest.mark.parametrize("ratio", [0, 2])
def test_boxes_that_are_none_give_zeros_and_no_gradient(ratio):
    levels, rois, images, level, grad = (list(t) if isinstance(t, list) else t.clone() for t in problem())
    none = [1, 2, 3, 4, 5, 6, 7]
    rois[1, 2], rois[2, 1], rois[3, 0], rois[4, 3] = NAN, INF, -INF, 1e30
    level[5], level[6], images[7] = -1, 3, 2
    images[5] = -9
    if ratio == 0:
        rois[8, 2:], rois[9, 3] = rois[8, :2], rois[9, 1] - 5
        none += [8, 9]
    ours = gradients(levels, rois, images, level, grad, sampling_ratio=ratio)
    assert (ours[0][none] == 0).all()
    rest = [i for i in range(len(rois)) if i not in none]
    wanted = gradients(levels, rois[rest], images[rest], level[rest], grad[rest], sampling_ratio=ratio)
    assert torch.equal(ours[0][rest], wanted[0])
    for got, expected in zip(ours[1:], wanted[1:], strict=True):
        deviation(got, expected, "gradient", 1e-12)


def test_boxes_much_larger_than_the_map_are_sampled_where_it_is():
    levels, rois, images, level, grad = problem(boxes=3, channels=2)
    rois = torch.tensor([[-900.0, -700, 800, 1000], [-60, -4000, 70, 3000], [-1e6, 3, 1e6, 20]])
    level = torch.tensor([0, 1, 0])
    short = slice(0, 2)
    assert_as_by_hand((levels, rois[short], images[short], level[short], grad[short]), 1e-9)
    start = time.perf_counter()
    result = roi_align([map.float() for map in levels], rois, images, level, STRIDES, 3)
    assert time.perf_counter() - start < 1  # 333,334 samples along a bin, a dozen on the map
    assert result.isfinite().all()


@DTYPES
@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize("where", ["map", "gradient"])
def test_numbers_that_are_not_finite_reach_what_they_are_used_for(where, bad, dtype):
    levels, rois, images, level, grad = problem(dtype=dtype)
    levels, grad, rois = [map.clone() for map in levels], grad.clone(), rois.clone()
    rois[3] = torch.tensor([6.0, 6, 30, 30])  # samples at whole cells, with corners of weight zero
    images[3] = level[3] = 0
    if where == "map":
        levels[0][0, 1, 4, 4] = levels[1][1, 0, 2, 3] = bad
    else:
        grad[3, 2, 1, 1] = grad[5, 0, 0, 2] = bad
    ours = assert_as_by_hand((levels, rois, images, level, grad), BOUNDS[dtype])
    assert not torch.cat([t.flatten() for t in ours]).isfinite().all()


@pytest.mark.parametrize(("images", "channels", "boxes"), [(2, 3, 0), (0, 3, 2), (2, 0, 2), (0, 0, 0)])
def test_nothing_in_nothing_out(images, channels, boxes):
    levels = [torch.zeros(images, channels, 4, 5), torch.zeros(images, channels, 2, 3)]
    index = torch.zeros(boxes, dtype=torch.int64)
    grad = torch.ones(boxes, channels, 2, 2)
    leaves = [map.requires_grad_() for map in levels]
    result = roi_align(leaves, torch.rand(boxes, 4) * 9, index, index, (4, 8), 2)
    grads = torch.autograd.grad(result, leaves, grad)
    assert result.shape == grad.shape
    assert (result == 0).all()
    assert [g.shape for g in grads] == [map.shape for map in levels]


def test_gradients_do_not_depend_on_threads():
    levels, rois, images, level, grad = problem(channels=70, dtype=torch.float32)
    threads, found = torch.get_num_threads(), []
    for count in (1, 3):
        torch.set_num_threads(count)
        found.append(gradients(levels, rois, images, level, grad))
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_operator_contract_holds():
    levels, rois, images, level, grad = problem(channels=2)
    leaves = [map.clone().requires_grad_() for map in levels]
    strides = [float(s) for s in STRIDES]
    rois = rois.double()
    torch.library.opcheck(torch.ops.ctnet.roi_align, (leaves, rois, images, level, strides, 3, 0, True))
    sides = [side for map in levels for side in map.shape[2:]]
    torch.library.opcheck(torch.ops.ctnet.roi_align_backward, (grad, rois, images, level, 2, sides, strides, 0, True))


def test_gradients_agree_with_finite_differences():
    levels, rois, images, level, _ = problem(channels=2, boxes=5)
    leaves = [map.clone().requires_grad_() for map in levels]
    assert torch.autograd.gradcheck(lambda *maps: roi_align(maps, rois, images, level, STRIDES, 2), leaves)


def test_half_precision_boxes_and_levels_keep_the_type_of_the_levels():
    levels, rois, images, level, _ = problem(dtype=torch.float32)
    levels, rois = [map.half() for map in levels], rois.round()
    half = roi_align(levels, rois.bfloat16(), images, level, STRIDES, 3)
    assert half.dtype == torch.float16
    wide = roi_align([map.float() for map in levels], rois, images, level, STRIDES, 3)
    deviation(half, wide.double(), "bins", 1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": []}, "at least one level"),
        ({"levels": [torch.zeros(3, 4, 5)]}, r"\(B,C,H,W\)"),
        ({"levels": [torch.zeros(1, 3, 4, 5), torch.zeros(1, 2, 4, 5)]}, "same images and channels"),
        ({"levels": [torch.zeros(1, 3, 0, 5)]}, "have sides"),
        ({"levels": [torch.zeros(1, 3, 4, 5).long()]}, "floating type"),
        ({"levels": [torch.zeros(1, 3, 4, 5), torch.zeros(1, 3, 4, 5).double()]}, "one type"),
        ({"rois": torch.zeros(2, 5)}, r"boxes \(R,4\)"),
        ({"rois": torch.zeros(2, 4).long()}, "floating type"),
        ({"batch_index": torch.zeros(3).long()}, r"batch_index \(2,\)"),
        ({"level": torch.zeros(2)}, "level of int64"),
        ({"level": torch.zeros(2, dtype=torch.int64, device="meta")}, "one device expected, got cpu, meta"),
        ({"strides": [4, 8]}, "1 strides above 0"),
        ({"strides": [0]}, "1 strides above 0"),
        ({"output_size": 0}, "output_size from 1"),
        ({"sampling_ratio": -1}, "sampling_ratio from 0"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    index = torch.zeros(2, dtype=torch.int64)
    good = {"levels": [torch.zeros(1, 3, 4, 5)], "rois": torch.zeros(2, 4), "batch_index": index, "level": index,
            "strides": [4], "output_size": 2}  # fmt: skip
    with pytest.raises(ValueError, match=message):
        roi_align(**{**good, **change})
