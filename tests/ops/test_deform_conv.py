"""deform_conv2d against the golden operator, and as a torch operator."""

import itertools
import math
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ctnet.ops import deform_conv2d

CASES = [
    "basic_3x3", "stride2", "pad0", "dil3_stride2", "dg2", "dg4_stride2", "groups2", "groups4_dg2", "no_mask",
    "no_mask_no_bias_dg2", "large_offsets", "zero_offsets", "odd_1x1_image", "odd_1xN_image",
    "kernel_1x1", "kernel_2x2",
]  # fmt: skip
INPUTS = ("x", "offset", "weight", "bias", "mask")


def run_case(arrays, settings):
    """Return (largest deviation of the output, of each gradient by name)."""
    inputs = {k: torch.tensor(arrays[k]).requires_grad_() for k in INPUTS if k in arrays}
    y = deform_conv2d(
        inputs["x"],
        inputs["offset"],
        inputs["weight"],
        inputs.get("bias"),
        mask=inputs.get("mask"),
        **settings,
    )
    (y * torch.tensor(arrays["grad_out"])).sum().backward()
    deviation = {"y": np.abs(y.detach().numpy() - arrays["y"]).max()}
    for name, tensor in inputs.items():
        deviation[name] = np.abs(tensor.grad.numpy() - arrays[f"d{name}"]).max()
    return deviation


def case_arrays(file, name):
    return {key.partition("/")[2]: file[key] for key in file.files if key.startswith(f"{name}/")}


@pytest.mark.parametrize("name", CASES)
def test_value_and_every_gradient_equal_the_golden_case(name, golden, golden_cases):
    settings = golden_cases["dcn_op"][name]
    deviation = run_case(case_arrays(golden("dcn_op"), name), settings)
    assert max(deviation.values()) < 1e-13, deviation


def test_all_golden_cases_are_listed(golden_cases):
    assert set(CASES) == set(golden_cases["dcn_op"]) - {"dla_like_64ch"}


def test_wide_case_of_the_full_set(shared, golden_cases):
    arrays = case_arrays(np.load(shared / "golden" / "dcn_op.npz"), "dla_like_64ch")
    assert max(run_case(arrays, golden_cases["dcn_op"]["dla_like_64ch"]).values()) < 1e-12


def tensors(dtype=torch.float64, images=2, mask=True, grad=True):
    torch.manual_seed(0)
    shapes = {"x": (images, 4, 5, 7), "offset": (images, 36, 5, 7), "weight": (6, 2, 3, 3), "bias": (6,)}
    if mask:
        shapes["mask"] = (images, 18, 5, 7)
    return {k: torch.randn(s, dtype=dtype).requires_grad_(grad) for k, s in shapes.items()}


def call(t, **kwargs):
    return deform_conv2d(t["x"], t["offset"], t["weight"], t["bias"], mask=t.get("mask"), **{"padding": 1, **kwargs})


@pytest.mark.parametrize("mask", [True, False])
def test_operator_contract_holds(mask):
    t = tensors(mask=mask)
    arguments = (t["x"], t["offset"], t["weight"], t["bias"], t.get("mask"), [1, 1], [1, 1], [1, 1])
    torch.library.opcheck(torch.ops.ctnet.deform_conv2d, arguments)
    with torch.no_grad():
        grad = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    plain = [a.detach() if isinstance(a, torch.Tensor) else a for a in arguments]
    torch.library.opcheck(torch.ops.ctnet.deform_conv2d_backward, (grad, *plain[:3], plain[4], *plain[5:]))


def test_gradients_agree_with_finite_differences():
    t = tensors(images=1)
    assert torch.autograd.gradcheck(lambda *a: call(dict(zip(t, a, strict=True))), tuple(t.values()))


def test_zero_offsets_and_full_mask_are_an_ordinary_convolution():
    t = tensors(torch.float32)
    t["offset"], t["mask"] = torch.zeros_like(t["offset"]), torch.ones_like(t["mask"])
    expected = F.conv2d(t["x"], t["weight"], t["bias"], padding=1, groups=2)
    assert torch.allclose(call(t), expected, atol=1e-5)


