"""The compiled kernels: finding the binary, choosing the instruction set, calling through its C interface."""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import os
from ctypes import POINTER, c_char_p, c_double, c_int, c_int64, c_void_p
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ctnet.distribution import NAME
from ctnet.errors import ConfigError

ISA_VARIABLE = "CTNET_CPU_ISA"
"""environment variable that forces an instruction set, or `reference` for no compiled kernels at all"""
ISAS = ("amx", "avx512bf16", "avx512", "avx2", "plain")

TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float64: 2}
"""element types of the kernels by their numbers in the C interface"""


class DeformShape(ctypes.Structure):
    """`ctnet_deform_shape` of the C interface."""

    _fields_ = [
        *((name, c_int64) for name in ("images", "channels", "height", "width", "out_height", "out_width")),
        *((f"{name}_{axis}", c_int64) for name in ("kernel", "stride", "padding", "dilation") for axis in "hw"),
        *((name, c_int64) for name in ("groups", "deform_groups")),
        ("offset_stride", c_int64 * 4),
        ("mask_stride", c_int64 * 4),
    ]


class WindowShape(ctypes.Structure):
    """`ctnet_window_shape` of the C interface."""

    _fields_ = [
        (name, c_int64)
        for name in (
            "images", "channels", "height", "width", "out_height", "out_width", "kernel", "stride", "padding",
        )
    ]  # fmt: skip


class RoiShape(ctypes.Structure):
    """`ctnet_roi_shape` of the C interface."""

    _fields_ = [
        *((name, c_int64) for name in ("rois", "channels", "size")),
        *((name, c_void_p) for name in ("sides", "image", "level", "boxes")),
    ]


_SIGNATURES = {
    "deform_conv": [POINTER(DeformShape), c_int, c_void_p, c_int, c_void_p, c_void_p, c_void_p, c_int64 * 4, c_void_p,
                    c_int64, c_void_p, c_int],
    "deform_conv_backward": [POINTER(DeformShape), c_int, c_void_p, c_int, *[c_void_p] * 3, c_int64, c_void_p,
                             POINTER(DeformShape), *[c_void_p] * 4, c_int64, c_void_p, c_int],
    "deform_conv_scratch": [POINTER(DeformShape), c_int, c_int64, c_int64, c_int],
    "decode_peaks": [c_int, c_void_p, c_int64 * 4, c_int64 * 4, c_int64, c_void_p, c_void_p, c_void_p, c_int],
    "nms": [c_int64, *[c_void_p] * 4, c_double, c_double, c_int64, c_void_p, c_int],
    "soft_nms": [c_int64, c_void_p, c_void_p, c_int, c_double, c_double, c_double, c_double],
    "batch_norm": [c_int64, c_int64, c_int, *[c_void_p] * 4, c_int, c_double, *[c_void_p] * 3, c_int],
    "batch_norm_backward": [c_int64, c_int64, c_int, *[c_void_p] * 7, c_int, c_double, *[c_void_p] * 4, c_int],
    "max_pool": [POINTER(WindowShape), c_int, c_void_p, c_void_p, c_void_p, c_int],
    "max_pool_backward": [POINTER(WindowShape), c_int, c_void_p, c_void_p, c_void_p, c_int],
    "roi_align": [POINTER(RoiShape), c_int, POINTER(c_void_p), c_void_p, c_int],
    "roi_align_backward": [POINTER(RoiShape), c_int, c_void_p, POINTER(c_void_p), c_int],
    "upsample": [POINTER(WindowShape), c_int, c_void_p, c_void_p, c_void_p, c_int],
    "upsample_grad_map": [POINTER(WindowShape), c_int, c_void_p, c_void_p, c_void_p, c_int],
    "upsample_grad_weight": [POINTER(WindowShape), c_int, c_void_p, c_void_p, c_void_p, c_int],
}  # fmt: skip


class Status(NamedTuple):
    """Which kernels run the operators on this CPU, and why."""

    isa: str | None  # instruction set, None when the references run
    reason: str


@functools.cache
def library() -> ctypes.CDLL:
    """Return the loaded binary, every function declared. Raises OSError where there is none."""
    folder = Path(__file__).parent
    files = [folder / f"_native{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise OSError(f"no compiled kernels: install a C++17 compiler, then {NAME} again")
    loaded = ctypes.CDLL(str(file))
    for name, arguments in _SIGNATURES.items():
        function = getattr(loaded, f"ctnet_{name}", None)
        if function is None:
            raise OSError(f"the compiled kernels were built from other sources: install {NAME} again")
        function.argtypes, function.restype = arguments, c_int
    loaded.ctnet_deform_conv_scratch.restype = c_int64
    loaded.ctnet_isa.restype = c_char_p
    loaded.ctnet_select_isa.argtypes = [c_char_p]
    loaded.ctnet_set_parallel.argtypes = [c_void_p]
    loaded.ctnet_set_parallel.restype = None
    loaded.ctnet_set_parallel(_gomp_parallel())
    return loaded


def select() -> Status:
    """Choose the instruction set, the best one unless the environment names one, and say which and why.

    Raises ConfigError when the environment names one that this CPU or binary lacks.
    """
    asked = os.environ.get(ISA_VARIABLE)
    if asked == "reference":
        return Status(None, f"{ISA_VARIABLE}=reference")
    try:
        kernels = library()
    except OSError as error:
        return Status(None, str(error))
    if asked and kernels.ctnet_select_isa(asked.encode()):
        raise ConfigError(
            f"{ISA_VARIABLE} names kernels that cannot run here", got=asked, known=", ".join((*ISAS, "reference"))
        )
    name = kernels.ctnet_isa().decode()
    return Status(name, f"{ISA_VARIABLE} requests it" if asked else "best of this CPU")


def strides(tensor: Tensor, empty: tuple[int, ...] = (0, 0, 0, 0)) -> ctypes.Array[c_int64]:
    """Return the strides of a four-dimensional tensor as the C interface takes them."""
    return (c_int64 * 4)(*(tensor.stride() if tensor.dim() == 4 else empty))


def pointer(tensor: Tensor | None) -> int | None:
    """Return the address of a tensor's first element, None for no tensor."""
    return None if tensor is None else tensor.data_ptr()


def _gomp_parallel() -> int | None:
    """Return the address of `GOMP_parallel` in the OpenMP runtime that torch runs on, None where there is none."""
    beside = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    for file in (*map(str, beside), None):
        try:
            return ctypes.cast(ctypes.CDLL(file).GOMP_parallel, c_void_p).value
        except (OSError, AttributeError, TypeError):
            continue
    return None
