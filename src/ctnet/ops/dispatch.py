"""What is known of the kernels behind an operator."""

from __future__ import annotations

import torch
from torch import Tensor


def has_kernel(operator: str, tensor: Tensor) -> bool:
    """Say whether a device plug-in has registered a kernel of `ctnet::operator` for tensors where this one is."""
    key = torch._C._dispatch_key_for_device(tensor.device.type)
    registered: bool = torch._C._dispatch_has_kernel_for_dispatch_key(f"ctnet::{operator}", key)
    return registered
