"""The cuda device: NVIDIA cards through torch's own build."""

from __future__ import annotations

import torch
from torch import Tensor

from ctnet.devices.base import Probe, TorchDevice


class CudaDevice(TorchDevice):
    """NVIDIA cards. Convolutions choose their algorithm by measuring; matrix products may use TF32."""

    name = "cuda"
    ddp_backend = "nccl"

    def probe(self) -> Probe:
        """Count the cards that torch sees."""
        if torch.version.cuda is None:
            return Probe(0, "this torch build has no CUDA support")
        count = torch.cuda.device_count()
        return Probe(count, "" if count else "torch finds no card or no driver")

    def open(self, index: int) -> torch.device:
        """Claim a card; allow TF32 and let cuDNN pick algorithms by measuring."""
        torch.cuda.set_device(index)
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cuda.matmul.allow_tf32 = True
        return torch.device("cuda", index)

    def fast_dtype(self) -> tuple[torch.dtype | None, str]:
        """Return bf16 from Ampere on, fp16 before."""
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "the card multiplies bf16"
        return torch.float16, "the card has no bf16; fp16 with loss scaling"

    def synchronize(self) -> None:
        """Wait for the current card."""
        torch.cuda.synchronize()

    def peak_memory(self) -> int | None:
        """Return torch's peak of allocated bytes on the current card."""
        return torch.cuda.max_memory_allocated()

    def rng_state(self) -> Tensor | None:
        """Return the current card's generator state."""
        return torch.cuda.get_rng_state()

    def set_rng_state(self, state: Tensor) -> None:
        """Restore the current card's generator state."""
        torch.cuda.set_rng_state(state)


def device() -> CudaDevice:
    """Return the plug-in."""
    return CudaDevice()
