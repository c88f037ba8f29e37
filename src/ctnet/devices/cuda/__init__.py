"""The cuda device: NVIDIA cards through torch's own build."""

from __future__ import annotations

import torch

from ctnet.devices.base import Probe
from ctnet.devices.torch_device import Card


class CudaDevice(Card):
    """NVIDIA cards. Convolutions choose their algorithm by measuring; matrix products may use TF32."""

    name = torch_type = "cuda"
    dispatch_key = "CUDA"
    ddp_backend = "nccl"
    visible_env = "CUDA_VISIBLE_DEVICES"
    fused_optimizer = True

    def probe(self) -> Probe:
        """Count the cards that torch sees."""
        if torch.version.cuda is None:
            return Probe(0, "this torch build has no CUDA support")
        count = torch.cuda.device_count()
        if count == 0:
            return Probe(0, "torch finds no card or no driver", versions={"CUDA": torch.version.cuda})
        versions = {"CUDA": torch.version.cuda, "cuDNN": str(torch.backends.cudnn.version())}  # type: ignore[no-untyped-call]
        return Probe(count, "", tuple(torch.cuda.get_device_name(i) for i in range(count)), versions)

    def open(self, index: int) -> torch.device:
        """Claim a card; allow TF32 and let cuDNN pick algorithms by measuring."""
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cuda.matmul.allow_tf32 = True
        return super().open(index)

    def switches(self) -> dict[str, str]:
        """Return what `open` allows."""
        return {"TF32 in products and convolutions": "allowed", "cudnn.benchmark": "on"}

    def fast_dtype(self) -> tuple[torch.dtype | None, str]:
        """Return bf16 from Ampere on, fp16 before."""
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "the card multiplies bf16"
        return torch.float16, "the card has no bf16; fp16 with loss scaling"


def device() -> CudaDevice:
    """Return the plug-in."""
    return CudaDevice()
