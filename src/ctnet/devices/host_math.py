"""A first call of the CPU's mathematical functions, on which oneMKL chooses their code."""

from __future__ import annotations

import torch

_FUNCTIONS = (torch.exp, torch.log, torch.sqrt)  # the vectorised functions of losses, boxes and optimizers


def settle_host_math() -> None:
    """Call each function once from one thread, before many do.

    oneMKL before 2025 chooses a function's code in its first call. When threads share that call, one of them can run
    low-precision code (errors of 1e-4) for its part of the tensor, and a seeded run starts with another loss than the
    last time: https://github.com/pytorch/pytorch/issues/188792.
    """
    for dtype in (torch.float32, torch.float64):
        for function in _FUNCTIONS:
            function(torch.ones(1, dtype=dtype))
