"""Processes that share a training: a sum over all of them, and gradients that are means."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from ctnet.devices.conformance.result import Check, need
from ctnet.devices.registry import open_device

_TIMEOUT = timedelta(seconds=120)


def process_checks(name: str, processes: int) -> Iterator[tuple[str, Check]]:
    """Yield the check of this many processes, each on its own device while there are enough."""
    yield f"all-reduce and DDP, {processes} process" + "es" * (processes > 1), partial(_together, name, processes)


def _together(name: str, processes: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "store"
        spawn(_member, (name, processes, str(meeting)), nprocs=processes)  # type: ignore[no-untyped-call]
    return "sums and gradients equal"


def _member(rank: int, name: str, processes: int, meeting: str) -> None:
    torch.set_num_threads(1)
    count = open_device(name).plugin.probe().count
    device = open_device(f"{name}:{rank % count}")
    dist.init_process_group(
        device.plugin.ddp_backend,
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=processes,
        timeout=_TIMEOUT,
    )
    try:
        _sum_and_mean(rank, processes, device.torch_device)
    finally:
        dist.destroy_process_group()


def _sum_and_mean(rank: int, processes: int, device: torch.device) -> None:
    """Check both; on return nothing of DDP is left, which would wait for the group's threads while they wait for it."""
    total = torch.full((3,), float(rank + 1), device=device)
    dist.all_reduce(total)
    need(total.cpu().tolist() == [processes * (processes + 1) / 2] * 3, f"the sum is {total.cpu().tolist()}")
    torch.manual_seed(rank)  # DDP sends rank 0's weights to all
    shared = DistributedDataParallel(nn.Linear(2, 1, bias=False).to(device))
    shared(torch.full((1, 2), float(rank), device=device)).sum().backward()
    mean = sum(range(processes)) / processes
    gradient = next(shared.parameters()).grad
    need(gradient is not None and gradient.cpu().tolist() == [[mean, mean]], f"the mean gradient is {gradient}")
