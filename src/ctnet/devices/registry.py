"""Finding devices by name through the entry points `ctnet.devices`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

import torch

from ctnet.devices.base import Device
from ctnet.devices.host_math import settle_host_math
from ctnet.devices.vendor import first_line
from ctnet.errors import ConfigError, DeviceUnavailable, nearest

GROUP = "ctnet.devices"
_ALSO_CALLED = {"gpu": "cuda", "nvidia": "cuda", "ascend": "npu", "tecorigin": "sdaa", "host": "cpu"}


@dataclass(frozen=True)
class OpenDevice:
    """A device claimed for this process: the plug-in, torch's handle, and why it was chosen."""

    plugin: Device
    torch_device: torch.device
    reason: str


def device_names() -> list[str]:
    """Return the names of all installed device plug-ins."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def open_device(spec: str = "auto") -> OpenDevice:
    """Return the device `NAME` or `NAME:INDEX` with its kernels registered.

    `auto` takes the first accelerator that is there, else the cpu. Raises ConfigError for an unknown name and
    DeviceUnavailable when this machine lacks what was requested.
    """
    if spec == "auto":
        return _open_best()
    name, colon, index_text = spec.partition(":")
    if colon and not index_text.isdecimal():
        raise ConfigError("a device looks like NAME or NAME:INDEX", got=spec)
    return _open(name, int(index_text or 0), "as requested")


def _open(name: str, index: int, reason: str) -> OpenDevice:
    plugin = load_plugin(name)
    probe = plugin.probe()
    if probe.count == 0:
        raise DeviceUnavailable(
            f"no {name} device on this machine", reason=probe.reason, hint="ctnet doctor shows what there is"
        )
    if index >= probe.count:
        chosen = None if plugin.visible_env is None else os.environ.get(plugin.visible_env)
        facts = {} if chosen is None else {str(plugin.visible_env): chosen}
        raise DeviceUnavailable(f"no {name} device number {index}", found=probe.count, **facts)
    settle_host_math()
    load_plugin("cpu").register_kernels()  # NMS of several scales runs on the CPU, whatever the device
    where = plugin.open(index)
    plugin.register_kernels()  # after the device is claimed: a trial of a kernel must not allocate on another one
    return OpenDevice(plugin, where, reason)


def open_for_rank(spec: str, local_rank: int, processes: int) -> OpenDevice:
    """Return the device of one of several processes on this machine: each has a device, or all share the one device.

    Raises ConfigError and DeviceUnavailable as `open_device` does, also when there are fewer devices than processes.
    """
    plugin = device_for_processes(spec, processes)
    shared = plugin.ddp_device_ids(0) is None
    opened = open_device(plugin.name if shared else f"{plugin.name}:{local_rank}")
    return OpenDevice(opened.plugin, opened.torch_device, _best_name()[1] if spec == "auto" else "as requested")


def device_for_processes(spec: str, processes: int) -> Device:
    """Return the plug-in of `NAME` or `auto`, after checking that it has enough devices for the processes."""
    if ":" in spec:
        raise ConfigError("each process needs its own device", got=f"--device {spec}", expected="a name alone")
    plugin = load_plugin(_best_name()[0] if spec == "auto" else spec)
    probe = plugin.probe()
    if probe.count == 0:
        raise DeviceUnavailable(f"no {plugin.name} device on this machine", reason=probe.reason)
    if processes > probe.count and plugin.ddp_device_ids(0) is not None:
        raise DeviceUnavailable(
            f"{processes} processes need as many {plugin.name} devices", found=probe.count, hint="lower --nproc"
        )
    return plugin


def _open_best() -> OpenDevice:
    name, reason = _best_name()
    return _open(name, 0, reason)


def _best_name() -> tuple[str, str]:
    """Return the first accelerator that is there; vendors' before cuda, for which their packages can answer."""
    broken = []
    for name in sorted(set(device_names()) - {"cpu"}, key=lambda name: (name == "cuda", name)):
        try:
            count = load_plugin(name).probe().count
        except Exception as error:  # a broken plug-in must not stop users who did not name it
            broken.append(f"; {name}: {first_line(error)}")
            continue
        if count:
            return name, "first accelerator found"
    return "cpu", "no accelerator found" + "".join(broken)


def load_plugin(name: str) -> Device:
    """Return the plug-in of that name.

    Raises ConfigError for an unknown name and for one that two packages claim, DeviceUnavailable for a plug-in that
    does not load.
    """
    points: list[EntryPoint] = list(entry_points(group=GROUP, name=name))
    if not points:
        names = device_names()
        close = _ALSO_CALLED.get(name.casefold()) or (f"cuda:{name}" if name.isdecimal() else nearest(name, names, 0.5))
        raise ConfigError(f"unknown device {name!r}", known=", ".join(names), nearest=close)
    if len({point.value for point in points}) > 1:
        claims = ", ".join(sorted(f"{_package(point)} ({point.value})" for point in points))
        raise ConfigError(f"two plug-ins are called {name!r}", packages=claims, hint="uninstall one of them")
    try:
        plugin: Device = points[0].load()()
    except Exception as error:  # a broken plug-in must not take the command line down with a traceback
        reason = f"{type(error).__name__}: {error}"
        raise DeviceUnavailable(
            f"the plug-in of device {name!r} does not load", package=_package(points[0]), reason=reason
        ) from error
    return plugin


def _package(point: EntryPoint) -> str:
    return "unknown package" if point.dist is None else f"{point.dist.name} {point.dist.version}"
