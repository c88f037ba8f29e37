"""The npu device: Huawei's Ascend NPUs through torch_npu, which needs CANN on the machine."""

from __future__ import annotations

from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ctnet.devices import fixed_sizes, host
from ctnet.devices.base import Probe
from ctnet.devices.npu.scaler import TO_LOG, portable
from ctnet.devices.torch_device import Accelerator, kernels_in, register
from ctnet.devices.vendor import probe_vendor
from ctnet.errors import ConfigError

_INSTALL = "pip install torch_npu, on a machine with CANN; its version is that of torch"
_AUTOLOAD = "for other programs TORCH_DEVICE_BACKEND_AUTOLOAD=0 keeps torch from loading it"


class NpuDevice(Accelerator):
    """Ascend NPUs. Every new input size may cost a compilation, and there is no channels-last memory format."""

    name = torch_type = "npu"
    dispatch_key = "PrivateUse1"
    ddp_backend = "hccl"
    visible_env = "ASCEND_RT_VISIBLE_DEVICES"
    static_shapes = True
    channels_last = False

    def probe(self) -> Probe:
        """Count the devices of torch_npu; if the import fails, the reason names the variable to set."""
        found = probe_vendor("torch_npu", _torch_npu, "npu", _INSTALL)
        if "does not import" not in found.reason:
            return found
        return Probe(0, f"{found.reason} (is CANN's set_env.sh sourced? {_AUTOLOAD})", versions=found.versions)

    def open(self, index: int) -> torch.device:
        """Claim a device; prefer operators that are compiled already and plain memory layouts."""
        torch_npu = _torch_npu()
        torch_npu.npu.set_compile_mode(jit_compile=False)
        torch_npu.npu.config.allow_internal_format = False
        return super().open(index)

    def switches(self) -> dict[str, str]:
        """Return what `open` sets."""
        return {"jit_compile": "False", "allow_internal_format": "False"}

    def autocast_dtypes(self) -> tuple[torch.dtype, ...]:
        """Return what the chip has: bf16 on newer ones, fp16 on all."""
        supported = _torch_npu().npu.get_amp_supported_dtype()
        return tuple(dtype for dtype in (torch.bfloat16, torch.float16) if dtype in supported)

    def fast_dtype(self) -> tuple[torch.dtype | None, str]:
        """Return bf16 where the chip has it, else fp16."""
        if torch.bfloat16 in self.autocast_dtypes():
            return torch.bfloat16, "the chip multiplies bf16"
        return torch.float16, "the chip has no bf16; fp16 with loss scaling"

    def grad_scaler(self, *, enabled: bool) -> torch.amp.GradScaler:
        """Return the vendor's scaler: older chips report an overflow by a flag and not by infinite gradients."""
        if not enabled:
            return super().grad_scaler(enabled=False)
        with redirect_stdout(TO_LOG):
            return portable(_torch_npu().npu.amp.GradScaler)()

    def register_kernels(self) -> dict[str, str]:
        """Register the vendor's deformable convolution and RoIAlign, peaks of fixed sizes and NMS on the CPU."""
        register(self.dispatch_key, kernels_in(__name__) | fixed_sizes.KERNELS | host.KERNELS)
        return {
            "deform_conv2d": "torch_npu (npu_deformable_conv2d, in float32)",
            "deform_conv2d_backward": "torch_npu (npu_deformable_conv2dbk, in float32)",
            "depthwise_upsample": "torch (grouped transposed convolution)",
            "depthwise_upsample_backward": "torch (grouped transposed convolution)",
            "roi_align": "torch_npu (npu_roi_align, a call a level, in float32)",
            "roi_align_backward": "torch_npu (npu_roi_alignbk, a call a level, in float32)",
            "decode_peaks": fixed_sizes.REASON,
            **dict.fromkeys(host.KERNELS, host.REASON),
        }

    def profiler(self, folder: Path, wait: int, warmup: int, recorded: int) -> Any:
        """Return the vendor's profiler, which alone sees work on the NPU; MindStudio and TensorBoard open its files."""
        profiler = _torch_npu().profiler
        return profiler.profile(
            activities=[profiler.ProfilerActivity.CPU, profiler.ProfilerActivity.NPU],
            schedule=profiler.schedule(wait=wait, warmup=warmup, active=recorded, repeat=1, skip_first=0),
            on_trace_ready=profiler.tensorboard_trace_handler(str(folder)),
            record_shapes=True,
        )

    def compile(self, network: nn.Module) -> nn.Module:
        """Raise ConfigError: no graph compiler of the vendor knows the deformable convolution."""
        raise ConfigError(
            "npu does not compile networks",
            reason="no graph compiler of the vendor knows the deformable convolution",
            hint="leave --compile out",
        )


def _torch_npu() -> Any:
    import torch_npu

    return torch_npu


def device() -> NpuDevice:
    """Return the plug-in."""
    return NpuDevice()
