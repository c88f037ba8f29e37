"""How fast are peaks decoded, against sigmoid, max-pooling and top-k by torch?

python benchmarks/decode.py [--device NAME] [--json FILE]
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from measure import DEVICE, arguments, check, finish, milliseconds
from torch import Tensor

from ctnet.ops import decode_peaks

SHAPES = ((1, 80, 128, 128), (8, 80, 128, 128), (1, 3, 64, 64))


def torch_formulation(logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Return scores and flat indices as detectors compute them in torch."""
    probability = logits.float().sigmoid()
    peaks = probability * (F.max_pool2d(probability, 3, 1, 1) == probability)
    return peaks.flatten(1).topk(top_k)


def heatmap(shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format) -> Tensor:
    """Return logits such as a detector gives: low noise, and a few hundred smooth hills."""
    torch.manual_seed(0)
    spikes = (torch.rand(shape) < 2e-4).float()
    hills = F.avg_pool2d(F.avg_pool2d(spikes, 7, 1, 3), 7, 1, 3) * 200
    return (torch.randn(shape) * 0.7 - 5 + hills).to(dtype).contiguous(memory_format=layout)


def main() -> None:
    """Print times and ratios."""
    values = arguments(__doc__, device=DEVICE)
    device = values.device
    print(device.plugin.register_kernels()["decode_peaks"])
    figures, ratios = {}, {}
    for shape in SHAPES:
        for dtype, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
            for layout, layout_name in ((torch.contiguous_format, "nchw"), (torch.channels_last, "nhwc")):
                logits = heatmap(shape, dtype, layout).to(device.torch_device)
                expected = torch_formulation(logits, 100)
                check("decode_peaks", decode_peaks(logits, 100).scores, expected[0], 1e-6)
                calls = {
                    "ctnet": lambda m=logits: decode_peaks(m, 100),
                    "torch": lambda m=logits: torch_formulation(m, 100),
                    "read": lambda m=logits: m.sum(),
                }
                times = milliseconds(calls, values.repeats, device=device)
                label = f"{'x'.join(map(str, shape))}/{name}/{layout_name}"
                figures[label] = times
                ratios[f"decode/{label}/torch"] = times["torch"] / times["ctnet"]
                print(label, "  ".join(f"{k} {v:.3f} ms" for k, v in times.items()))
    finish(values.json, figures, ratios, device)


if __name__ == "__main__":
    main()
