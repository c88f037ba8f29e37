"""Finding devices by name through the entry points `ctnet.devices`."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

import torch

from ctnet.devices.base import Device
from ctnet.errors import ConfigError, DeviceUnavailable

GROUP = "ctnet.devices"


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
    """Return the device that `NAME` or `NAME:INDEX` asks for, its kernels registered.

    `auto` takes the first accelerator that is there, else the cpu. Raises ConfigError for an unknown name and
    DeviceUnavailable when this machine lacks what was asked for.
    """
    if spec == "auto":
        return _open_best()
    name, colon, index_text = spec.partition(":")
    if colon and not index_text.isdecimal():
        raise ConfigError("a device looks like NAME or NAME:INDEX", got=spec)
    plugin = load_plugin(name)
    probe = plugin.probe()
    index = int(index_text or 0)
    if probe.count == 0:
        raise DeviceUnavailable(f"no {name} device on this machine", reason=probe.reason)
    if index >= probe.count:
        raise DeviceUnavailable(f"no {name} device number {index}", found=probe.count)
    plugin.register_kernels()
    return OpenDevice(plugin, plugin.open(index), "asked for")


def open_for_rank(spec: str, local_rank: int, processes: int) -> OpenDevice:
    """Return the device of one of several processes on this machine: each has a card, or all share the one device.

    Raises ConfigError and DeviceUnavailable as `open_device` does, also when there are fewer cards than processes.
    """
    plugin = device_for_processes(spec, processes)
    shared = plugin.ddp_device_ids(0) is None
    opened = open_device(plugin.name if shared else f"{plugin.name}:{local_rank}")
    return OpenDevice(opened.plugin, opened.torch_device, _best_name()[1] if spec == "auto" else "asked for")


def device_for_processes(spec: str, processes: int) -> Device:
    """Return the plug-in that `NAME` or `auto` means, once it is known to suffice for so many processes."""
    if ":" in spec:
        raise ConfigError("each process takes a card of its own", got=f"--device {spec}", expected="a name alone")
    plugin = load_plugin(_best_name()[0] if spec == "auto" else spec)
    probe = plugin.probe()
    if probe.count == 0:
        raise DeviceUnavailable(f"no {plugin.name} device on this machine", reason=probe.reason)
    if processes > probe.count and plugin.ddp_device_ids(0) is not None:
        raise DeviceUnavailable(
            f"{processes} processes need as many {plugin.name} cards", found=probe.count, hint="lower --nproc"
        )
    return plugin


def _open_best() -> OpenDevice:
    name, reason = _best_name()
    opened = open_device(name)
    return OpenDevice(opened.plugin, opened.torch_device, reason)


def _best_name() -> tuple[str, str]:
    for name in [n for n in device_names() if n != "cpu"]:
        if load_plugin(name).probe().count:
            return name, "first accelerator found"
    return "cpu", "no accelerator found"


def load_plugin(name: str) -> Device:
    """Return the plug-in of that name. Raises ConfigError for an unknown one, DeviceUnavailable for a broken one."""
    points: list[EntryPoint] = list(entry_points(group=GROUP, name=name))
    if not points:
        names = device_names()
        close = difflib.get_close_matches(name, names, n=1)
        raise ConfigError(f"unknown device {name!r}", known=", ".join(names), nearest=close[0] if close else None)
    try:
        plugin: Device = points[0].load()()
    except Exception as error:  # a broken plug-in must not take the command line down with a traceback
        raise DeviceUnavailable(f"the plug-in of device {name!r} does not load", reason=error) from error
    return plugin
