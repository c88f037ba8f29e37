"""Autocast of the emulated device: torch brings no rules for such devices, the vendors' packages do."""

import torch
from torch.utils import _pytree as pytree

LOW = ("conv2d", "conv_transpose2d.input", "linear", "matmul", "mm", "bmm", "addmm")
FULL = (
    "mse_loss", "l1_loss", "smooth_l1_loss", "log", "exp", "pow.Tensor_Scalar", "softmax.int",
    "binary_cross_entropy_with_logits", "sum",
)  # fmt: skip


def register(name, library):
    """Register the rules and return what must be kept."""
    others = torch.library.Library("_", "IMPL")
    others.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for rules, reduced in ((LOW, True), (FULL, False)):
        for operator_name in rules:
            base, _, overload = operator_name.partition(".")
            operator = getattr(getattr(torch.ops.aten, base), overload or "default")
            library.impl(operator_name, _casting(operator, name, reduced), "AutocastPrivateUse1")
    return [others]


def _casting(operator, name, reduced):
    own_key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def kernel(*args, **kwargs):
        dtype = torch.get_autocast_dtype(name) if reduced else torch.float32

        def cast(value):
            floating = isinstance(value, torch.Tensor) and value.is_floating_point() and value.device.type == name
            return value.to(dtype) if floating and value.dtype != torch.float64 else value

        with torch._C._ExcludeDispatchKeyGuard(own_key):
            return operator(*pytree.tree_map(cast, args), **pytree.tree_map(cast, kwargs))

    return kernel
