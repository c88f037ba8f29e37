"""Operators of detectors, each declared once with `torch.library`: schema, shapes, gradient, reference.

A device plug-in registers faster kernels for its dispatch key; callers never choose.
"""

from ctnet.ops.deform_conv import deform_conv2d
from ctnet.ops.nms import batched_nms, nms, soft_nms
from ctnet.ops.peaks import Peaks, decode_peaks
from ctnet.ops.roi_align import roi_align
from ctnet.ops.upsample import depthwise_upsample

__all__ = [
    "Peaks", "batched_nms", "decode_peaks", "deform_conv2d", "depthwise_upsample", "nms", "roi_align", "soft_nms",
]  # fmt: skip