def naive(x, offset, weight, mask, stride, padding, dilation):
    """Equation 1 of DCNv2, one sample at a time; float64, no bias."""
    images, channels, height, width = x.shape
    filters, group_channels, kh, kw = weight.shape
    deform_groups, (rows, columns) = offset.shape[1] // (2 * kh * kw), offset.shape[2:]
    y = torch.zeros(images, filters, rows, columns, dtype=x.dtype)
    for n, row, column, c, tap in itertools.product(*map(range, (images, rows, columns, channels, kh * kw))):
        at = c // (channels // deform_groups) * kh * kw + tap
        py = row * stride - padding + tap // kw * dilation + float(offset[n, 2 * at, row, column])
        px = column * stride - padding + tap % kw * dilation + float(offset[n, 2 * at + 1, row, column])
        sample = 0.0
        for qy, qx in itertools.product((math.floor(py), math.floor(py) + 1), (math.floor(px), math.floor(px) + 1)):
            if 0 <= qy < height and 0 <= qx < width:
                sample += (1 - abs(py - qy)) * (1 - abs(px - qx)) * float(x[n, c, qy, qx])
        share = filters * group_channels // channels
        part = slice(c // group_channels * share, (c // group_channels + 1) * share)
        factor = weight[part, c % group_channels].flatten(1)[:, tap] * mask[n, at, row, column]
        y[n, part, row, column] += factor * sample
    return y


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 1, 1), (2, 2, 2)])
def test_it_is_the_equation_of_the_paper(stride, padding, dilation):
    t = tensors(images=1, grad=False)
    window = {"stride": stride, "padding": padding, "dilation": dilation}
    out = F.conv2d(t["x"], torch.zeros(1, 4, 3, 3, dtype=torch.float64), **window).shape[2:]
    t["offset"], t["mask"] = t["offset"][..., : out[0], : out[1]], t["mask"][..., : out[0], : out[1]]
    expected = naive(t["x"], t["offset"], t["weight"], t["mask"], **window) + t["bias"].view(1, -1, 1, 1)
    assert torch.allclose(call(t, **window), expected, atol=1e-12)


def test_layout_and_strides_of_the_input_do_not_matter():
    t = tensors(grad=False)
    expected = call(t)
    wide = torch.zeros(2, 8, 10, 14, dtype=torch.float64)
    wide[:, ::2, ::2, ::2] = t["x"]
    for x in (t["x"].to(memory_format=torch.channels_last), wide[:, ::2, ::2, ::2]):
        assert torch.equal(call({**t, "x": x}), expected)


def test_a_batch_in_several_chunks_equals_one_image_at_a_time(monkeypatch):
    t = tensors(images=5)
    whole = call(t)
    whole.sum().backward()
    from ctnet.devices.cpu import deform_conv as compiled
    from ctnet.ops import deform_conv_reference

    monkeypatch.setattr(deform_conv_reference, "_COLUMN_BYTES", 1)
    monkeypatch.setattr(compiled, "_TILE_BYTES", 1)
    chunked = {k: v.detach().requires_grad_() for k, v in t.items()}
    call(chunked).sum().backward()
    for name in t:
        assert torch.allclose(t[name].grad, chunked[name].grad, atol=1e-12), name


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1e30, 1e30])
def test_unusable_offsets_contribute_nothing(bad):
    t = tensors(grad=False)
    dropped = {**t, "offset": t["offset"].clone(), "mask": t["mask"].clone()}
    dropped["offset"][:, 0] = bad
    dropped["mask"].requires_grad_()
    muted = {**t, "mask": t["mask"].clone()}
    muted["mask"][:, 0] = 0
    result = call(dropped)
    result.sum().backward()
    assert torch.allclose(result, call(muted))
    assert torch.equal(dropped["mask"].grad[:, 0], torch.zeros(2, 5, 7, dtype=torch.float64))


