"""A backend of torch.distributed under the vendor's name; gloo does the work on the host's numbers."""

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import _create_work_from_future

from emulation.tensor import CALLS, CardTensor


def register(backend: str, name: str) -> None:
    def create(store, rank, size, timeout):
        return _Group(backend, store, rank, size, timeout)

    dist.Backend.register_backend(backend, create, devices=[name])


def _done(value):
    future = torch.futures.Future()
    future.set_result(value)
    return _create_work_from_future(future)


class _Group(dist.ProcessGroup):
    def __init__(self, backend, store, rank, size, timeout):
        super().__init__(rank, size)
        self.backend = backend
        self.gloo = dist.ProcessGroupGloo(store, rank, size, timeout=timeout)

    def getBackendName(self):
        return self.backend

    def _hosts(self, tensors):
        CALLS[f"{self.backend} collective"] += 1
        for tensor in tensors:
            if not isinstance(tensor, CardTensor):
                raise RuntimeError(f"{self.backend} takes tensors on the card only")
        return [tensor.host.contiguous() for tensor in tensors]

    @staticmethod
    def _back(tensors, hosts):
        for tensor, host in zip(tensors, hosts, strict=True):
            tensor.host.copy_(host)

    def allreduce(self, tensors, opts=None):
        hosts = self._hosts(tensors)
        self.gloo.allreduce(hosts, opts or dist.AllreduceOptions()).wait()
        self._back(tensors, hosts)
        return _done(tensors)

    def allreduce_coalesced(self, tensors, opts=None):
        for tensor in tensors:
            self.allreduce([tensor])
        return _done(tensors)

    def broadcast(self, tensors, opts=None):
        hosts = self._hosts(tensors)
        self.gloo.broadcast(hosts, opts or dist.BroadcastOptions()).wait()
        self._back(tensors, hosts)
        return _done(tensors)

    def allgather(self, outputs, inputs, opts=None):
        hosts = [self._hosts(output) for output in outputs]
        self.gloo.allgather(hosts, self._hosts(inputs)).wait()
        for output, host in zip(outputs, hosts, strict=True):
            self._back(output, host)
        return _done(outputs)

    def barrier(self, opts=None):
        self.gloo.barrier().wait()
        return _done(None)
