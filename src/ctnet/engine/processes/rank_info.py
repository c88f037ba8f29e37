"""Rank and size of this process in a run, from the environment variables of torch's launchers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ctnet.errors import ConfigError

ROLE = "ctnet"  # the role that `ctnet train --nproc` gives its processes
LAUNCHER = "CTNET_LAUNCHER"  # its process, in the environment of those that it starts
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
_NEEDED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class RankInfo:
    """One of `size` processes, `local_size` of them on this machine; both ranks count from 0."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    restart: int = 0  # number of restarts so far
    restarts: int = 0  # largest number of restarts
    launched: bool = False  # by `ctnet train --nproc`, not by torchrun or by hand
    launcher: int | None = None  # the process of ctnet's launcher or torchrun, which this one ends with

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes the run folder and prints."""
        return self.rank == 0


def find_rank_info(environment: Mapping[str, str] | None = None) -> RankInfo:
    """Return the rank that the environment sets; without WORLD_SIZE, or with 1, that of a single process.

    Raises ConfigError when WORLD_SIZE comes without what torchrun sets beside it.
    """
    given = os.environ if environment is None else environment
    size = _number(given, "WORLD_SIZE", 1)
    under_torchrun = os.getppid() if "TORCHELASTIC_RUN_ID" in given else 0
    launcher = _number(given, LAUNCHER, under_torchrun) or None
    if size == 1:
        return RankInfo(launcher=launcher)
    missing = [name for name in _NEEDED if name not in given]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {size}, but {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set",
            hint="let ctnet train --nproc N or torchrun start the processes, or unset WORLD_SIZE",
        )
    rank = _number(given, "RANK", 0)
    if not 0 <= rank < size:
        raise ConfigError("RANK must be from 0 to WORLD_SIZE - 1", got=rank, WORLD_SIZE=size)
    return RankInfo(
        rank=rank,
        size=size,
        local_rank=_number(given, "LOCAL_RANK", 0),
        local_size=_number(given, "LOCAL_WORLD_SIZE", size),
        restart=_number(given, "TORCHELASTIC_RESTART_COUNT", 0),
        restarts=_number(given, "TORCHELASTIC_MAX_RESTARTS", 0),
        launched=given.get("ROLE_NAME") == ROLE,
        launcher=launcher,
    )


def _number(given: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(given.get(name) or default)
    except ValueError:
        raise ConfigError(f"the environment variable {name} is not a number", got=given[name]) from None
