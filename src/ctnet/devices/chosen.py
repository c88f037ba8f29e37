"""Lists of devices, such as `npu:0,1,4`: the vendor's variable shows them to the processes, and no others."""

from __future__ import annotations

import os
from typing import NamedTuple

from ctnet.devices.registry import load_plugin
from ctnet.errors import ConfigError, DeviceUnavailable


class Listed(NamedTuple):
    """The name of a kind of device and the numbers of some, in rising order."""

    name: str
    indices: tuple[int, ...]


def listed(spec: str) -> Listed | None:
    """Return the list in `NAME:I,J,...`, None where there is none. Raises ConfigError for one that is no list."""
    name, _, numbers = spec.partition(":")
    if "," not in numbers:
        return None
    words = numbers.split(",")
    if not all(word.isdecimal() and len(word) < 6 for word in words):
        raise ConfigError("a list of devices looks like NAME:0,1,4", got=spec)
    indices = tuple(sorted(int(word) for word in words))
    if len(set(indices)) < len(indices):
        raise ConfigError("a list of devices names each once", got=spec)
    return Listed(name, indices)


def show_only(chosen: Listed) -> dict[str, str]:
    """Return the variable that shows these devices alone to processes that start with it.

    Numbers are those of `ctnet doctor`: relative to the variable where it is set already. Raises ConfigError for a kind
    of device without such a variable, DeviceUnavailable for numbers that this machine lacks.
    """
    plugin = load_plugin(chosen.name)
    if plugin.visible_env is None:
        raise ConfigError(
            f"{chosen.name} has no devices to choose among", got=f"{chosen.name}:{_words(chosen.indices)}"
        )
    probe, before = plugin.probe(), os.environ.get(plugin.visible_env)
    missing = [index for index in chosen.indices if index >= probe.count]
    if missing:
        facts = {} if before is None else {plugin.visible_env: before}
        raise DeviceUnavailable(
            f"no {chosen.name} device number {_words(missing)}", found=probe.count, reason=probe.reason or None, **facts
        )
    visible = before.split(",") if before else [str(index) for index in range(probe.count)]
    return {plugin.visible_env: ",".join(visible[index].strip() for index in chosen.indices)}


def _words(indices: tuple[int, ...] | list[int]) -> str:
    return ",".join(map(str, indices))
