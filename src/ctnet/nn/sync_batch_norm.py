"""Batch normalisation over the images of all processes.

torch's SyncBatchNorm runs on CUDA only; this one uses collectives and operators that every device has.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ctnet.nn.batch_norm import BatchNorm2d
from ctnet.nn.frozen_norm import FrozenBatchNorm2d


class SyncBatchNorm2d(BatchNorm2d):
    """BatchNorm2d whose training statistics are over the images of all ranks, which may differ in number.

    Without a process group, and in evaluation, it is plain BatchNorm2d. A rank may have no image while another has.
    """

    def normalise(self, input: Tensor) -> Tensor:
        """Return the norm alone, over all ranks."""
        return self._synchronised(input) if self._has_ranks() else super().normalise(input)

    def fuses(self, input: Tensor, shortcut: Tensor | None) -> bool:
        """Return whether the kernel computes this call: not over several ranks."""
        return not self._has_ranks() and super().fuses(input, shortcut)

    def _has_ranks(self) -> bool:
        return self.training and dist.is_initialized()

    def _synchronised(self, input: Tensor) -> Tensor:
        mean, variance, count = _statistics(input)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
                unbiased = variance * (count / (count - 1).clamp(min=1))
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(unbiased, share)
        output: Tensor = _Normalise.apply(input, self.weight, self.bias, mean, variance, count, self.eps)  # type: ignore[no-untyped-call]
        return output


def synchronise_norms(network: nn.Module) -> nn.Module:
    """Return the network, in which every norm that is trained has become a SyncBatchNorm2d with the same parameters."""
    for name, child in network.named_children():
        if isinstance(child, FrozenBatchNorm2d):
            continue
        if isinstance(child, nn.BatchNorm2d) and not isinstance(child, SyncBatchNorm2d):
            relu = isinstance(child, BatchNorm2d) and child.relu
            norm = SyncBatchNorm2d(child.num_features, child.eps, child.momentum, relu=relu)
            norm.load_state_dict(child.state_dict())
            setattr(network, name, norm.train(child.training))
        else:
            synchronise_norms(child)
    return network


@torch.no_grad()
def _statistics(input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and variance (C,) and the number of values, a scalar, over all ranks; in at least float32."""
    values = input.float() if input.dtype.itemsize < 4 else input
    count = values.new_full((1,), values.numel() // values.shape[1])
    if len(input):
        variance, mean = torch.var_mean(values, (0, 2, 3), correction=0)
    else:
        variance = mean = values.new_zeros(values.shape[1])
    mine = torch.cat([mean, variance, count])
    table = mine.new_empty(dist.get_world_size(), len(mine))
    dist.all_gather(list(table.unbind()), mine)
    means, variances, counts = torch.split(table, [len(mean), len(mean), 1], dim=1)
    # Chan's rule: sums of squared deviations from each rank's mean avoid the cancellation of plain sums of squares
    total = counts.sum()
    mean = (means * counts).sum(0) / total
    variance = ((variances + (means - mean).square()) * counts).sum(0) / total
    return mean, variance, total


class _Normalise(torch.autograd.Function):
    """weight * (x - mean) / sqrt(variance + eps) + bias, differentiated also through mean and variance of all ranks."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, count: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps), count)
        return nn.functional.batch_norm(x, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        upstream = gradients[0].to(mean.dtype)
        normalised = (x.to(mean.dtype) - _column(mean)) * _column(scale)
        sums = torch.stack([upstream.sum((0, 2, 3)), (upstream * normalised).sum((0, 2, 3))])
        everyone = sums.clone()
        dist.all_reduce(everyone)
        shift, slope = everyone / count
        grad_x = (upstream - _column(shift) - normalised * _column(slope)) * _column(weight * scale)
        return grad_x.to(x.dtype), sums[1], sums[0], None, None, None, None


def _column(values: Tensor) -> Tensor:
    return values[:, None, None]
