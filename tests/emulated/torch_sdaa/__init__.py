"""torch_sdaa on an emulated card: what the vendor's examples use of it, and no more."""

import os
import types

import torch

from emulation import backend, limits, process_group, tensor

__version__ = "2.7.1+emulated"

sdaa = backend.install("sdaa", "emulated SDAA (numbers from the processor)")
sdaa.get_amp_supported_dtype = lambda: [torch.float16, torch.float32]
del sdaa.is_bf16_supported
sdaa.amp = types.SimpleNamespace(
    autocast=lambda dtype=torch.float16, enabled=True: torch.autocast("sdaa", dtype=dtype, enabled=enabled),
    GradScaler=lambda enabled=True: torch.amp.GradScaler("sdaa", enabled=enabled),
)
tensor.REFUSALS += [limits.refusing(limits.SDAA), limits.refusing(limits.missing())]
process_group.register("tccl", "sdaa")
for _name in ("TORCH_SDAA_CONV_USE_FP32", "TORCH_SDAA_CONV2D_BACKWARD_USE_FP32"):
    tensor.CALLS[f"{_name}={os.environ.get(_name)}"] += 1
