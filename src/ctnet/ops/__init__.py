"""Operators of detectors, each declared once with `torch.library`: schema, shapes, gradient, reference.

A device plug-in registers faster kernels for its dispatch key; callers never choose.
"""

from ctnet.ops.deform_conv import deform_conv2d
from ctnet.ops.nms import nms, soft_nms
from ctnet.ops.peaks import Peaks, decode_peaks
from ctnet.ops.upsample import depthwise_upsample

__all__ = ["Peaks", "decode_peaks", "deform_conv2d", "depthwise_upsample", "nms", "soft_nms"]
