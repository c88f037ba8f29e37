"""Modules that own parameters and call operators."""

from ctnet.nn.deform_conv import DeformConv2d

__all__ = ["DeformConv2d"]
