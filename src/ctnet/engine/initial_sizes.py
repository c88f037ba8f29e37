"""What a new network knows of the data before its first step."""

from __future__ import annotations

import torch
from torch import nn

from ctnet.data.sample import TrainingSamples
from ctnet.models.heads import Heads


def start_sizes(network: nn.Module, samples: TrainingSamples) -> list[str]:
    """Let the size heads begin at the median of the data; return that in words, or nothing without objects."""
    sizes, labels = (torch.from_numpy(array) for array in samples.object_sizes())
    if not len(sizes):
        return []
    for module in network.modules():
        if isinstance(module, Heads):
            module.start_sizes(sizes, labels)
    width, height = sizes.median(0).values.tolist()
    return [f"fresh sizes are {width:.1f} x {height:.1f} cells, the median of the objects"]
