"""`ctnet train --nproc N`: run torch's elastic launcher in this process and report its failures."""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ctnet.config import Recipe
from ctnet.devices import device_for_processes
from ctnet.devices.chosen import listed, show_only
from ctnet.engine.processes.failure import cause
from ctnet.engine.processes.rank_info import LAUNCHER, ROLE
from ctnet.engine.report import Silence
from ctnet.engine.run_folder import new_run_folder, run_to_resume
from ctnet.engine.train import check_data, open_data
from ctnet.errors import ConfigError, LostRanks
from ctnet.files import read_file, remove_leftovers, temporary_ending
from ctnet.limits import TEXT_BYTES, parse_json


@dataclass(frozen=True)
class LaunchPlan:
    """Which processes to start: `nproc` (a number, or `auto` for all devices) on each of `nnodes` machines."""

    nproc: str
    nnodes: int = 1
    node_rank: int = 0
    rdzv_endpoint: str | None = None
    max_restarts: int = 0
    timeout_s: float = 600.0
    port: int | None = None

    def processes(self, device: str) -> int:
        """Return the number of processes here. Raises ConfigError or DeviceUnavailable when there cannot be so many."""
        if chosen := listed(device):
            show_only(chosen)  # raises for devices that are not there
            if self.nproc not in ("auto", str(len(chosen.indices))):
                raise ConfigError(
                    "each process has one device", got=f"--nproc {self.nproc} --device {device}",
                    hint=f"--nproc {len(chosen.indices)}, or leave it out",
                )  # fmt: skip
            return len(chosen.indices)
        if self.nproc == "auto":
            return device_for_processes(device, 1).probe().count
        if not self.nproc.isdecimal() or int(self.nproc) < 1:
            raise ConfigError("--nproc takes a number from 1 on, or auto", got=self.nproc)
        device_for_processes(device, int(self.nproc))
        return int(self.nproc)

    def check(self) -> None:
        """Raise ConfigError unless the nodes can find each other."""
        if not 0 <= self.node_rank < self.nnodes:
            raise ConfigError("--node-rank must be from 0 to --nnodes - 1", got=self.node_rank, nnodes=self.nnodes)
        if self.nnodes > 1 and (self.rdzv_endpoint is None or not self.rdzv_endpoint.rpartition(":")[2].isdecimal()):
            raise ConfigError(
                "several nodes meet at --rdzv-endpoint HOST:PORT, an address of the first node",
                got=self.rdzv_endpoint,
            )
        if self.nnodes > 1 and self.port is not None:
            raise ConfigError("--port is for one machine; several meet at --rdzv-endpoint HOST:PORT", got=self.port)


def folder_to_fill(plan: LaunchPlan, recipe: Recipe, out: Path | None) -> Path | None:
    """Return the folder of a new run: it stays the same when processes are restarted. The first node chooses it.

    Raises DataError when the recipe's data cannot be used: better now, once, than in every process.
    """
    _, train_set, val_set = open_data(recipe, Silence())
    check_data(recipe, train_set, val_set, Silence())
    if plan.node_rank:
        return out
    with new_run_folder(recipe.name, out) as folder:  # rank 0 holds it from its start on
        return folder


def folder_to_resume(plan: LaunchPlan, run: Path | None) -> Path | None:
    """Return the folder to continue, None being the newest. The first node chooses it."""
    if plan.node_rank:
        return run
    with run_to_resume(run) as folder:
        return folder


def launch(plan: LaunchPlan, device: str, command: Sequence[str]) -> None:
    """Run `ctnet COMMAND...` in all processes and return when they are done.

    Raises the error of the first rank that failed, RankFailed when one was killed, ConfigError when the processes
    cannot meet, and SystemExit after a signal.
    """
    plan.check()
    processes = plan.processes(device)
    refuse_rank_table(processes * plan.nnodes)
    shown: dict[str, str] = {}
    if chosen := listed(device):
        shown = show_only(chosen)
        command = [*_without_device(command), "--device", chosen.name]
    remove_leftovers(Path(tempfile.gettempdir()), ".ctnet-launch-*")
    reports_folder = tempfile.TemporaryDirectory(prefix=".ctnet-launch-", suffix=temporary_ending())
    with _started(plan, shown), reports_folder as reports:
        try:
            config = LaunchConfig(
                min_nodes=plan.nnodes,
                max_nodes=plan.nnodes,
                nproc_per_node=processes,
                run_id=uuid.uuid4().hex if plan.nnodes == 1 else "ctnet",
                role=ROLE,
                max_restarts=plan.max_restarts,
                logs_specs=DefaultLogsSpecs(log_dir=reports),
                **_rendezvous(plan),
            )
            elastic_launch(config, sys.executable)("-m", "ctnet", *command)
        except ChildFailedError as error:
            raise cause(error.failures) from None
        except SignalException as stop:
            raise SystemExit(128 + stop.sigval) from None
        except (dist.DistError, RendezvousError) as error:
            raise _not_met(plan, error) from None


