"""Batch norms that are not trained."""

from __future__ import annotations

from torch import nn

from ctnet.nn.batch_norm import BatchNorm2d


class FrozenBatchNorm2d(BatchNorm2d):
    """A batch norm that always normalises by its running statistics and whose scale and shift get no gradient."""

    def __init__(self, channels: int, eps: float = 1e-5, *, relu: bool = False) -> None:
        super().__init__(channels, eps, relu=relu)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenBatchNorm2d:
        """Stay in evaluation mode."""
        return super().train(False)


def freeze_norms(network: nn.Module) -> None:
    """Replace every batch norm of ctnet in the network, in place, by a frozen one with the same numbers."""
    for name, child in network.named_children():
        if isinstance(child, BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, child.eps, relu=child.relu)
            frozen.load_state_dict(child.state_dict())
            setattr(network, name, frozen)
        else:
            freeze_norms(child)
