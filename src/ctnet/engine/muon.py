"""Muon: momentum orthogonalised before it updates the kernels of convolutions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ctnet.models.heads import Heads
from ctnet.nn import DeformConv2d

ROWS = 64
"""rows made orthogonal together: a fraction of the work of whole kernels, and BCCD was no worse for it"""
SMALLEST = 32
"""rows or columns below which a kernel is left to AdamW: depthwise kernels are too thin"""
_ITERATIONS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def hidden_kernels(network: nn.Module) -> list[Tensor]:
    """Return the kernels of hidden layers, those that Muon is for; neither depthwise ones nor the heads' last."""
    ends = {id(layer) for heads in network.modules() if isinstance(heads, Heads) for layer in heads.output_layers()}
    return [
        layer.weight
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | DeformConv2d) and id(layer) not in ends
        if min(len(layer.weight), layer.weight[0].numel()) >= SMALLEST
    ]


class Muon(torch.optim.AdamW):
    """Muon for the groups marked `orthogonal`, AdamW for all others, at rates of the same meaning.

    Momentum with Nesterov's correction, made orthogonal by five quintic Newton-Schulz iterations (Jordan et al. 2024),
    scaled so that its root mean square is that of AdamW's steps (Liu et al. 2025, arXiv 2502.16982, section 2.2).
    Kernels (out, in, kh, kw) are matrices of `out` rows.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        *,
        betas: tuple[float, float],
        eps: float = 1e-8,
        momentum: float,
        fused: bool,
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, eps=eps, fused=fused)
        self._momentum = momentum
        # the scaler must find infinities for all groups; a fused AdamW would check its own only
        self._step_supports_amp_scaling = False

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all weights that have a gradient."""
        groups = self.param_groups
        try:
            self.param_groups = [group for group in groups if not group["orthogonal"]]
            super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group["orthogonal"]:
                self._step_orthogonal(group)

    @torch.no_grad()
    def _step_orthogonal(self, group: dict[str, Any]) -> None:
        weights = [weight for weight in group["params"] if weight.grad is not None]
        if not weights:
            return
        for weight in weights:
            if not self.state[weight]:
                # AdamW asks each state that is loaded for its step
                self.state[weight].update(step=torch.tensor(0.0), momentum=torch.zeros_like(weight))
            self.state[weight]["step"] += 1
        gradients, momenta = [w.grad for w in weights], [self.state[w]["momentum"] for w in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - self._momentum)
        torch._foreach_lerp_(gradients, momenta, self._momentum)  # free each gradient after use
        for weight, direction in zip(weights, gradients, strict=True):
            _move(weight, direction, lr=group["lr"], decay=group["weight_decay"])


def _move(kernel: Tensor, direction: Tensor, *, lr: float, decay: float) -> None:
    """Decay a kernel (out,in,kh,kw) and step against `direction`; the step's root mean square is some 0.2 `lr`."""
    # orthogonalisation is invariant to column order, so keep the memory layout
    last = kernel.is_contiguous(memory_format=torch.channels_last)
    rows, directions = (t.permute(0, 2, 3, 1) if last else t for t in (kernel, direction))
    shape = (-1, ROWS if len(rows) % ROWS == 0 else len(rows), rows[0].numel())
    blocks, directions = rows.view(shape), directions.reshape(shape)
    scale = -0.2 * lr * max(blocks.shape[1:]) ** 0.5
    if blocks.shape[1] > blocks.shape[2]:
        blocks.mul_(1 - lr * decay).add_(orthogonalised(directions, scale))
    else:
        blocks.baddbmm_(scale * orthogonaliser(directions), directions, beta=1 - lr * decay)


def orthogonalised(matrices: Tensor, scale: float = 1.0) -> Tensor:
    """Return (B,R,C) with the same singular vectors; singular values are 0.7 to 1.2 times `scale`, and zeros stay."""
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalised(matrices.mT, scale).mT
    return (scale * orthogonaliser(matrices)).bmm(matrices)


def orthogonaliser(matrices: Tensor) -> Tensor:
    """Return (B,R,R) by whose product with (B,R,C), R at most C, these become orthogonal.

    The polynomials of the iteration are multiplied as (R,R) matrices, whose product meets the (R,C) ones once.
    """
    linear, cubic, quintic = _COEFFICIENTS
    gram = matrices @ matrices.mT
    norms = gram.diagonal(dim1=1, dim2=2).sum(1).sqrt()[:, None, None] + 1e-18
    gram = gram / norms.square()
    product = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device) / norms
    for _ in range(_ITERATIONS):
        factor = torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic)
        factor.diagonal(dim1=1, dim2=2).add_(linear)
        product = factor @ product
        gram = factor @ gram @ factor
    return product
