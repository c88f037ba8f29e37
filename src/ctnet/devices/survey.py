"""What this machine can run: every device, its precision and which kernel is behind every operator."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ctnet._version import __version__
from ctnet.devices.registry import device_names, load_plugin
from ctnet.errors import CtnetError

PACKAGES = (
    "torch", "torch-npu", "torch-sdaa", "numpy", "opencv-python-headless", "albumentations", "pycocotools", "pydantic",
    "safetensors", "tensorboard",
)  # fmt: skip
VARIABLES = ("CTNET_HOME", "CTNET_CPU_ISA", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "TORCH_DEVICE_BACKEND_AUTOLOAD")


def survey() -> dict[str, Any]:
    """Return the versions, the devices with their kernels, and the environment variables that matter, as JSON values.

    A device that does not load is reported with its reason; nothing is raised.
    """
    return {
        "schema": "ctnet.doctor/1",
        "ctnet": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {name: installed_version(name) for name in PACKAGES},
        "devices": {name: _device(name) for name in device_names()},
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def installed_version(package: str) -> str | None:
    """Return the version of an installed package, None for one that is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device(name: str) -> dict[str, Any]:
    try:
        plugin = load_plugin(name)
        probe = plugin.probe()
        found: dict[str, Any] = {"count": probe.count, "reason": probe.reason}
        if probe.count:
            dtype, why = plugin.fast_dtype()
            found["precision"] = "float32" if dtype is None else str(dtype).removeprefix("torch.")
            found["precision_reason"] = why
            found["kernels"] = plugin.register_kernels() or {"all": "reference (this device brings none of its own)"}
    except CtnetError as error:
        return {"count": 0, "reason": str(error)}
    return found
