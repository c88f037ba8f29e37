"""A network of ctnet's layers trained for a step on the device and on the host."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctnet.devices.conformance.result import Check, Skip, deviation, need
from ctnet.devices.registry import OpenDevice
from ctnet.nn import DeformConv2d, DepthwiseUpsample
from ctnet.ops.table import PRODUCTS

_STEP_BOUND = 5 * PRODUCTS[torch.float32]
"""a step adds up the roundings of every layer"""


def training_checks(device: OpenDevice) -> Iterator[tuple[str, Check]]:
    """Yield the checks of one step, of loss scaling and of the network made ready for inference."""
    yield "training step", partial(_step, device)
    for dtype in device.plugin.autocast_dtypes():
        yield f"training step, {str(dtype).removeprefix('torch.')}", partial(_reduced_step, device, dtype)
    yield "grad_scaler, state", partial(_scaler_state, device)
    yield "grad_scaler, overflow", partial(_overflow, device)
    yield "prepare", partial(_prepare, device)


def _network() -> nn.Module:
    """Return a small detector-like network in which every parameter has a gradient."""
    torch.manual_seed(0)
    deform = DeformConv2d(8, 8, bias=False)
    nn.init.normal_(deform.offset_mask.weight, 0, 0.05)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        deform,
        nn.BatchNorm2d(8),
        nn.ReLU(),
        DepthwiseUpsample(8, 2),
        nn.Conv2d(8, 2, 1),
    )


def _images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 18, 26, generator=generator), torch.rand(2, 2, 18, 26, generator=generator)


def _train(network: nn.Module, where: torch.device) -> tuple[float, dict[str, Tensor]]:
    """Take a step and return the loss and how far every parameter and statistic moved."""
    before = {name: t.clone() for name, t in network.state_dict().items()}
    network = network.to(where).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    x, target = (t.to(where) for t in _images())
    loss = F.mse_loss(network(x), target)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    after = {name: t.detach().cpu() for name, t in network.state_dict().items()}
    return float(loss.detach()), {name: after[name].double() - before[name].double() for name in before}


def _step(device: OpenDevice) -> str:
    loss, moved = _train(device.plugin.arrange(_network(), channels_last=True), device.torch_device)
    wanted_loss, wanted = _train(_network(), torch.device("cpu"))
    worst = abs(loss - wanted_loss) / wanted_loss
    need(worst <= PRODUCTS[torch.float32], f"the loss is {loss}, on the host {wanted_loss}")
    for name in wanted:
        worst = max(worst, deviation(moved[name], wanted[name], f"the step of {name}", _STEP_BOUND))
    return f"{worst:.0e}"


def _reduced_step(device: OpenDevice, dtype: torch.dtype) -> str:
    network = device.plugin.arrange(_network(), channels_last=True).to(device.torch_device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    scaler = device.plugin.grad_scaler(enabled=dtype == torch.float16)
    x, target = (t.to(device.torch_device) for t in _images())
    with device.plugin.autocast(dtype):
        prediction = network(x)
    need(prediction.dtype == dtype, f"the network's output is {prediction.dtype}")
    loss = F.mse_loss(prediction.float(), target)
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
    scaler.step(optimizer)
    scaler.update()
    wanted, _ = _train(_network(), torch.device("cpu"))
    found = abs(float(loss.detach()) - wanted) / wanted
    need(found <= PRODUCTS[dtype], f"the loss deviates by {found:.1e}, at most {PRODUCTS[dtype]:.0e} is allowed")
    need(bool(norm.isfinite()) and float(norm) > 0, f"the gradient's length is {float(norm)}")
    return f"{found:.0e}"


def _scaler_state(device: OpenDevice) -> str:
    host = torch.amp.GradScaler("cpu", init_scale=1024.0)
    state = host.state_dict()
    scaler = device.plugin.grad_scaler(enabled=True)
    scaler.load_state_dict(copy.deepcopy(state))
    need(scaler.state_dict() == state, f"torch's state comes back as {scaler.state_dict()}")
    host.load_state_dict(scaler.state_dict())
    idle = device.plugin.grad_scaler(enabled=False)
    need(not idle.is_enabled() and idle.state_dict() == {}, "a scaler that is not enabled does something")
    return "torch's own"


def _overflow(device: OpenDevice) -> str:
    if torch.float16 not in device.plugin.autocast_dtypes():
        raise Skip("no fp16 here")
    weight = nn.Parameter(torch.ones(3, device=device.torch_device))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = device.plugin.grad_scaler(enabled=True)
    before = scaler.get_scale()
    scaler.scale((weight * torch.inf).sum()).backward()  # type: ignore[no-untyped-call]
    scaler.step(optimizer)
    scaler.update()
    need(weight.detach().cpu().tolist() == [1, 1, 1], "a step with infinite gradients was taken")
    need(scaler.get_scale() < before, "the scale stays after an overflow")
    return f"scale {before:g} to {scaler.get_scale():g}"


def _prepare(device: OpenDevice) -> str:
    network = _network().eval()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    ready = device.plugin.prepare(network, device.torch_device, precision="fp32", compile=False)
    x, _ = _images()
    with torch.inference_mode():
        worst = deviation(ready.network(x.to(device.torch_device)), network(x), "outputs", _STEP_BOUND)
    need(all(torch.equal(t, before[name]) for name, t in network.state_dict().items()), "the original network changed")
    return f"{worst:.0e}"
