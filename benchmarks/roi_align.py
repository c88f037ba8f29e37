"""How fast is RoIAlign over a pyramid, and NMS of its proposals, against torch and onnxruntime?

python benchmarks/roi_align.py [--device NAME] [--boxes N] [--json FILE]
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from measure import DEVICE, arguments, check, finish, milliseconds
from peers import Call, onnxruntime_nms, onnxruntime_roi_align
from torch import Tensor

from ctnet.ops import batched_nms, roi_align, roi_align_reference
from ctnet.ops.nms import reference_nms

STRIDES = [8.0, 16.0, 32.0, 64.0, 128.0]
IMAGE_HW = (800, 1216)
SIZE = 7
PEERS = ("torch", "onnxruntime")


def boxes_of(count: int, generator: torch.Generator) -> Tensor:
    """Return boxes (N,4) with sides from 16 to 600 pixels, as many small as large ones, on the image."""
    middle = torch.rand(count, 2, generator=generator) * torch.tensor(IMAGE_HW[::-1])
    sides = 16 * (600 / 16) ** torch.rand(count, 2, generator=generator)
    return torch.cat([middle - sides / 2, middle + sides / 2], 1)


def levels_of(boxes: Tensor) -> Tensor:
    """Return the level (N,) of each box, as feature pyramids choose it (Lin et al., 2017, eq. 1)."""
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return (4 + torch.log2(area.sqrt() / 224 + 1e-8)).floor().clamp(3, 7).long() - 3


def pooling(dtype: torch.dtype, count: int, images: int, where: torch.device, threads: int) -> dict[str, Call]:
    """Return calls: forward and all gradients by our kernels and by torch, forward by onnxruntime in float32."""
    generator = torch.Generator().manual_seed(0)
    sizes = [[-(-side // int(stride)) for side in IMAGE_HW] for stride in STRIDES]
    levels = [torch.randn(images, 256, *hw, generator=generator) for hw in sizes]
    boxes = boxes_of(count * images, generator)
    index = (torch.arange(images).repeat_interleave(count), levels_of(boxes))
    there = [map.to(where, dtype).contiguous(memory_format=torch.channels_last) for map in levels]
    given = [boxes.to(where), *(t.to(where) for t in index)]
    settings = (STRIDES, SIZE, 0, True)
    pooled = roi_align(there, *given, STRIDES, SIZE)
    grad = torch.randn(pooled.shape, generator=generator).to(where, dtype)
    sides = [side for hw in sizes for side in hw]
    back = (grad, *given, images, sides, STRIDES, 0, True)
    calls: dict[str, Call] = {
        "ctnet": lambda: roi_align(there, *given, STRIDES, SIZE),
        "torch": lambda: roi_align_reference.forward(there, *given, *settings),
        "gradients": lambda: torch.ops.ctnet.roi_align_backward(*back),
        "gradients/torch": lambda: roi_align_reference.backward(*back),
    }
    bound = 1e-5 if dtype == torch.float32 else 1e-2
    check("roi_align", pooled, roi_align_reference.forward(there, *given, *settings), bound)
    for got, wanted in zip(calls["gradients"](), calls["gradients/torch"](), strict=True):
        if wanted.any():
            check("the gradient of roi_align", got, wanted, bound)
    if where.type == "cpu" and dtype == torch.float32:
        peer = onnxruntime_roi_align(levels, boxes, *index, STRIDES, SIZE, threads)
        if peer is not None:
            check("onnxruntime", torch.from_numpy(np.asarray(peer())), pooled, 1e-4)
            calls["onnxruntime"] = peer
    return calls


def suppression(where: torch.device, threads: int) -> dict[str, Call]:
    """Return calls for the proposals of two images, 5000 boxes in all, of which the best 256 are wanted."""
    generator = torch.Generator().manual_seed(0)
    boxes = boxes_of(5000, generator)
    scores = torch.rand(len(boxes), generator=generator)
    images = torch.arange(2).repeat_interleave(len(boxes) // 2)
    given = tuple(t.to(where) for t in (boxes, scores, images))
    kept = batched_nms(*given, 0.9, limit=256)
    if not torch.equal(kept, reference_nms(*given, 0.9, False, 256)):
        raise SystemExit("batched_nms is wrong")
    calls: dict[str, Call] = {
        "nms": lambda: batched_nms(*given, 0.9, limit=256),
        "nms of all": lambda: batched_nms(*given, 0.9),
        "nms/torch": lambda: reference_nms(*given, 0.9, False, 256),
    }
    peer = onnxruntime_nms(boxes, scores, 2, 0.9, 256, threads) if where.type == "cpu" else None
    if peer is not None:
        calls["nms/onnxruntime"] = peer
    return calls


def main() -> None:
    """Print times and ratios."""
    values = arguments(__doc__, device=DEVICE, boxes={"type": int, "default": 256, "help": "boxes of an image"})
    device = values.device
    print(device.plugin.register_kernels()["roi_align"])
    where, figures, ratios = device.torch_device, {}, {}
    timed = partial(milliseconds, repeats=max(3, values.repeats // 3), device=device)
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        times = timed(pooling(dtype, values.boxes, 1, where, values.threads))
        figures[name] = times
        ratios |= {f"roi_align/{name}/{peer}": times[peer] / times["ctnet"] for peer in PEERS if peer in times}
        ratios[f"roi_align_backward/{name}/torch"] = times["gradients/torch"] / times["gradients"]
        print(name, "  ".join(f"{k} {v:.2f} ms" for k, v in times.items()))
    figures["nms"] = times = timed(suppression(where, values.threads))
    print("5000 boxes:", "  ".join(f"{k} {v:.2f} ms" for k, v in times.items()))
    ratios |= {k.replace("nms/", "nms/5000/"): v / times["nms"] for k, v in times.items() if k.startswith("nms/")}
    finish(values.json, figures, ratios, device)


if __name__ == "__main__":
    main()
