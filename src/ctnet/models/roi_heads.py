"""Second stages of a detector: class and correction of pooled boxes (Ren et al., 2015, Cai and Vasconcelos, 2018)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ctnet.models.pyramid import initialise_uniformly


class RoiStage(nn.Module):
    """Two hidden layers over the pooled features of a box."""

    def __init__(self, in_channels: int, size: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_channels * size * size, channels)
        self.fc2 = nn.Linear(channels, channels)
        self.classes = nn.Linear(channels, num_classes + 1)
        self.box = nn.Linear(channels, 4)
        for hidden in (self.fc1, self.fc2):
            initialise_uniformly(hidden)
        for output, std in ((self.classes, 0.01), (self.box, 0.001)):
            nn.init.normal_(output.weight, std=std)
            nn.init.zeros_(output.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (R,C+1), the last the background's, and corrections (R,4) of pooled boxes (R,C,P,P)."""
        x = F.relu(self.fc2(F.relu(self.fc1(pooled.flatten(1)))))
        return self.classes(x), self.box(x)
