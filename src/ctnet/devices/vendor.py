"""Finding devices that a vendor's own package adds to torch, whatever the state of that package."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch

from ctnet.devices.base import Probe


def probe_vendor(package: str, load: Callable[[], Any], torch_type: str, install: str) -> Probe:
    """Return what a vendor's package finds; `load` imports it, `install` names its source. Never raises."""
    versions = {}
    try:
        if find_spec(package) is None:
            return Probe(0, f"{package} is not installed ({install})")
        versions[package] = _version(package)
        versions[package] = getattr(load(), "__version__", versions[package])
        module = torch.get_device_module(torch_type)
        count = int(module.device_count()) if module.is_available() else 0
        names = tuple(str(module.get_device_name(i)) for i in range(count))
    except Exception as error:  # a library is missing, a driver does not suit, another accelerator is active, ...
        return Probe(0, f"{package} does not import: {first_line(error)}", versions=versions)
    return Probe(count, "" if count else f"{package} finds no device or no driver", names, versions)


def first_line(error: BaseException) -> str:
    """Return an error's class and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
