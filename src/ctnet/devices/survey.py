"""What this machine can run: every device, its precision and which kernel is behind every operator."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from ctnet import distribution
from ctnet._version import __version__
from ctnet.devices.machine import limits, processor, torch_build
from ctnet.devices.registry import device_names, load_plugin
from ctnet.devices.vendor import first_line
from ctnet.errors import CtnetError

PACKAGES = (
    "torch", "torch-npu", "torch-sdaa", "triton", "numpy", "opencv-python-headless", "albumentations", "pycocotools",
    "pydantic", "safetensors", "tensorboard", "onnxruntime", "openvino",
)  # fmt: skip
"""of which results, speeds and faults may depend"""
NUMBER_VARIABLES = {
    "CTNET_CPU_ISA": "forces the instruction set of the CPU kernels",
    "OMP_NUM_THREADS": "CPU threads: the order of sums",
    "ATEN_CPU_CAPABILITY": "forces the instruction set of torch's kernels",
    "ONEDNN_MAX_CPU_ISA": "limits the instruction set of oneDNN",
    "ONEDNN_DEFAULT_FPMATH_MODE": "lets oneDNN multiply float32 in fewer bits",
    "NVIDIA_TF32_OVERRIDE": "0 forbids TF32 on NVIDIA GPUs",
    "CUBLAS_WORKSPACE_CONFIG": "makes products on NVIDIA GPUs repeatable",
    "INF_NAN_MODE_ENABLE": "how Ascend NPUs report an overflow",
    "TORCH_SDAA_CONV_USE_FP32": "1 keeps float32 convolutions on SDAA devices in float32",
    "TORCH_SDAA_CONV2D_BACKWARD_USE_FP32": "1 keeps their gradients in float32",
    "TORCH_SDAA_BF16_CLIP": "bf16 on SDAA devices is clipped to the range of fp16",
}
"""variables that change numbers, and how"""
OTHER_VARIABLES = (
    "CTNET_HOME", "ASCEND_HOME_PATH", "ASCEND_LAUNCH_BLOCKING", "TASK_QUEUE_ENABLE", "TORCH_NPU_FALLBACK_CPU_DISABLE",
    "TORCH_SDAA_RUNTIME_AUTOFALLBACK", "TORCH_SDAA_FALLBACK_OPS",
)  # fmt: skip
_GROUPS_OF_EXTRAS = ("all", "test", "dev")


def survey() -> dict[str, Any]:
    """Return versions, devices with their kernels, limits and the environment variables that matter, as JSON values.

    A device that does not load is reported with its reason; nothing is raised.
    """
    devices = {name: _device(name) for name in device_names()}
    visible = sorted({device["visible_env"] for device in devices.values() if device.get("visible_env")})
    return {
        "schema": "ctnet.doctor/1",
        "ctnet": __version__,
        "distribution": distribution.describe(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": processor(),
        "torch": torch_build(),
        "devices": devices,
        "packages": package_versions(),
        "extras": _extras(),
        "limits": limits(),
        "variables": {
            name: {"value": os.environ[name], "changes": NUMBER_VARIABLES.get(name)}
            for name in (*NUMBER_VARIABLES, *visible, *OTHER_VARIABLES)
            if name in os.environ
        },
    }


def package_versions() -> dict[str, str | None]:
    """Return the version of each package that matters to results, None for one that is not installed."""
    return {name: installed_version(name) for name in PACKAGES}


def installed_version(package: str) -> str | None:
    """Return the version of an installed package, None for one that is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _extras() -> dict[str, dict[str, Any]]:
    """Return per extra of ctnet its missing packages and the command that installs them."""
    found: dict[str, dict[str, Any]] = {}
    try:
        lines = requires(distribution.NAME) or []
    except PackageNotFoundError:  # run from a folder of sources
        return {}
    for line in lines:
        package = re.match(r"[\w.-]+", line)
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)", line)
        if package is None or extra is None or extra[1] in _GROUPS_OF_EXTRAS:
            continue
        entry = found.setdefault(extra[1], {"missing": [], "install": distribution.install_command(extra[1])})
        if installed_version(package[0]) is None:
            entry["missing"].append(package[0])
    return found


def _device(name: str) -> dict[str, Any]:
    """Return the facts about a device; plug-ins must not raise, but third-party ones may."""
    try:
        plugin = load_plugin(name)
        probe = plugin.probe()
        found: dict[str, Any] = {
            "count": probe.count,
            "reason": probe.reason,
            "device_names": list(probe.device_names),
            "versions": dict(probe.versions),
            "visible_env": plugin.visible_env,
        }
        if probe.count:
            dtype, why = plugin.fast_dtype()
            found["precision"] = "float32" if dtype is None else str(dtype).removeprefix("torch.")
            found["precision_reason"] = why
            found["ddp_backend"] = plugin.ddp_backend
            found["static_shapes"] = plugin.static_shapes
            found["switches"] = plugin.switches()
            found["kernels"] = plugin.register_kernels()
    except CtnetError as error:
        return {"count": 0, "reason": str(error)}
    except Exception as error:
        return {"count": 0, "reason": f"the plug-in fails: {first_line(error)}"}
    return found
