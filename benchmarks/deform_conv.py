"""How fast is the deformable convolution, forward and backward, against other ways to compute it?

    python benchmarks/deform_conv.py [--json FILE]

Needs onnxruntime, onnx and openvino beside ctnet for those peers; without them they are left out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from measure import arguments, check, finish, geometric_mean, matmul_rate, milliseconds
from peers import grid_sample_deform_conv, onnxruntime_deform_conv, openvino_deform_conv
from torch import Tensor

from ctnet.devices import open_device
from ctnet.ops import deform_conv, deform_conv2d

# channels, filters, side of the map: layers of DLA-34 and ResNet-DCN at 512 x 512
SHAPES = ((64, 64, 128), (128, 128, 64), (256, 128, 32), (512, 256, 16), (64, 64, 64))
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def problem(channels: int, filters: int, side: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Return x, offset, mask, weight, bias as in a trained layer: offsets of about a cell, all from one side map."""
    torch.manual_seed(0)
    last = torch.channels_last
    x = torch.randn(1, channels, side, side).to(dtype, memory_format=last)
    both = torch.randn(1, 27, side, side).to(dtype, memory_format=last)
    weight = (torch.randn(filters, channels, 3, 3) / (3 * channels**0.5)).to(dtype, memory_format=last)
    return x, both[:, :18], both[:, 18:].sigmoid(), weight, torch.randn(filters).to(dtype)


def forward(dtype: torch.dtype, shape: tuple[int, int, int], threads: int, repeats: int) -> dict[str, float]:
    """Return the time of each way to compute one layer."""
    x, offset, mask, weight, bias = problem(*shape, dtype)
    exact = [t.double() for t in (x, offset, mask, weight, bias)]
    plain = [[1, 1], [1, 1], [1, 1]]
    expected = deform_conv.forward(exact[0], exact[1], exact[3], exact[4], exact[2], *plain)
    bound = 1e-5 if dtype == torch.float32 else 2e-2
    calls = {
        "ctnet": lambda: deform_conv2d(x, offset, weight, bias, padding=1, mask=mask),
        "conv2d": lambda: F.conv2d(x, weight, bias, padding=1),
        "reference": lambda: deform_conv.forward(x, offset, weight, bias, mask, *plain),
        "grid_sample": lambda: grid_sample_deform_conv(x, offset, mask, weight, bias),
    }
    check("ctnet", calls["ctnet"](), expected, bound)
    if dtype == torch.float32:
        check("grid_sample", calls["grid_sample"](), expected, 1e-4)
    without_bias = expected - exact[4].view(1, -1, 1, 1)
    peers = {"openvino": openvino_deform_conv(x, offset, mask, weight, threads, "f32")}
    if dtype == torch.float32:
        peers["onnxruntime"] = onnxruntime_deform_conv(x, offset, mask, weight, threads)
    for name, call in peers.items():
        if call is not None:
            check(name, torch.as_tensor(call()), without_bias, 1e-4)
            calls[name] = call
    with torch.inference_mode():
        return milliseconds(calls, repeats)


def backward(dtype: torch.dtype, shape: tuple[int, int, int], repeats: int) -> dict[str, float]:
    """Return the time of each way to compute all gradients of one layer."""
    leaves = [t.detach().requires_grad_() for t in problem(*shape, dtype)]
    x, offset, mask, weight, bias = leaves
    ours = deform_conv2d(x, offset, weight, bias, padding=1, mask=mask)
    formulated = grid_sample_deform_conv(x, offset, mask, weight, bias)
    ordinary = F.conv2d(x, weight, bias, padding=1)
    grad = torch.randn(ours.shape).to(dtype, memory_format=torch.channels_last)
    plain = [t.detach() for t in (x, offset, weight, mask)]
    pairs = [[1, 1], [1, 1], [1, 1]]
    got = torch.autograd.grad(ours, leaves, grad, retain_graph=True)
    if dtype == torch.float32:
        for name, mine, theirs in zip(
            ("input", "offset", "mask", "weight", "bias"),
            got,
            torch.autograd.grad(formulated, leaves, grad, retain_graph=True),
            strict=True,
        ):
            check(f"gradient of {name}", mine, theirs, 1e-3)
    return milliseconds(
        {
            "ctnet": lambda: torch.autograd.grad(ours, leaves, grad, retain_graph=True),
            "reference": lambda: deform_conv.backward(grad, *plain, *pairs),
            "grid_sample": lambda: torch.autograd.grad(formulated, leaves, grad, retain_graph=True),
            "conv2d": lambda: torch.autograd.grad(ordinary, [x, weight, bias], grad, retain_graph=True),
        },
        max(3, repeats // 3),
    )


def main() -> None:
    """Print a table for each type and direction, then the ratios."""
    values = arguments(__doc__)
    print(open_device("cpu").plugin.register_kernels()["deform_conv2d"])
    figures: dict[str, object] = {}
    ratios: dict[str, float] = {}
    for dtype, name in NAMES.items():
        figures[f"matmul/{name}"] = rate = matmul_rate(dtype)
        print(f"\n{name}: matmul {rate:.0f} GFLOP/s; milliseconds")
        for direction in ("forward", "backward"):
            rows = {}
            for shape in SHAPES:
                label = f"{shape[0]}->{shape[1]}@{shape[2]}"
                if direction == "forward":
                    times = forward(dtype, shape, values.threads, values.repeats)
                else:
                    times = backward(dtype, shape, values.repeats)
                rows[label] = times
                operations = 2 * 9 * shape[0] * shape[1] * shape[2] ** 2 * (1 if direction == "forward" else 2)
                limit = operations / rate / 1e6
                cells = "  ".join(f"{peer} {time:.2f}" for peer, time in times.items())
                print(f"{direction:<9}{label:<13}{cells}  (the products alone {limit:.2f})")
            figures[f"{direction}/{name}"] = rows
            for peer in next(iter(rows.values())):
                if peer != "ctnet":
                    each = {label: times[peer] / times["ctnet"] for label, times in rows.items()}
                    ratios[f"{direction}/{name}/{peer}"] = geometric_mean(each.values())
                    ratios |= {f"{direction}/{name}/{peer}/{label}": ratio for label, ratio in each.items()}
    finish(values.json, figures, ratios)


if __name__ == "__main__":
    main()
