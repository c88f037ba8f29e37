"""The cuda device: NVIDIA GPUs through torch's own build."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from ctnet.devices import host
from ctnet.devices.base import Probe
from ctnet.devices.torch_device import Accelerator, Kernels, kernels_in, register
from ctnet.devices.vendor import first_line
from ctnet.ops.table import REQUIRED

_OLDEST = (8, 0)
"""compute capability from which Triton multiplies bf16 and TF32"""


class CudaDevice(Accelerator):
    """NVIDIA GPUs. Convolutions choose their algorithm by measuring; products and convolutions may use TF32."""

    name = torch_type = "cuda"
    dispatch_key = "CUDA"
    ddp_backend = "nccl"
    visible_env = "CUDA_VISIBLE_DEVICES"
    fused_optimizer = True

    def probe(self) -> Probe:
        """Count the GPUs that torch sees."""
        if torch.version.cuda is None:
            return Probe(0, "this torch build has no CUDA support")
        count = torch.cuda.device_count()
        if count == 0:
            return Probe(0, "torch finds no GPU or no driver", versions={"CUDA": torch.version.cuda})
        versions = {"CUDA": torch.version.cuda, "cuDNN": str(torch.backends.cudnn.version())}  # type: ignore[no-untyped-call]
        return Probe(count, "", tuple(torch.cuda.get_device_name(i) for i in range(count)), versions)

    def open(self, index: int) -> torch.device:
        """Claim a GPU; allow TF32 and let cuDNN pick algorithms by measuring."""
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cuda.matmul.allow_tf32 = True
        return super().open(index)

    def switches(self) -> dict[str, str]:
        """Return what `open` allows."""
        return {"TF32 in products and convolutions": "allowed", "cudnn.benchmark": "on"}

    def register_kernels(self) -> dict[str, str]:
        """Register the Triton kernels where Triton works, and soft-NMS on the CPU."""
        missing = _why_no_triton()
        if missing is not None:
            return dict.fromkeys(REQUIRED, f"reference ({missing})")
        register(self.dispatch_key, kernels())
        deterministic = "the reference under torch.use_deterministic_algorithms"
        return {
            "deform_conv2d": "Triton (sampled and multiplied in one; float32 by the TF32 switch of convolutions)",
            "deform_conv2d_backward": f"Triton (the map's gradient by atomic additions; {deterministic})",
            "depthwise_upsample": "Triton",
            "depthwise_upsample_backward": "Triton (sums in a fixed order)",
            "roi_align": "Triton",
            "roi_align_backward": f"Triton (the maps' gradients by atomic additions; {deterministic})",
            "decode_peaks": "Triton (the best tiles of the map, then torch's top-k)",
            "nms": "Triton (overlaps as bits, in float64)",
            "soft_nms": host.REASON,
        }

    def fast_dtype(self) -> tuple[torch.dtype | None, str]:
        """Return bf16 from Ampere on, fp16 before."""
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "the GPU multiplies bf16"
        return torch.float16, "the GPU has no bf16; fp16 with loss scaling"


def _why_no_triton() -> str | None:
    """Return in a few words why Triton's kernels cannot run here, or None where they can."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    try:
        from ctnet.devices.cuda import trial

        if torch.cuda.is_available():
            capability = torch.cuda.get_device_capability()
            if capability < _OLDEST:
                return f"Triton's kernels need compute capability 8.0, the GPU has {capability[0]}.{capability[1]}"
            trial.run()
    except Exception as error:  # no compiler, no headers, a driver that does not suit, ...
        return f"Triton does not work here: {first_line(error)}"
    return None


def kernels() -> Kernels:
    """Return the kernels by operator. Raises ImportError without Triton."""
    from ctnet.devices.cuda import deform_conv_backward

    backward = {"deform_conv2d_backward": deform_conv_backward.backward}  # in a file of its own
    return {**kernels_in(__name__), **backward, "soft_nms": host.soft_nms}


def device() -> CudaDevice:
    """Return the plug-in."""
    return CudaDevice()
