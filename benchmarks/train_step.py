"""How long is a training step, against the same network in plain torch: `grid_sample`, torch's norms and pooling?

python benchmarks/train_step.py [--model centernet_resdcn18] [--cases 256x8 512x2] [--device NAME] [--json FILE]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import torch
from measure import DEVICE, arguments, check, finish, matmul_rate, milliseconds
from peers import grid_sample_deform_conv
from torch import Tensor, nn

from ctnet.bench.operations import operations
from ctnet.config import load_recipe
from ctnet.engine.host_memory import keep_freed_memory
from ctnet.families import build_network
from ctnet.nn import BatchNorm2d, DeformConv2d, MaxPool2d


def step(network: nn.Module, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Run forward and backward of a stand-in loss, and return the loss. The real losses cost next to nothing."""
    with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
        outputs = network(x)
    loss = sum(output.float().square().mean() for output in outputs[-1].values())
    network.zero_grad(set_to_none=True)
    loss.backward()
    return loss.detach()


def with_grid_sample(self: DeformConv2d, x: Tensor) -> Tensor:
    """Stand in for the layer's forward, with `grid_sample`."""
    side = self.offset_mask(x)
    weight, bias = self.weight.to(side.dtype), None if self.bias is None else self.bias.to(side.dtype)
    return grid_sample_deform_conv(x.to(side.dtype), side[:, :18], side[:, 18:].sigmoid(), weight, bias)


def with_ordinary(self: DeformConv2d, x: Tensor) -> Tensor:
    """Stand in for the layer's forward, with an ordinary convolution and no offsets at all: a limit."""
    return nn.functional.conv2d(x, self.weight, self.bias, padding=1)


def patched_step(forward: Callable[..., Tensor], network: nn.Module, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Run a step in which every deformable layer computes `forward`."""
    with patch.object(DeformConv2d, "forward", forward):
        return step(network, x, dtype)


def with_torchs_layers(forward: Callable[..., Tensor], network: nn.Module, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Run a step whose norms and pooling are those of torch, and whose deformable layers compute `forward`."""
    with patch.object(BatchNorm2d, "fuses", lambda *_: False), patch.object(MaxPool2d, "by_kernel", lambda *_: False):
        return patched_step(forward, network, x, dtype)


def main() -> None:
    """Print milliseconds per image of each way, then the ratios."""
    values = arguments(
        __doc__,
        device=DEVICE,
        model={"default": "centernet_resdcn18"},
        cases={"nargs": "+", "default": ["256x8", "512x2"], "help": "SIZExBATCH"},
    )
    device = values.device
    if device.torch_device.type == "cpu":
        keep_freed_memory()  # as training does; all ways to compute a step have it
    print(device.plugin.register_kernels()["deform_conv2d"])
    figures: dict[str, object] = {}
    ratios: dict[str, float] = {}
    short = values.model.removeprefix("centernet_")
    for case in values.cases:
        size, batch = map(int, case.split("x"))
        x = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last).to(device.torch_device)
        for dtype, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
            torch.manual_seed(0)
            network = build_network(load_recipe(values.model, []).recipe.model, 3)
            network = device.plugin.arrange(network, channels_last=True).to(device.torch_device).train()

            calls = {
                "ctnet": partial(step, network, x, dtype),
                "grid_sample": partial(with_torchs_layers, with_grid_sample, network, x, dtype),
                "torch_layers": partial(with_torchs_layers, DeformConv2d.forward, network, x, dtype),
                "conv2d": partial(patched_step, with_ordinary, network, x, dtype),
            }
            check("a step", calls["ctnet"](), calls["grid_sample"](), 0.05)
            repeats = max(3, 2 * values.repeats // 3)
            took = milliseconds(calls, repeats, repeats, device=device)
            times = {k: v / batch for k, v in took.items()}
            work = 3 * operations(network, x) / batch
            share = work / times["ctnet"] / 1e6 / matmul_rate(dtype, device)
            figures[f"{case}/{name}"] = {"milliseconds per image": times, "share of matmul rate": share}
            print(f"{case} {name}  " + "  ".join(f"{k} {v:.1f}" for k, v in times.items())
                  + f" ms per image; {1e3 / times['ctnet']:.1f} images/s, "
                  f"{100 * share:.0f} % of the matmul rate")  # fmt: skip
            for peer in ("grid_sample", "torch_layers", "conv2d"):
                ratios[f"train/{short}/{name}/{case}/{peer}"] = times[peer] / times["ctnet"]
    finish(values.json, figures, ratios, device)


if __name__ == "__main__":
    main()