@contextmanager
def _started(plan: LaunchPlan, shown: Mapping[str, str]) -> Iterator[None]:
    """Silence the log of torch's launcher; with restarts, keep its errors, which name the processes that died.

    The processes that it starts know this one by its number, and end when it does; they see the devices that `shown`
    sets in the environment.
    """
    before = {name: os.environ.get(name) for name in shown}
    os.environ |= shown
    logging.disable(logging.WARNING if plan.max_restarts else logging.ERROR)
    os.environ[LAUNCHER] = str(os.getpid())
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        os.environ.pop(LAUNCHER, None)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _without_device(command: Sequence[str]) -> list[str]:
    kept, rest = [], iter(command)
    for word in rest:
        if word == "--device":
            next(rest, None)
        elif not word.startswith("--device="):
            kept.append(word)
    return kept


def refuse_rank_table(processes: int) -> None:
    """Raise ConfigError for a table of ranks of Huawei's launchers, which says the same as options of ctnet."""
    file = os.environ.get("RANK_TABLE_FILE")
    if not file:
        return
    try:
        table = parse_json(read_file(Path(file), TEXT_BYTES))
        servers = [(str(server["server_id"]), [int(one["device_id"]) for one in server["device"]])
                   for server in table["server_list"]]  # fmt: skip
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError("RANK_TABLE_FILE names no table of ranks", file=file, got=repr(error)[:200]) from None
    nodes = len(servers)
    here = [(number, devices) for number, (address, devices) in enumerate(servers) if _is_here(address)]
    number, devices = here[0] if here else (0, servers[0][1] if servers else [])
    say = f"--device npu:{','.join(map(str, sorted(devices)))}" if len(devices) > 1 else "--nproc 1"
    if nodes > 1:
        say += f" --nnodes {nodes} --node-rank {number} --rdzv-endpoint {servers[0][0]}:29500"
    where = "" if here else "; no server in it is this machine"
    raise ConfigError(
        f"RANK_TABLE_FILE is for launchers that start each process by hand{where}", file=file,
        table=f"{sum(len(devices) for _, devices in servers)} devices on {nodes} machines", processes=processes,
        hint=f"unset RANK_TABLE_FILE; the same is said by {say}",
    )  # fmt: skip


def _is_here(address: str) -> bool:
    """Return whether an address is one of this machine."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
        return True
    except (OSError, UnicodeError):
        return False


def _rendezvous(plan: LaunchPlan) -> dict[str, Any]:
    if plan.nnodes == 1:
        return {
            "rdzv_backend": "c10d",
            "rdzv_endpoint": f"localhost:{plan.port or 0}",
            "rdzv_configs": {"is_host": True},
        }
    # static: ranks follow node ranks, so that rank 0, which writes the run folder, is where the user expects it
    return {
        "rdzv_backend": "static",
        "rdzv_endpoint": plan.rdzv_endpoint,
        "rdzv_configs": {"rank": plan.node_rank, "timeout": int(plan.timeout_s)},
    }


def _not_met(plan: LaunchPlan, error: Exception) -> Exception:
    if "EADDRINUSE" in f"{error} {error.__cause__}":
        where = plan.rdzv_endpoint or f"localhost:{plan.port}"
        return ConfigError("the port is in use", endpoint=where, hint="another --port, or another --rdzv-endpoint")
    return LostRanks(
        "the nodes did not meet", endpoint=plan.rdzv_endpoint, got=str(error).partition("\n")[0],
        hint="is the first node (--node-rank 0) running, and reachable there?",
    )  # fmt: skip
