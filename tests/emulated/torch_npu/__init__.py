"""torch_npu on an emulated card."""

import types

import torch

from emulation import backend, limits, process_group, tensor
from torch_npu import deformable, grad_scaler, roi_align, schemas

__version__ = "2.13.0+emulated"


def _refuse_channels_last(operator, args, kwargs):
    if kwargs.get("memory_format") in (torch.channels_last, torch.channels_last_3d):
        raise RuntimeError(f"{operator}: NPU supports contiguous memory format only")


def _refuse_unknown_sizes(operator, args, kwargs):
    """Stand for the compilation that each new size costs: nothing that trains or decodes may need one."""
    aten = torch.ops.aten
    masks = operator is aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1])
    if masks or operator in (aten.nonzero.default, aten.masked_select.default):
        raise RuntimeError(f"{operator}: the size of the result depends on data")


def _refuse_empty_convolutions(operator, args, kwargs):
    if operator is torch.ops.aten.convolution.default and args[0].numel() == 0:
        raise RuntimeError(f"{operator}: empty tensors are not supported")


npu = backend.install("npu", "emulated Ascend (numbers from the processor)")
npu.set_compile_mode = lambda jit_compile=True: tensor.CALLS.update([f"jit_compile={jit_compile}"])
npu.config = types.SimpleNamespace(allow_internal_format=True)
npu.amp = types.SimpleNamespace(GradScaler=grad_scaler.GradScaler)
tensor.REFUSALS += [
    _refuse_channels_last,
    _refuse_unknown_sizes,
    _refuse_empty_convolutions,
    limits.refusing(limits.NPU),
]
process_group.register("hccl", "npu")

_library = torch.library.Library("npu", "DEF")
for _name, _schema in schemas.SCHEMAS.items():
    _library.define(_schema)
    _library.impl(_name, getattr(roi_align if "roi" in _name else deformable, _name), "PrivateUse1")
    globals()[_name] = getattr(torch.ops.npu, _name)
