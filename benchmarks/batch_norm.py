"""How fast are batch norm, shortcut and ReLU in training, forward and backward, against torch's three operators?

python benchmarks/batch_norm.py [--device NAME] [--json FILE]
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from measure import DEVICE, arguments, check, copy_rate, finish, geometric_mean, milliseconds
from torch import Tensor

from ctnet.ops.batch_norm import batch_norm

SHAPES = ((2, 64, 256, 256), (2, 64, 128, 128), (2, 256, 32, 32), (8, 64, 128, 128), (8, 512, 8, 8))
_READS_AND_WRITES = {False: 8, True: 12}  # of a map, by shortcut: forward 3 or 4, backward 5 or 8


def by_torch(x: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None) -> Tensor:
    """Return the result as networks compute it in torch."""
    y = F.batch_norm(x, None, None, weight, bias, training=True)
    return F.relu(y if shortcut is None else y + shortcut, inplace=True)


def by_ctnet(x: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None) -> Tensor:
    """Return the same by one operator."""
    return batch_norm(x, weight, bias, shortcut, relu=True)[0]


def forward_and_backward(function, leaves: list[Tensor | None], grad: Tensor) -> tuple[Tensor, ...]:  # type: ignore[no-untyped-def]
    """Return the gradients of all tensors."""
    wanted = [leaf for leaf in leaves if leaf is not None]
    return torch.autograd.grad(function(*leaves), wanted, grad)


def main() -> None:
    """Print times and ratios."""
    values = arguments(__doc__, device=DEVICE)
    device = values.device
    print(device.plugin.register_kernels().get("batch_norm", "reference"))
    gigabytes = copy_rate(device)
    figures, ratios = {}, {}
    for dtype, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
        for adds, kind in ((False, "relu"), (True, "shortcut+relu")):
            own = []
            for shape in SHAPES:
                maps = [
                    torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last).to(device.torch_device)
                    for _ in range(3)
                ]
                vectors = [torch.rand(shape[1]).add(0.5).to(device.torch_device) for _ in range(2)]
                leaves = [t.requires_grad_() for t in (maps[0], *vectors, *maps[1 : 1 + adds])]
                leaves += [None] * (not adds)
                check("batch_norm", by_ctnet(*leaves).detach(), by_torch(*leaves).detach(), 0.02)
                calls = {
                    "ctnet": partial(forward_and_backward, by_ctnet, leaves, maps[2]),
                    "torch": partial(forward_and_backward, by_torch, leaves, maps[2]),
                }
                times = milliseconds(calls, values.repeats, device=device)
                moved = _READS_AND_WRITES[adds] * maps[0].numel() * maps[0].element_size() / 1e6  # megabytes
                label = f"{name}/{kind}/{'x'.join(map(str, shape))}"
                figures[label] = {**times, "share of the copy rate": moved / times["ctnet"] / gigabytes}
                ratios[f"batch_norm/{label}/torch"] = times["torch"] / times["ctnet"]
                own.append(ratios[f"batch_norm/{label}/torch"])
                print(label, "  ".join(f"{k} {v:.3f} ms" for k, v in times.items()),
                      f"{100 * moved / times['ctnet'] / gigabytes:.0f} % of the copy rate")  # fmt: skip
            ratios[f"batch_norm/{name}/{kind}/torch"] = geometric_mean(own)
    finish(values.json, figures, ratios, device)


if __name__ == "__main__":
    main()
