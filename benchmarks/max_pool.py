"""How fast is max-pooling in training, forward and backward, against torch's?

python benchmarks/max_pool.py [--device NAME] [--json FILE]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from measure import DEVICE, arguments, check, copy_rate, finish, geometric_mean, milliseconds
from torch import Tensor

from ctnet.ops.max_pool import max_pool2d

# shape, kernel, stride, padding: of ResNets and of DLA-34
CASES = (
    ((2, 64, 256, 256), 3, 2, 1),
    ((8, 64, 128, 128), 3, 2, 1),
    ((2, 64, 128, 128), 2, 2, 0),
    ((8, 128, 32, 32), 2, 2, 0),
)


def forward_and_backward(pool: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient of the map."""
    return torch.autograd.grad(pool(x), x, grad)[0]


def main() -> None:
    """Print times and ratios."""
    values = arguments(__doc__, device=DEVICE)
    device = values.device
    print(device.plugin.register_kernels().get("max_pool2d", "reference"))
    gigabytes = copy_rate(device)
    figures, ratios = {}, {}
    for dtype, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
        own = []
        for shape, *window in CASES:
            x = torch.randn(shape).to(device.torch_device, dtype, memory_format=torch.channels_last).requires_grad_()
            pools = {
                "ctnet": lambda x, window=window: max_pool2d(x, *window)[0],
                "torch": lambda x, window=window: F.max_pool2d(x, *window),
            }
            output = pools["torch"](x)
            check("max_pool2d", pools["ctnet"](x).detach(), output.detach(), 0)
            grad = torch.randn_like(output)
            calls = {who: partial(forward_and_backward, pool, x, grad) for who, pool in pools.items()}
            times = milliseconds(calls, values.repeats, device=device)
            moved = 2 * (x.numel() + output.numel()) * x.element_size() / 1e6  # megabytes: each map once, both ways
            label = f"{name}/{'x'.join(map(str, shape))}/{window[0]}"
            figures[label] = {**times, "share of the copy rate": moved / times["ctnet"] / gigabytes}
            ratios[f"max_pool/{label}/torch"] = times["torch"] / times["ctnet"]
            own.append(ratios[f"max_pool/{label}/torch"])
            print(label, "  ".join(f"{k} {v:.3f} ms" for k, v in times.items()),
                  f"{100 * moved / times['ctnet'] / gigabytes:.0f} % of the copy rate")  # fmt: skip
        ratios[f"max_pool/{name}/torch"] = geometric_mean(own)
    finish(values.json, figures, ratios, device)


if __name__ == "__main__":
    main()
