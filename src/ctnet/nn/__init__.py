"""Modules that own parameters and call operators."""

from ctnet.nn.batch_norm import BatchNorm2d
from ctnet.nn.deform_conv import DeformConv2d
from ctnet.nn.max_pool import MaxPool2d
from ctnet.nn.restate import restate_norms
from ctnet.nn.sync_batch_norm import SyncBatchNorm2d, synchronise_norms
from ctnet.nn.upsample import DepthwiseUpsample

__all__ = [
    "BatchNorm2d",
    "DeformConv2d",
    "DepthwiseUpsample",
    "MaxPool2d",
    "SyncBatchNorm2d",
    "restate_norms",
    "synchronise_norms",
]
