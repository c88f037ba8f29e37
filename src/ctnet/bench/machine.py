"""Facts about the machine, and its rate of matrix products: the limit of every convolution."""

from __future__ import annotations

import platform
from functools import partial
from typing import Any

import torch

from ctnet._version import __version__
from ctnet.bench.timing import Iterations, durations, take_turns
from ctnet.devices import OpenDevice
from ctnet.devices.machine import processor
from ctnet.devices.survey import package_versions

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def precision_name(dtype: torch.dtype | None) -> str:
    """Return fp32, bf16 or fp16; None is float32."""
    return next(name for name, known in DTYPES.items() if known == (dtype or torch.float32))


def describe_machine(device: OpenDevice) -> dict[str, Any]:
    """Return CPU, instruction sets, threads, device and versions, as JSON values."""
    facts = processor()
    return {
        "processor": facts["name"],
        "cores": facts["cores"],
        "instruction_sets": _instruction_sets(),
        "threads": torch.get_num_threads(),
        "device": str(device.torch_device),
        "device_name": _device_name(device.torch_device),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {"ctnet": __version__, **package_versions()},
    }


def matmul_rates(precisions: set[str], device: OpenDevice) -> dict[str, float]:
    """Return the operations a second, in 10^9, of square matrix products in these precisions (`fp32`, ...).

    A multiply-add is two operations. The precisions take turns, and the fastest product counts: it is a limit.
    """
    where = device.torch_device
    size = 2048 if where.type == "cpu" else 8192  # smaller products do not occupy an accelerator

    def product(left: torch.Tensor, right: torch.Tensor) -> None:
        left @ right
        device.plugin.synchronize()

    blocks = {}
    for name in sorted(precisions):
        left, right = (torch.randn(size, size).to(where, DTYPES[name]) for _ in range(2))
        blocks[name] = partial(durations, partial(product, left, right))
    found = take_turns(blocks, Iterations(timed=9, rounds=3))
    return {name: 2 * size**3 / min(seconds) / 1e9 for name, seconds in found.items()}


def _instruction_sets() -> list[str]:
    also = {"AVX512_BF16": torch.cpu._is_avx512_bf16_supported, "AMX": torch.cpu._is_amx_tile_supported}
    return [torch.backends.cpu.get_cpu_capability(), *(name for name, supported in also.items() if supported())]


def _device_name(device: torch.device) -> str | None:
    """Return the vendor's name of the device, None for the CPU."""
    if device.type == "cpu":
        return None
    name: str = torch.get_device_module(device).get_device_name(device)
    return name
