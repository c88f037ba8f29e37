"""The initial bias of the size heads, from the training data."""

from __future__ import annotations

import torch
from torch import nn

from ctnet.data.sample import TrainingSamples
from ctnet.families import Family


def start_from_data(family: Family, network: nn.Module, samples: TrainingSamples) -> list[str]:
    """Let fresh heads begin at what the data looks like; return that in words, or nothing without objects."""
    return family.start_from(network, {name: torch.from_numpy(rows) for name, rows in samples.rows().items()})
