"""The pooling layer: a kernel's in training on a processor that has one, torch's everywhere else."""

import pytest
import torch
import torch.nn.functional as F

from ctnet.devices import open_device
from ctnet.devices.cpu.native import select
from ctnet.nn import MaxPool2d, max_pool
from ctnet.ops.max_pool import max_pool2d


@pytest.fixture
def calls(monkeypatch):
    """The calls of the operator while a test runs."""
    open_device("cpu")
    if select().isa is None:
        pytest.skip("no compiled kernels: install a C++17 compiler, then ctnet-toolkit again")
    seen = []
    monkeypatch.setattr(max_pool, "max_pool2d", lambda *a: seen.append(a[1:]) or max_pool2d(*a))
    return seen


@pytest.mark.parametrize(("arguments", "window"), [((3, 2, 1), (3, 2, 1)), ((2,), (2, 2, 0))])
def test_training_runs_the_kernel(calls, arguments, window):
    layer = MaxPool2d(*arguments)
    x = torch.randn(2, 13, 9, 7).to(memory_format=torch.channels_last)
    assert torch.equal(layer(x), F.max_pool2d(x, *window))
    assert calls == [window]


def test_everything_else_runs_torchs(calls):
    layer = MaxPool2d(3, 2, 1)
    x = torch.randn(2, 13, 9, 7).to(memory_format=torch.channels_last)
    for input in (x.contiguous(), x.half()):
        assert torch.equal(layer(input), F.max_pool2d(input, 3, 2, 1))
    assert torch.equal(layer.eval()(x), F.max_pool2d(x, 3, 2, 1))
    assert calls == []
