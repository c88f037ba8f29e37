"""The norm layer: fused in training on a processor with kernels, torch's operators everywhere else."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ctnet.devices import open_device
from ctnet.devices.cpu.native import select
from ctnet.devices.fold import fold_batch_norm
from ctnet.nn import BatchNorm2d
from ctnet.ops.table import has_kernel


@pytest.fixture(autouse=True)
def _kernels():
    open_device("cpu")
    if select().isa is None:
        pytest.skip("no compiled kernels: install a C++17 compiler, then ctnet-toolkit again")


def norms(channels=13, *, relu=True):
    """Return ours and torch's norm with the same random parameters."""
    torch.manual_seed(0)
    ours, theirs = BatchNorm2d(channels, eps=1e-3, momentum=0.3, relu=relu), nn.BatchNorm2d(channels, 1e-3, 0.3)
    for values in (theirs.weight, theirs.bias):
        nn.init.normal_(values)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def channels_last(*shape):
    return torch.randn(shape).to(memory_format=torch.channels_last)


def test_training_updates_the_statistics_that_torch_would():
    ours, theirs = norms()
    for batch in (2, 3):
        x, shortcut = channels_last(batch, 13, 9, 7) * 2 + 1, channels_last(batch, 13, 9, 7)
        assert torch.allclose(ours(x, shortcut), F.relu(theirs(x) + shortcut), atol=1e-5)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], value, atol=1e-6), name
    assert torch.equal(ours.eval()(x), F.relu(theirs.eval()(x))) or torch.allclose(
        ours(x), F.relu(theirs(x)), atol=1e-5
    )


def test_in_training_one_operator_computes_all(monkeypatch):
    ours, _ = norms()
    assert has_kernel("batch_norm", "cpu")
    monkeypatch.setattr(BatchNorm2d, "normalise", lambda *_: pytest.fail("torch's operators ran"))
    x = channels_last(2, 13, 4, 6)
    ours(x.requires_grad_(), x).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("x", [torch.randn(2, 13, 9, 7), channels_last(2, 13, 9, 7).half()])
def test_what_the_kernel_is_not_for_goes_through_torch(monkeypatch, x):
    monkeypatch.setattr(BatchNorm2d, "_by_kernel", lambda *_: pytest.fail("the kernel ran"))
    ours, theirs = norms()
    assert torch.equal(ours(x), F.relu(theirs(x)))


def test_one_value_per_channel_is_refused_as_by_torch():
    ours, _ = norms()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        ours(channels_last(1, 13, 1, 1))


class Residual(nn.Module):
    """Convolutions and norms as blocks have them."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(5, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 1, bias=False)
        self.norm1, self.norm2, self.norm3 = BatchNorm2d(8, relu=True), BatchNorm2d(8, relu=True), BatchNorm2d(8)

    def forward(self, x):
        y = self.norm1(self.first(x))
        z = self.norm2(self.second(y), y)
        return self.norm3(F.max_pool2d(z, 2))


def test_folded_the_shortcut_and_the_relu_stay():
    torch.manual_seed(1)
    network = Residual()
    for _ in range(3):
        network(channels_last(4, 5, 8, 6))
    folded = fold_batch_norm(network)
    x = channels_last(2, 5, 8, 6)
    wanted = copy.deepcopy(network).eval()(x)
    assert torch.allclose(folded(x), wanted, atol=1e-5)
    left = [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(left) == 1  # behind the pooling there is no convolution to take it
