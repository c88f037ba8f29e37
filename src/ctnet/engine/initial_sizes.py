"""The initial bias of the size heads, from the training data."""

from __future__ import annotations

import torch
from torch import nn

from ctnet.data.sample import TrainingSamples
from ctnet.families import Family


def start_from_data(family: Family, network: nn.Module, samples: TrainingSamples) -> list[str]:
    """Initialise the size heads from the training data; return sentences about it, none without objects."""
    return family.start_from(network, {name: torch.from_numpy(rows) for name, rows in samples.rows().items()})
