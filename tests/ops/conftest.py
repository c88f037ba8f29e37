"""Every operator test runs on the reference and on each compiled instruction set that this processor has."""

import warnings

import pytest
import torch

from ctnet.devices import cpu
from ctnet.devices.cpu import native
from ctnet.errors import ConfigError
from ctnet.ops.table import OPERATORS

REFERENCES = {name: row.reference for name, row in OPERATORS.items()}


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
