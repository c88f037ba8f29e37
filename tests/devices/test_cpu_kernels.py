"""Compiled kernels against the references, where the operator tests do not look: sizes, layouts, types, threads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ctnet.devices.cpu import boxes, deform_conv, native, peaks
from ctnet.errors import ConfigError
from ctnet.ops import deform_conv_reference as reference
from ctnet.ops.nms import reference_nms, reference_soft_nms

pytestmark = pytest.mark.skipif(
    native.select().isa is None, reason="no compiled kernels: install a C++17 compiler, then ctnet-toolkit again"
)

BOUNDS = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 1.5e-2}
# images, channels, map, filters, groups, deform groups, kernel, stride, padding, dilation
SHAPES = [
    (2, 64, (17, 23), 32, 1, 1, 3, 1, 1, 1),
    (3, 12, (9, 7), 6, 3, 2, 3, 2, 2, 2),
    (1, 6, (5, 5), 4, 2, 3, 1, 1, 0, 1),
    (2, 24, (8, 11), 10, 1, 24, 5, 1, 2, 1),
    (5, 33, (6, 4), 7, 1, 1, 3, 1, 1, 1),
    (1, 1, (1, 40), 1, 1, 1, 3, 1, 1, 1),
]
LARGER = [
    (1, 260, (9, 14), 70, 1, 1, 3, 1, 1, 1),  # weights that are multiplied in several pieces
    (2, 16, (50, 61), 40, 2, 1, 3, 1, 1, 1),  # cells of many tiles
    (2, 48, (40, 35), 50, 1, 1, 3, 1, 1, 1),  # and of several tiles on the way back, the last of another length
]
TILE = deform_conv._TILE_BYTES
TILED = [(shape, tile) for shape in SHAPES for tile in (1, TILE)] + [(shape, TILE // 8) for shape in LARGER]


@pytest.fixture(params=native.ISAS)
def isa(request):
    if native.library().ctnet_select_isa(request.param.encode()):
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    native.select()


def deform_arguments(shape, dtype, side_dtype, mask=True):
    images, channels, (height, width), filters, groups, deform_groups, k, stride, padding, dilation = shape
    torch.manual_seed(0)
    out = [(side + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for side in (height, width)]
    offset = (torch.randn(images, 2 * deform_groups * k * k, *out) * 3).to(side_dtype)
    offset[0, 0, 0, 0], offset.view(-1)[7] = torch.nan, torch.inf
    return (
        torch.randn(images, channels, height, width).to(dtype),
        offset,
        (torch.randn(filters, channels // groups, k, k) / (k * channels**0.5)).to(dtype),
        torch.randn(filters).to(dtype) if mask else None,
        torch.rand(images, deform_groups * k * k, *out).to(side_dtype) if mask else None,
        *([n, n] for n in (stride, padding, dilation)),
    )


def deviation(got, expected):
    return float((got.double() - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


@pytest.mark.parametrize(("shape", "tile_bytes"), TILED)
@pytest.mark.parametrize("dtype", BOUNDS)
def test_deform_conv_equals_the_reference_in_float64(isa, shape, dtype, tile_bytes, monkeypatch):
    monkeypatch.setattr(deform_conv, "_TILE_BYTES", tile_bytes)
    for side_dtype, mask in ((dtype, True), (torch.promote_types(dtype, torch.float32), False)):
        arguments = deform_arguments(shape, dtype, side_dtype, mask)
        exact = [a.double() if isinstance(a, torch.Tensor) else a for a in arguments]
        output, expected = deform_conv.forward(*arguments), reference.forward(*exact)
        assert output.dtype == dtype
        assert deviation(output, expected) < BOUNDS[dtype]
        grad = torch.randn(expected.shape).to(dtype)
        without_bias = lambda a: (*a[:3], *a[4:])  # noqa: E731
        grads = deform_conv.backward(grad, *without_bias(arguments))
        expected_grads = reference.backward(grad.double(), *without_bias(exact))
        for name, got, wanted in zip(("input", "offset", "weight", "mask"), grads, expected_grads, strict=True):
            assert got.shape == wanted.shape
            assert wanted.numel() == 0 or deviation(got, wanted) < BOUNDS[dtype], name


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_the_number_of_threads_changes_no_more_than_rounding(threads):
    arguments = deform_arguments(SHAPES[0], torch.float32, torch.float32)
    grad = torch.randn(2, 32, 17, 23)
    call = lambda: deform_conv.backward(grad, *arguments[:3], *arguments[4:])  # noqa: E731
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = call()
        torch.set_num_threads(threads)
        several, again = call(), call()
    finally:
        torch.set_num_threads(before)
    for one, many, repeated in zip(alone, several, again, strict=True):
        assert deviation(many, one.double()) < 1e-5
        assert torch.equal(many, repeated)


def most_bytes_held(call) -> int:
    """Return the largest sum of allocations less releases while `call` runs; its result counts."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = call()
    held = most = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    assert result is not None
    return most


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("images", "channels", "side"), [(1, 64, 128), (8, 64, 64), (4, 256, 16)])
def test_gradients_need_no_more_than_twice_the_columns_of_one_image(dtype, images, channels, side):
    """Or twice a tile, where an image's columns are less than that."""
    shape = (images, channels, (side, side), 64, 1, 1, 3, 1, 1, 1)
    x, *others = deform_arguments(shape, dtype, dtype)
    arguments = [x.contiguous(memory_format=torch.channels_last), *others]
    grad = torch.randn(images, 64, side, side).to(dtype, memory_format=torch.channels_last)
    call = lambda: deform_conv.backward(grad, *arguments[:3], *arguments[4:])  # noqa: E731
    most = most_bytes_held(call)
    columns = 9 * channels * side * side * dtype.itemsize
    results = sum(t.untyped_storage().nbytes() for t in call())
    assert most > results  # it does see allocations
    assert most - results <= 2 * max(columns, deform_conv._TILE_BYTES)


