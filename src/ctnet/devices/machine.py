"""The machine around the devices: CPU, torch's build, shared memory, open files."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Any

import torch

_INSTRUCTIONS = (
    "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16",
    "asimd", "asimdhp", "sve", "bf16", "i8mm",
)  # fmt: skip


def processor() -> dict[str, Any]:
    """Return the CPU's name, cores and those of its instruction sets that matter here."""
    facts = _cpuinfo()
    flags = facts.get("flags", facts.get("Features", "")).split()
    return {
        "name": facts.get("model name", platform.processor() or platform.machine()),
        "architecture": platform.machine(),
        "cores": usable_cores(),
        "instructions": [name for name in _INSTRUCTIONS if name in flags],
        "torch_uses": torch.backends.cpu.get_cpu_capability(),
    }


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpuinfo() -> dict[str, str]:
    """Return the facts of the first CPU from /proc/cpuinfo; empty elsewhere."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def torch_build() -> dict[str, Any]:
    """Return what this torch was built with."""
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "mkl": torch.backends.mkl.is_available(),  # type: ignore[no-untyped-call]
        "onednn": torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
        "openmp": torch.backends.openmp.is_available(),  # type: ignore[no-untyped-call]
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def limits() -> dict[str, Any]:
    """Return what loader processes run out of: bytes of shared memory and open files; None where it is not known."""
    return {"shared_memory": _shared_memory(), "open_files": _open_files()}


def _shared_memory() -> dict[str, int] | None:
    try:
        usage = shutil.disk_usage("/dev/shm")
    except OSError:
        return None
    return {"bytes": usage.total, "free": usage.free}


def _open_files() -> dict[str, int] | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {"limit": soft, "highest": hard}
