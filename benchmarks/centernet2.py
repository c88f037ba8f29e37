"""How fast does CenterNet2 detect, against its plain formulation: eager layers in float32, one after the other?

python benchmarks/centernet2.py [--device NAME] [--size HEIGHT WIDTH] [--json FILE]
"""

from __future__ import annotations

from functools import partial

import torch
from measure import DEVICE, arguments, finish, milliseconds
from torch import Tensor, nn

from ctnet.codec.boxes import pairwise_iou
from ctnet.config import load_recipe
from ctnet.detect.detector import prepare_detector
from ctnet.families import Family, family_of
from ctnet.families.found import Found

CLASSES = 80


def lively_network(family: Family) -> nn.Module:
    """Return a network of random weights that sees objects everywhere, of every class and size."""
    torch.manual_seed(0)
    network = family.build(CLASSES).eval()
    with torch.no_grad():
        network.head.heatmap.weight.mul_(300)
        network.head.heatmap.bias.fill_(-2)
        for stage in network.roi:
            stage.classes.weight.mul_(60)
    return network


def check(name: str, found: Found, expected: Found) -> None:
    """Stop unless the same is detected; in bf16, where random weights leave thousands alike, as strong detections."""
    if not (expected.scores > 0).all():
        raise SystemExit("the network detects too little to compare detections")
    if name == "bf16":
        if not torch.allclose(found.scores, expected.scores, atol=0.05):
            raise SystemExit("bf16 is wrong: its detections are not as strong as those of float32")
        return
    overlap = pairwise_iou(expected.boxes.float(), found.boxes.float())[0]
    same = (overlap > 0.9) & (expected.labels[0][:, None] == found.labels[0])
    if same.any(1).float().mean() < 0.95:
        raise SystemExit(f"{name} is wrong: it has other detections than the eager network")


def main() -> None:
    """Print times and ratios."""
    values = arguments(
        __doc__,
        device=DEVICE,
        model={"default": "centernet2_r50"},
        size={"nargs": 2, "type": int, "default": [800, 1216], "metavar": ("HEIGHT", "WIDTH")},
    )
    device, where = values.device, values.device.torch_device
    recipe = load_recipe(values.model, []).recipe
    family = family_of(recipe)
    network = lively_network(family)
    categories: list[object] = []
    x = torch.randn(1, 3, *values.size) * 60
    networks = {
        name: prepare_detector(network, family, categories, device, name).model  # type: ignore[arg-type]
        for name in ("fp32", "bf16")
    }
    networks["eager"] = network.to(where)

    def detect(name: str, images: Tensor) -> Found:
        return family.detect(networks[name], images, recipe.evaluation)  # type: ignore[return-value]

    last = x.contiguous(memory_format=torch.channels_last)
    calls = {name: partial(detect, name, (x if name == "eager" else last).to(where)) for name in networks}
    with torch.inference_mode():
        expected = calls["eager"]()
        for name in ("fp32", "bf16"):
            check(name, calls[name](), expected)
        times = milliseconds(calls, max(1, values.repeats // 5), device=device)
    print("  ".join(f"{name} {time:.0f} ms" for name, time in times.items()))
    ratios = {f"{values.model}/{name}/eager": times["eager"] / times[name] for name in ("fp32", "bf16")}
    finish(values.json, {"milliseconds": times, "size": values.size}, ratios, device)


if __name__ == "__main__":
    main()
