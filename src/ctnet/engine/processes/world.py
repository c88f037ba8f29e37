"""Communication between the ranks of a run. A single process is a world of size 1 and communicates with nobody."""

from __future__ import annotations

import gc
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from ctnet.devices import OpenDevice, open_device, open_for_rank
from ctnet.devices.machine import usable_cores
from ctnet.engine.processes.rank_info import RankInfo
from ctnet.errors import ConfigError, CtnetError, LostRanks, ReportedByOtherRank, SilentRanks

T = TypeVar("T")
ALONE = RankInfo()
_ROLL_CALL_S = 2.0


@dataclass(frozen=True)
class World:
    """All ranks of a run. Every method is called by all of them, in the same order."""

    rank_info: RankInfo = ALONE
    control: Any = None  # gloo group for small host messages, so they never queue behind device work

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self.rank_info.size

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which alone writes files and prints."""
        return self.rank_info.leads

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of the ranks' tensors, on their device (all_reduce); the host does not wait."""
        if self.size == 1:
            return tensor
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replace the tensors by their means over the ranks."""
        if self.size > 1 and tensors:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            means = torch.split(self.sum(flat) / self.size, [tensor.numel() for tensor in tensors])
            for tensor, mean in zip(tensors, means, strict=True):
                tensor.copy_(mean.view_as(tensor))

    def largest(self, number: int) -> int:
        """Return the largest of the ranks' numbers."""
        if self.size == 1:
            return number
        value = torch.tensor(number)
        dist.all_reduce(value, dist.ReduceOp.MAX, group=self.control)
        return int(value)

    def gather(self, value: T) -> list[T]:
        """Return the ranks' values in their order, on every rank."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value, group=self.control)
        return values

    def broadcast_from_rank0(self, make: Callable[[], T]) -> T:
        """Return on every rank the result of `make` on rank 0. A CtnetError there ends all ranks; rank 0 reports it."""
        made: list[Any] = [None]
        if self.leads:
            try:
                made = [make()]
            except CtnetError as error:
                made = [error]
        if self.size > 1:
            dist.broadcast_object_list(made, src=0, group=self.control)
        if isinstance(made[0], CtnetError):
            raise made[0] if self.leads else ReportedByOtherRank(made[0])
        result: T = made[0]
        return result

    def run_on_all_ranks(self, work: Callable[[], T]) -> T:
        """Run `work` on every rank and return the local result.

        A CtnetError on any rank ends all of them; the lowest such rank reports it.
        """
        result: Any = None
        failed: CtnetError | None = None
        try:
            result = work()
        except CtnetError as error:
            failed = error
        failures = self.gather(failed)
        for rank, failure in enumerate(failures):
            if failure is not None:
                raise failure if rank == self.rank_info.rank else ReportedByOtherRank(failure)
        return result  # type: ignore[no-any-return]


@contextmanager
def process_group(device: str, rank_info: RankInfo, timeout_s: float) -> Iterator[tuple[World, OpenDevice]]:
    """Open this rank's device and join the process group, which is destroyed at the end of the block.

    Raises ConfigError when MASTER_ADDR:MASTER_PORT cannot be used, LostRanks when ranks die, and SilentRanks when
    they are silent for `timeout_s`.
    """
    if rank_info.size == 1:
        yield World(), open_device(device)
        return
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, usable_cores() // rank_info.local_size))
    opened = open_for_rank(device, rank_info.local_rank, rank_info.local_size)
    wait = timedelta(seconds=timeout_s)
    store = _meet(rank_info, wait)
    try:
        backend = opened.plugin.ddp_backend
        dist.init_process_group(backend, store=store, rank=rank_info.rank, world_size=rank_info.size, timeout=wait)
        control = dist.group.WORLD if backend == "gloo" else dist.new_group(backend="gloo", timeout=wait)
        yield World(rank_info, control), opened
        gc.collect()  # a DDP that outlives its group would deadlock with gloo's threads over the GIL
        dist.destroy_process_group()
    except RuntimeError as error:
        if not _is_lost_contact(error, opened.plugin.ddp_backend):
            raise
        raise _lost(error, rank_info, store, timeout_s) from error


def wrap_ddp(network: nn.Module, world: World, device: OpenDevice, *, accumulates: bool) -> nn.Module:
    """Return the network in DistributedDataParallel, which averages gradients over ranks.

    A single process gets `network` unchanged. Weights and statistics start as those of rank 0; running
    statistics then differ between ranks. `accumulates`: some backward passes run under `no_sync`.
    """
    if world.size == 1:
        return network
    # warned in the first backward pass: gradients of some channels-last weights are contiguous, and are copied
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)  # its new name is unknown to torch 2.7
        return DistributedDataParallel(
            network,
            device_ids=device.plugin.ddp_device_ids(device.torch_device.index or 0),
            broadcast_buffers=False,  # running statistics are linear: they are averaged when they are needed
            gradient_as_bucket_view=True,
            static_graph=not accumulates,  # torch fails when a first pass under no_sync meets a static graph
        )


def _meet(rank_info: RankInfo, wait: timedelta) -> Store:
    """Return the key-value store that all ranks share, at MASTER_ADDR and MASTER_PORT."""
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        store: Store
        store, _, _ = next(rendezvous("env://", rank_info.rank, rank_info.size, timeout=wait))
    except dist.DistError as error:
        if "EADDRINUSE" in str(error):
            raise ConfigError("the port is in use", endpoint=where, hint="name another port") from None
        raise LostRanks("the processes did not meet", endpoint=where, got=str(error).partition("\n")[0]) from error
    # each start has its own prefix in the store, so that keys of dead processes are not read
    return PrefixStore(f"ctnet/start_{rank_info.restart}", store)


def _is_lost_contact(error: RuntimeError, backend: str) -> bool:
    """Return whether an error is one of communication: vendors raise plain RuntimeErrors that name their library."""
    return isinstance(error, dist.DistError) or any(name in str(error).lower() for name in ("gloo", backend))


def _lost(error: RuntimeError, rank_info: RankInfo, store: Store, timeout_s: float) -> CtnetError:
    """Return the error that names the silent ranks, found by a roll call at the store, which outlives any rank."""
    silent = None
    try:
        store.set(f"alive/{rank_info.rank}", "yes")
        time.sleep(_ROLL_CALL_S)
        others = [rank for rank in range(rank_info.size) if not store.check([f"alive/{rank}"])]
        silent = ", ".join(f"rank {rank}" for rank in others) or None
    except RuntimeError:
        pass  # the store is gone, too
    text = str(error)
    if "Timed out waiting" in text or "collective operation timeout" in text:
        return SilentRanks(
            f"rank {rank_info.rank} waited {timeout_s:g} s for the others",
            silent=silent,
            hint="a rank hangs; --timeout gives it more time",
        )
    return LostRanks(
        f"rank {rank_info.rank} lost contact to the others",
        silent=silent,
        got=text.partition("\n")[0].partition(". This is")[0],
    )
