"""The cpu device."""

from __future__ import annotations

import torch
from torch import fx, nn

from ctnet.devices.base import Prepared, Probe
from ctnet.devices.cpu.fuse import fuse_layers
from ctnet.devices.cpu.native import select
from ctnet.devices.reduced import ReducedPrecision
from ctnet.devices.torch_device import TorchDevice, kernels_in, register
from ctnet.precision import PrecisionName


class CpuDevice(TorchDevice):
    """The CPU; operators run the compiled kernels where they were built, else the references."""

    name = "cpu"
    fused_optimizer = True

    def probe(self) -> Probe:
        """Say that there is always one."""
        return Probe(1, f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")

    def open(self, index: int) -> torch.device:
        """Return torch's cpu."""
        return torch.device("cpu")

    def fast_dtype(self) -> tuple[torch.dtype | None, str]:
        """Return bf16 where the CPU multiplies it in hardware; elsewhere emulating it is many times slower."""
        if torch.cpu._is_amx_tile_supported():
            return torch.bfloat16, "the CPU has AMX"
        if torch.cpu._is_avx512_bf16_supported():
            return torch.bfloat16, "the CPU has AVX-512 bf16"
        return None, "the CPU has no bf16 instructions"

    def prepare(self, network: nn.Module, where: torch.device, *, precision: PrecisionName, compile: bool) -> Prepared:
        """Do what other devices do, and fuse layers with what follows them, which compiling does otherwise."""
        prepared = super().prepare(network, where, precision=precision, compile=compile)
        if not compile:
            graph = prepared.network.network if isinstance(prepared.network, ReducedPrecision) else prepared.network
            assert isinstance(graph, fx.GraphModule)
            fuse_layers(graph)
        return prepared

    def register_kernels(self) -> dict[str, str]:
        """Register the compiled kernels, if the package has any.

        Raises ConfigError when CTNET_CPU_ISA names an instruction set that the CPU lacks.
        """
        status = select()
        if status.isa is None:
            return dict.fromkeys(KERNELS, f"reference ({status.reason})")
        register(self.dispatch_key, KERNELS)
        return dict.fromkeys(KERNELS, f"{status.isa} ({status.reason})")


KERNELS = kernels_in(__name__)


def device() -> CpuDevice:
    """Return the plug-in."""
    return CpuDevice()
