"""How fast is the deformable convolution, forward and backward, against other ways to compute it?

    python benchmarks/deform_conv.py [--device NAME] [--images N] [--json FILE]

Needs onnxruntime, onnx and openvino beside ctnet for those peers; without them, and on a card, they are left out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from measure import DEVICE, arguments, check, copy_rate, finish, geometric_mean, matmul_rate, milliseconds
from peers import grid_sample_deform_conv, onnxruntime_deform_conv, openvino_deform_conv
from torch import Tensor

from ctnet.devices import OpenDevice
from ctnet.ops import deform_conv2d, deform_conv_reference

# channels, filters, side of the map: layers of DLA-34 and ResNet-DCN at 512 x 512
SHAPES = ((64, 64, 128), (128, 128, 64), (256, 128, 32), (512, 256, 16), (64, 64, 64))
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class Shape(NamedTuple):
    """A layer with a 3x3 kernel on square maps."""

    channels: int
    filters: int
    side: int
    images: int

    def milliseconds(self, dtype: torch.dtype, rate: float, copied: float, passes: int) -> float:
        """Return what the products, or reading and writing each tensor once, take at least; rates in 10^9 a second."""
        cells = self.images * self.side**2
        operations = 2 * 9 * self.channels * self.filters * cells * passes
        numbers = cells * (self.channels + self.filters + 27) + 9 * self.channels * self.filters
        return max(operations / rate, numbers * passes * dtype.itemsize / copied) / 1e6


def problem(shape: Shape, dtype: torch.dtype, where: torch.device) -> tuple[Tensor, ...]:
    """Return x, offset, mask, weight, bias as in a trained layer: offsets of about a cell, all from one side map."""
    torch.manual_seed(0)
    last = torch.channels_last
    channels, filters, side, images = shape
    x = torch.randn(images, channels, side, side).to(where, dtype, memory_format=last)
    both = torch.randn(images, 27, side, side).to(where, dtype, memory_format=last)
    weight = (torch.randn(filters, channels, 3, 3) / (3 * channels**0.5)).to(where, dtype, memory_format=last)
    return x, both[:, :18], both[:, 18:].sigmoid(), weight, torch.randn(filters).to(where, dtype)


def forward(device: OpenDevice, dtype: torch.dtype, shape: Shape, threads: int, repeats: int) -> dict[str, float]:
    """Return the time of each way to compute one layer."""
    on_host = device.torch_device.type == "cpu"
    x, offset, mask, weight, bias = problem(shape, dtype, device.torch_device)
    exact = [t.double() for t in (x, offset, mask, weight, bias)]
    plain = [[1, 1], [1, 1], [1, 1]]
    expected = deform_conv_reference.forward(exact[0], exact[1], exact[3], exact[4], exact[2], *plain)
    exactly, about = (1e-5, 1e-4) if on_host else (2e-3, 2e-3)  # cards may round float32 to ten bits
    bound = exactly if dtype == torch.float32 else 2e-2
    calls = {
        "ctnet": lambda: deform_conv2d(x, offset, weight, bias, padding=1, mask=mask),
        "conv2d": lambda: F.conv2d(x, weight, bias, padding=1),
        "reference": lambda: deform_conv_reference.forward(x, offset, weight, bias, mask, *plain),
        "grid_sample": lambda: grid_sample_deform_conv(x, offset, mask, weight, bias),
    }
    check("ctnet", calls["ctnet"](), expected, bound)
    if dtype == torch.float32:
        check("grid_sample", calls["grid_sample"](), expected, about)
    without_bias = expected - exact[4].view(1, -1, 1, 1)
    peers = {"openvino": openvino_deform_conv(x, offset, mask, weight, threads, "f32")} if on_host else {}
    if on_host and dtype == torch.float32:
        peers["onnxruntime"] = onnxruntime_deform_conv(x, offset, mask, weight, threads)
    for name, call in peers.items():
        if call is not None:
            check(name, torch.as_tensor(call()), without_bias, 1e-4)
            calls[name] = call
    with torch.inference_mode():
        return milliseconds(calls, repeats, device=device)


def backward(device: OpenDevice, dtype: torch.dtype, shape: Shape, repeats: int) -> dict[str, float]:
    """Return the time of each way to compute all gradients of one layer."""
    leaves = [t.detach().requires_grad_() for t in problem(shape, dtype, device.torch_device)]
    x, offset, mask, weight, bias = leaves
    ours = deform_conv2d(x, offset, weight, bias, padding=1, mask=mask)
    formulated = grid_sample_deform_conv(x, offset, mask, weight, bias)
    ordinary = F.conv2d(x, weight, bias, padding=1)
    grad = torch.randn(ours.shape).to(device.torch_device, dtype, memory_format=torch.channels_last)
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
            check(f"gradient of {name}", mine, theirs, 1e-3 if device.torch_device.type == "cpu" else 5e-3)
    return milliseconds(
        {
            "ctnet": lambda: torch.autograd.grad(ours, leaves, grad, retain_graph=True),
            "reference": lambda: deform_conv_reference.backward(grad, *plain, *pairs),
            "grid_sample": lambda: torch.autograd.grad(formulated, leaves, grad, retain_graph=True),
            "conv2d": lambda: torch.autograd.grad(ordinary, [x, weight, bias], grad, retain_graph=True),
        },
        max(3, repeats // 3),
        device=device,
    )


def main() -> None:
    """Print a table for each type and direction, then the ratios."""
    values = arguments(
        __doc__, device=DEVICE, images={"type": int, "help": "in a batch (default 1, on a card 32, which fills it)"}
    )
    device = values.device
    images = values.images or (1 if device.torch_device.type == "cpu" else 32)
    print(device.plugin.register_kernels()["deform_conv2d"])
    copied = copy_rate(device)
    figures: dict[str, object] = {"copy": copied, "images": images}
    ratios: dict[str, float] = {}
    for dtype, name in NAMES.items():
        figures[f"matmul/{name}"] = rate = matmul_rate(dtype, device)
        print(f"\n{name}: matmul {rate:.0f} GFLOP/s, copies {copied:.0f} GB/s, batch {images}; milliseconds")
        for direction in ("forward", "backward"):
            rows = {}
            for shape in (Shape(*sizes, images) for sizes in SHAPES):
                label = f"{shape[0]}->{shape[1]}@{shape[2]}"
                if direction == "forward":
                    times = forward(device, dtype, shape, values.threads, values.repeats)
                else:
                    times = backward(device, dtype, shape, values.repeats)
                rows[label] = times
                limit = shape.milliseconds(dtype, rate, copied, 1 if direction == "forward" else 2)
                cells = "  ".join(f"{peer} {time:.2f}" for peer, time in times.items())
                print(f"{direction:<9}{label:<13}{cells}  (limit {limit:.2f})")
            figures[f"{direction}/{name}"] = rows
            for peer in next(iter(rows.values())):
                if peer != "ctnet":
                    each = {label: times[peer] / times["ctnet"] for label, times in rows.items()}
                    ratios[f"{direction}/{name}/{peer}"] = geometric_mean(each.values())
                    ratios |= {f"{direction}/{name}/{peer}/{label}": ratio for label, ratio in each.items()}
    finish(values.json, figures, ratios, device)


if __name__ == "__main__":
    main()
