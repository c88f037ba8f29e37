"""Every operator test runs on the reference and on each compiled instruction set that this processor has."""

import warnings

import pytest
import torch

from ctnet.devices import cpu
from ctnet.devices.cpu import native
from ctnet.errors import ConfigError
from ctnet.ops import batch_norm, deform_conv, max_pool, peaks, upsample
from ctnet.ops.nms import reference_nms, reference_soft_nms

REFERENCES = {
    "deform_conv2d": deform_conv.forward,
    "deform_conv2d_backward": deform_conv.backward,
    "depthwise_upsample": upsample.forward,
    "depthwise_upsample_backward": upsample.backward,
    "batch_norm": batch_norm.forward,
    "batch_norm_backward": batch_norm.backward,
    "max_pool2d": max_pool.forward,
    "max_pool2d_backward": max_pool.backward,
    "decode_peaks": peaks.reference_peaks,
    "nms": reference_nms,
    "soft_nms": reference_soft_nms,
}


@pytest.fixture(autouse=True, params=["reference", *native.ISAS])
def implementation(request, monkeypatch):
    """Put one implementation behind all operators."""
    monkeypatch.setenv(native.ISA_VARIABLE, request.param)
    try:
        status = native.select()
    except ConfigError as error:
        pytest.skip(f"{request.param}: {error}")
    if request.param != "reference" and status.isa is None:
        pytest.skip(f"no compiled kernels: {status.reason}")
    chosen = REFERENCES if request.param == "reference" else cpu.KERNELS
    with torch.library._scoped_library("ctnet", "IMPL") as library:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says once that kernels are replaced, which is what is wanted
            for name, function in chosen.items():
                library.impl(name, function, "CPU", allow_override=True)
        yield request.param
    monkeypatch.delenv(native.ISA_VARIABLE)
    native.select()
