"""A kernel built and run to see whether others can be: that takes a driver, a C compiler and Python's headers."""

import torch
import triton
import triton.language as tl

_VALUE = 7


def run() -> None:
    """Build and run a kernel on the current GPU. Raises whatever goes wrong, RuntimeError for a wrong result."""
    where = torch.empty(1, dtype=torch.int32, device="cuda")
    _write[(1,)](where, VALUE=_VALUE, enable_fp_fusion=True)
    if where.item() != _VALUE:
        raise RuntimeError(f"a kernel wrote {where.item()} where it should write {_VALUE}")


@triton.jit
def _write(where, VALUE: tl.constexpr):
    tl.store(where, VALUE)
