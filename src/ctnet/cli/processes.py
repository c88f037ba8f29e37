"""Commands in several processes: started by `--nproc`, by torchrun, or alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from ctnet.cli import options
from ctnet.errors import ConfigError

if TYPE_CHECKING:
    from ctnet.engine.processes.rank_info import RankInfo
    from ctnet.types import Share

Nproc = Annotated[
    str | None,
    options.ProcessOption(metavar="N|auto", help="Share the work among N processes here, one per device; auto: all"),
]
Port = Annotated[
    int | None,
    options.ProcessOption(min=1, max=65535, help="Port where the processes of one machine meet (default: a free one)"),
]
TIMEOUT_S = 600.0


def in_processes(nproc: str | None, device: str, work: Callable[[Share, str], None]) -> None:
    """Call `work(share, device)` alone, or in each of several processes that share the work, with its own device.

    With `nproc` the processes are started and run this command without that option. Raises the error of the first that
    fails.
    """
    from ctnet.engine.processes.failure import reporting
    from ctnet.types import Share

    with reporting() as rank_info:
        if launches(nproc, device, rank_info):
            return
        if rank_info.size == 1:
            work(Share(), device)
            return
        from ctnet.engine.processes.world import process_group

        with process_group(device, rank_info, TIMEOUT_S) as (world, opened):
            work(Share(rank_info.rank, rank_info.size, world.gather), str(opened.torch_device))


def launches(nproc: str | None, device: str, rank_info: RankInfo) -> bool:
    """Run this command in the processes that `--nproc` or a list of devices asks for; return whether it did."""
    if nproc is None and "," not in device:
        return False
    from ctnet.engine.processes.launch import LaunchPlan, launch

    refuse_nested(rank_info)
    launch(LaunchPlan(nproc or "auto", timeout_s=TIMEOUT_S), device, without(sys.argv[1:], ("--nproc",)))
    return True


def refuse_nested(rank_info: RankInfo) -> None:
    """Raise ConfigError in a process that is one of several already."""
    if rank_info.size > 1:
        raise ConfigError("--nproc starts processes, but this is already one of several", hint="leave it out")


def without(words: list[str], flags: tuple[str, ...]) -> list[str]:
    """Return the words of a command line without these flags, given as `--flag VALUE` or `--flag=VALUE`."""
    kept, rest = [], iter(words)
    for word in rest:
        if word in flags:
            next(rest, None)
        elif word.partition("=")[0] not in flags:
            kept.append(word)
    return kept