def test_layouts_give_equal_bits():
    x, offset, weight, bias, mask, *sampling = deform_arguments(SHAPES[0], torch.float32, torch.float32)
    expected = deform_conv.forward(x, offset, weight, bias, mask, *sampling)
    side = torch.cat([offset, mask], 1).contiguous(memory_format=torch.channels_last)
    split = side[:, : offset.shape[1]], side[:, offset.shape[1] :]
    stored = torch.channels_last
    for x_like, weight_like in (
        (x.contiguous(memory_format=stored), weight),
        (x, weight.contiguous(memory_format=stored)),
    ):
        got = deform_conv.forward(x_like, split[0], weight_like, bias, split[1], *sampling)
        assert torch.equal(got, expected)


def test_half_precision_falls_back_to_the_reference():
    arguments = deform_arguments(SHAPES[4], torch.float16, torch.float32)
    assert torch.equal(deform_conv.forward(*arguments), reference.forward(*arguments))


def test_suppression_equals_the_reference():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(300, 2, generator=generator) * 50
    all_boxes = torch.cat([corner, corner + torch.rand(300, 2, generator=generator) * 20], 1)
    scores = torch.randint(0, 40, (300,), generator=generator) / 40
    labels = torch.randint(0, 3, (300,), generator=generator)
    for threshold, plus_one in ((0.5, False), (0.1, True), (0.0, False), (1.0, False)):
        arguments = (all_boxes, scores, labels, threshold, plus_one)
        assert torch.equal(boxes.nms(*arguments), reference_nms(*arguments))
    for method, floor in (("gaussian", 0.001), ("linear", 0.2)):
        soft = (all_boxes, scores, method, 0.5, 0.3, floor, True)
        assert torch.allclose(boxes.soft_nms(*soft), reference_soft_nms(*soft), atol=1e-7)


def test_boxes_that_are_not_numbers_are_kept_out_of_each_other(isa):
    bad = torch.tensor([[0.0, 0, 10, 10], [torch.nan, 0, 10, 10], [0, 0, 10, 10]])
    arguments = (bad, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.int64), 0.5, False)
    assert torch.equal(boxes.nms(*arguments), reference_nms(*arguments))


def test_peaks_of_one_image_do_not_depend_on_threads():
    logits = torch.randint(-9, 9, (1, 4, 64, 33), generator=torch.Generator().manual_seed(2)).float()
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(peaks.decode_peaks(logits, 50))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_an_unknown_instruction_set_is_named(monkeypatch):
    monkeypatch.setenv(native.ISA_VARIABLE, "sse9")
    with pytest.raises(ConfigError, match="sse9"):
        native.select()


def test_a_binary_of_other_sources_is_not_used(monkeypatch):
    """As after an update of an editable installation that was not built again."""
    monkeypatch.setattr(native, "_SIGNATURES", {**native._SIGNATURES, "of_tomorrow": []})
    native.library.cache_clear()
    try:
        status = native.select()
    finally:
        monkeypatch.undo()
        native.library.cache_clear()
        native.select()
    assert status.isa is None
    assert "install ctnet-toolkit again" in status.reason


def test_work_runs_on_the_threads_that_torch_has():
    """One pool: after both have worked in parallel there are no more threads than torch alone made."""
    program = """
import os, torch
torch.set_num_threads(3)
torch.randn(600, 600) @ torch.randn(600, 600)
torch.randn(4_000_000).sin()
count = lambda: len(os.listdir("/proc/self/task"))
before = count()
from ctnet.devices import open_device
from ctnet.ops import decode_peaks
open_device("cpu")
before = max(before, count())
decode_peaks(torch.randn(3, 4, 64, 64), 10)
print(before, count())
"""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("no /proc on this system")
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    before, after = map(int, done.stdout.split())
    assert before == after
