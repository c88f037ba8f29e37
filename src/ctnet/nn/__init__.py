"""Modules that own parameters and call operators."""

from ctnet.nn.batch_norm import BatchNorm2d
from ctnet.nn.deform_conv import DeformConv2d
from ctnet.nn.frozen_norm import FrozenBatchNorm2d, freeze_norms
from ctnet.nn.level_conv import LevelConv2d
from ctnet.nn.max_pool import MaxPool2d
from ctnet.nn.restate import restate_norms
from ctnet.nn.sync_batch_norm import SyncBatchNorm2d, synchronise_norms
from ctnet.nn.upsample import DepthwiseUpsample

__all__ = [
    "BatchNorm2d",
    "DeformConv2d",
    "DepthwiseUpsample",
    "FrozenBatchNorm2d",
    "LevelConv2d",
    "MaxPool2d",
    "SyncBatchNorm2d",
    "freeze_norms",
    "restate_norms",
    "synchronise_norms",
]
