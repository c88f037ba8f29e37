"""The initial bias of the size heads, from the training data."""

from __future__ import annotations

import torch
from torch import nn

from ctnet.data.sample import TrainingSamples
from ctnet.models.heads import Heads


def initialise_sizes(network: nn.Module, samples: TrainingSamples) -> list[str]:
    """Set the bias of the size heads to the median box of the data; return a sentence, or nothing without objects."""
    sizes, labels = (torch.from_numpy(array) for array in samples.object_sizes())
    if not len(sizes):
        return []
    for module in network.modules():
        if isinstance(module, Heads):
            module.start_sizes(sizes, labels)
    width, height = sizes.median(0).values.tolist()
    return [f"the size head starts from the median box: {width:.1f} x {height:.1f} cells"]
