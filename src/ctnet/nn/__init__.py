"""Modules that own parameters and call operators."""

from ctnet.nn.deform_conv import DeformConv2d
from ctnet.nn.sync_batch_norm import SyncBatchNorm2d, synchronise_norms
from ctnet.nn.upsample import DepthwiseUpsample

__all__ = ["DeformConv2d", "DepthwiseUpsample", "SyncBatchNorm2d", "synchronise_norms"]
