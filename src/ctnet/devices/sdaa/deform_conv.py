"""Deformable convolution from gathered rows and products: operators that every version of torch_sdaa has.

The reference's weighted sums of rows (`embedding_bag`) and their transposition (`bincount`, a stable `argsort` of
64-bit integers) have no documented kernel on the device. Here the four corners are gathered one after the other,
and their gradients are added to the map's rows.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ctnet.ops import deform_conv_reference as reference
from ctnet.ops.deform_conv_reference import Sampling, Steps


def _weights(at: Sampling, corner: int) -> Tensor:
    bilinear = at.bilinear[..., corner]
    return (bilinear if at.mask is None else bilinear * at.mask).reshape(-1, 1)


def _rows(table: Tensor, at: Sampling, corner: int) -> Tensor:
    return table.index_select(0, at.row[..., corner].reshape(-1))


def _columns(table: Tensor, at: Sampling) -> Tensor:
    first, *others = (_rows(table, at, corner) * _weights(at, corner) for corner in range(4))
    return sum(others, first).reshape(*at.row.shape[:-1], -1)


def _scatter(grad_samples: Tensor, at: Sampling, rows: int) -> Tensor:
    table = grad_samples.new_zeros(rows, grad_samples.shape[1])
    for corner in range(4):
        table.index_add_(0, at.row[..., corner].reshape(-1), grad_samples * _weights(at, corner))
    return table


def _dots(grad_samples: Tensor, table: Tensor, at: Sampling) -> Tensor:
    products = [(_rows(table, at, corner) * grad_samples).sum(1) for corner in range(4)]
    return torch.stack(products, -1).reshape(at.row.shape)


_STEPS = Steps(_columns, _scatter, _dots)
forward = partial(reference.forward, steps=_STEPS)
backward = partial(reference.backward, steps=_STEPS)
