"""The operators of ctnet, a row each; devices, the conformance suite, `ctnet doctor` and benchmarks read this table.

`docs/add-an-operator.md` lists the files that a new row brings along.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ctnet.ops import batch_norm, deform_conv_reference, max_pool, roi_align_reference, upsample
from ctnet.ops.nms import reference_nms, reference_soft_nms
from ctnet.ops.peaks import reference_peaks

PRODUCTS: Mapping[torch.dtype, float] = {
    torch.float64: 1e-9, torch.float32: 2e-3, torch.float16: 5e-3, torch.bfloat16: 3e-2,
}  # fmt: skip
"""tolerances of sums of products; some accelerators round the factors of float32 products to ten bits"""


@dataclass(frozen=True)
class Operator:
    """One operator `ctnet::name`.

    `tolerances` is the largest difference between a kernel and the reference, relative to the largest value of the
    reference, by type of the input; 0 is equality.
    """

    name: str
    reference: Callable[..., object]
    kernel: str
    """`FILE.FUNCTION` of a device's kernel, in the folder of the device: `ctnet/devices/NAME/FILE.py`"""
    tolerances: Mapping[torch.dtype, float]
    fused: bool = False
    """replaces a sequence of torch's operators, and is called only where a device has a kernel for it"""
    operations: Callable[..., int] | None = None
    """operations (a multiply-add is two) of a call, from the shapes of its arguments; None where torch counts or
    where nothing is multiplied"""

    def runs_for(self, input: Tensor) -> bool:
        """Return whether ctnet calls this operator for inputs of this type on this device."""
        return not self.fused or (input.dtype in self.tolerances and has_kernel(self.name, input.device.type))


def has_kernel(operator: str, device_type: str) -> bool:
    """Return whether a device plug-in has registered a kernel of `ctnet::operator` for a type of device."""
    key = torch._C._dispatch_key_for_device(device_type)
    registered: bool = torch._C._dispatch_has_kernel_for_dispatch_key(f"ctnet::{operator}", key)
    return registered


def _deform_conv_operations(
    input: torch.Size, offset: torch.Size, weight: torch.Size, *_: object, out_shape: torch.Size, **__: object
) -> int:
    """Count the products alone, as of an ordinary convolution, without the sampling."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


_FUSED = {dtype: bound for dtype, bound in PRODUCTS.items() if dtype != torch.float16}
"""the fused kernels take no float16"""

OPERATORS: Mapping[str, Operator] = {
    row.name: row
    for row in (
        Operator(
            "deform_conv2d", deform_conv_reference.forward, "deform_conv.forward", PRODUCTS,
            operations=_deform_conv_operations,
        ),
        Operator("deform_conv2d_backward", deform_conv_reference.backward, "deform_conv.backward", PRODUCTS),
        Operator("depthwise_upsample", upsample.forward, "upsample.forward", PRODUCTS),
        Operator("depthwise_upsample_backward", upsample.backward, "upsample.backward", PRODUCTS),
        Operator("batch_norm", batch_norm.forward, "batch_norm.forward", _FUSED, fused=True),
        Operator("batch_norm_backward", batch_norm.backward, "batch_norm.backward", _FUSED, fused=True),
        Operator("max_pool2d", max_pool.forward, "max_pool.forward", _FUSED, fused=True),
        Operator("max_pool2d_backward", max_pool.backward, "max_pool.backward", _FUSED, fused=True),
        Operator("roi_align", roi_align_reference.forward, "roi_align.forward", PRODUCTS),
        Operator("roi_align_backward", roi_align_reference.backward, "roi_align.backward", PRODUCTS),
        Operator("decode_peaks", reference_peaks, "peaks.decode_peaks", dict.fromkeys(PRODUCTS, 1e-5)),
        Operator("nms", reference_nms, "boxes.nms", {torch.float32: 0.0}),
        Operator("soft_nms", reference_soft_nms, "boxes.soft_nms", {torch.float32: 1e-5}),
    )
}  # fmt: skip

REQUIRED = tuple(name for name, row in OPERATORS.items() if not row.fused)
"""operators that run on every device: by a kernel of the device, else by the reference"""


def flop_formulas() -> dict[object, Callable[..., int]]:
    """Return what `torch.utils.flop_counter.FlopCounterMode` takes as `custom_mapping`."""
    return {
        getattr(torch.ops.ctnet, name): row.operations for name, row in OPERATORS.items() if row.operations is not None
    }
