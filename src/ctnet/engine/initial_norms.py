"""The first statistics of norms that weights of another runtime have lost."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ctnet.codec.pixels import normalise
from ctnet.config import Data
from ctnet.data.sample import TrainingSamples
from ctnet.nn import restate_norms

_IMAGES = 16


def start_norms(network: nn.Module, data: Data, samples: TrainingSamples) -> None:
    """Give the norms the statistics of images of the first epoch; outputs in evaluation mode do not change."""
    chosen = np.linspace(0, len(samples) - 1, min(len(samples), _IMAGES)).astype(int)
    shown = torch.from_numpy(np.stack([samples[0, int(index)].image for index in chosen]))
    images = normalise(shown, data.mean, data.std, color_order=data.color_order)
    restate_norms(network, images.to(next(network.parameters()).device))