def test_an_empty_batch_has_an_empty_result_and_zero_gradients():
    t = tensors(images=0)
    result = call(t)
    result.sum().backward()
    assert result.shape == (0, 6, 5, 7)
    assert t["weight"].grad.abs().sum() == 0


def test_autocast_multiplies_in_bf16_and_keeps_offsets_exact():
    t = tensors(torch.float32, grad=False)
    exact = call(t)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = call(t)
    assert reduced.dtype == torch.bfloat16
    assert (reduced.float() - exact).abs().max() < 0.03 * exact.abs().max()


def test_compiled_without_a_graph_break_it_gives_the_same():
    t = tensors(grad=False)
    compiled = torch.compile(lambda x: call({**t, "x": x}) * 2, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(t["x"]), call(t) * 2)


def test_exported_with_a_dynamic_batch_it_is_one_operator_that_computes_the_same():
    class Layer(torch.nn.Module):
        def forward(self, x, offset, mask, weight):
            return deform_conv2d(x, offset, weight, padding=1, mask=mask)

    t = tensors(torch.float32, images=3, grad=False)
    arguments = (t["x"], t["offset"], t["mask"], t["weight"])
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = ({0: batch}, {0: batch}, {0: batch}, None)
    program = torch.export.export(Layer(), arguments, dynamic_shapes=shapes)
    named = [str(node.target) for node in program.graph.nodes if "ctnet" in str(node.target)]
    assert named == ["ctnet.deform_conv2d.default"]
    two = tuple(a[:2] for a in arguments[:3])
    assert torch.equal(program.module()(*two, t["weight"]), Layer()(*two, t["weight"]))


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_by_inductor_training_gives_the_same_gradients_for_any_batch():
    t = tensors(torch.float32)
    program = torch.compile(lambda v: call(v).square().mean() * 2, fullgraph=True, dynamic=True)
    for images in (2, 1):
        part = {k: v.detach()[:images] if k in ("x", "offset", "mask") else v.detach() for k, v in t.items()}
        mine, theirs = ({k: v.clone().requires_grad_() for k, v in part.items()} for _ in range(2))
        program(mine).backward()
        (call(theirs).square().mean() * 2).backward()
        for name in t:
            assert torch.allclose(mine[name].grad, theirs[name].grad, atol=1e-5), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(4, 5, 7)}, "input must be N,C,H,W"),
        ({"offset": torch.zeros(2, 35, 5, 7)}, "multiple of 2 x 9"),
        ({"offset": torch.zeros(2, 36, 5, 6)}, "offset must be 2,2*G*T,5,7"),
        ({"mask": torch.zeros(2, 9, 5, 7)}, "mask must be (2, 18, 5, 7)"),
        ({"weight": torch.zeros(6, 3, 3, 3)}, "multiple of weight.shape[1]"),
        ({"weight": torch.zeros(5, 2, 3, 3)}, "divide into 2 groups"),
        ({"bias": torch.zeros(7)}, "bias must be (6,)"),
        ({"weight": torch.zeros(6, 2, 3, 3, dtype=torch.float64)}, "share a type"),
        ({"stride": 0}, "stride must be positive"),
        ({"dilation": 4}, "must fit"),
        ({"padding": -1}, "padding must not be negative"),
        ({"weight": torch.zeros(6, 2, 0, 3)}, "kernel must have a size"),
        ({"weight": torch.zeros(6, 2, 3, 3, device="meta")}, "on one device, got cpu, meta"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_shapes_that_disagree_are_named(change, message):
    t = tensors(torch.float32, grad=False)
    sampling = {k: change[k] for k in change if k in ("stride", "dilation", "padding")}
    t |= {k: v for k, v in change.items() if k not in sampling}
    with pytest.raises(
        ValueError,
        match=message.replace("(", r"\(").replace(")", r"\)").replace("[", r"\[").replace("*", r"\*"),
    ):
        call(t, **sampling)
