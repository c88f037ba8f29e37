"""Networks made ready for inference compute what the trained network computes."""

import pytest
import torch
from torch import nn

from ctnet.config import load_recipe
from ctnet.devices import open_device
from ctnet.devices.compiled import Compiled
from ctnet.devices.cpu import fuse
from ctnet.devices.fold import fold_batch_norm, trace
from ctnet.devices.reduced import ReducedPrecision
from ctnet.errors import ConfigError
from ctnet.families import build_network
from ctnet.nn import DeformConv2d


def lived_in(network):
    """Give every norm statistics and factors as after training, and every offset layer something to say."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
        if isinstance(module, DeformConv2d):
            nn.init.normal_(module.offset_mask.weight, 0, 0.02)
    return network.eval()


def network_of(recipe="centernet_resdcn18", *overrides, classes=3):
    return lived_in(build_network(load_recipe(recipe, overrides).recipe.model, classes))


def outputs(network, x):
    with torch.inference_mode():
        found = network(x)
    return found[-1] if isinstance(found, list) else found


@pytest.mark.parametrize(
    "recipe",
    [
        ["centernet_resdcn18"],
        ["centernet_resdcn18", "model.neck=conv", "model.head_channels=0"],
        ["centernet_res18"],
        ["centernet_res50"],
        ["centernet_dla34"],
        ["centernet_dla34", "model.neck=plain"],
    ],
    ids=" ".join,
)
def test_folding_norms_changes_outputs_by_rounding_only(recipe):
    network = network_of(*recipe).double()
    x = torch.randn(2, 3, 96, 64, dtype=torch.float64)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    folded = fold_batch_norm(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    for name, expected in outputs(network, x).items():
        assert (outputs(folded, x)[name] - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


class Shared(nn.Module):
    """A convolution whose output is used twice, so that the norm must stay; and a grouped transposed one."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.up, self.up_norm = nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6, affine=False)

    def forward(self, x):
        y = self.conv(x)
        return self.up_norm(self.up(y + self.norm(y)))


def test_a_norm_stays_where_its_input_is_used_elsewhere():
    network = Shared().double()
    network.norm.running_mean.normal_()
    network.up_norm.running_var.uniform_(0.5, 2)
    network.eval()
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    folded = fold_batch_norm(network)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules()) == 1
    assert torch.allclose(outputs(folded, x), outputs(network, x), atol=1e-12)


def test_bf16_stays_close_and_returns_float32():
    network, device = network_of(), open_device("cpu")
    x = torch.randn(2, 3, 96, 64)
    ready = device.plugin.prepare(network, device.torch_device, precision="bf16", compile=False)
    assert ready.precision == "bfloat16"
    for name, expected in outputs(network, x).items():
        got = outputs(ready.network, x)[name]
        assert got.dtype == torch.float32
        assert (got - expected).abs().mean() < 0.02 * expected.std() + 1e-6
        # the last layer is float32: its values are not the few that bf16 has
        assert not torch.equal(got, got.bfloat16().float())


def test_fp32_is_float32_whatever_the_processor_has():
    network, device = network_of(), open_device("cpu")
    x = torch.randn(1, 3, 64, 96)
    ready = device.plugin.prepare(network, device.torch_device, precision="fp32", compile=False)
    assert ready.precision == "float32"
    for name, expected in outputs(network, x).items():
        assert torch.allclose(outputs(ready.network, x)[name], expected, atol=1e-4)


def test_compiled_it_gives_the_same_for_any_batch():
    network, device = network_of(), open_device("cpu")
    ready = device.plugin.prepare(network, device.torch_device, precision="fp32", compile=True)
    for images in (1, 3):
        x = torch.randn(images, 3, 64, 96)
        for name, expected in outputs(network, x).items():
            assert torch.allclose(outputs(ready.network, x)[name], expected, atol=1e-4)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="convolutions are packed for oneDNN")
def test_compiled_weights_are_constants():
    convolution = nn.Conv2d(3, 4, 3)
    compiled, x = Compiled(convolution).eval(), torch.randn(1, 3, 9, 7)
    expected = outputs(compiled, x)
    nn.init.zeros_(convolution.weight)
    assert torch.equal(outputs(compiled, x), expected)


# a map of several pieces with a rest, one that needs no splitting, a last layer that sees its neighbours, no image
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(256, 5, 1), (1, 256, 131, 61)),
        (nn.Conv2d(256, 5, 1), (3, 256, 37, 64)),
        (nn.Conv2d(16, 5, 1, bias=False), (2, 16, 5, 7)),
        (nn.Conv2d(64, 5, 3, padding=1), (2, 64, 131, 61)),
        (nn.Conv2d(64, 5, 1, stride=2), (2, 64, 131, 61)),
        (nn.Conv2d(64, 5, 1), (0, 64, 13, 7)),
        (nn.Conv2d(8, 5, 1), (1, 8, 2, 70001)),
    ],
)
def test_the_last_layer_computes_in_float32(layer, shape):
    ready = ReducedPrecision(trace(nn.Sequential(nn.Identity(), layer)), torch.bfloat16)
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    expected = outputs(layer, x.bfloat16().float())
    got = outputs(ready, x)
    assert got.shape == expected.shape
    assert torch.allclose(got, expected, atol=1e-5)


def test_a_precision_that_the_device_lacks_is_refused():
    device = open_device("cpu")
    plugin = type("NoHalf", (type(device.plugin),), {"autocast_dtypes": lambda self: (torch.bfloat16,)})()
    with pytest.raises(ConfigError, match="fp16"):
        plugin.prepare(network_of(), device.torch_device, precision="fp16", compile=False)


class Layers(nn.Module):
    """What a fused layer has to tell apart: a shortcut that is spread, one of its own kind, an output used twice."""

    def __init__(self):
        super().__init__()
        self.first, self.shared = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2)
        self.wide, self.gate, self.same = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 1, 1), nn.Conv2d(8, 8, 3, padding="same")
        self.relu, self.hidden, self.out = nn.ReLU(inplace=True), nn.Linear(8, 70), nn.Linear(70, 5)

    def forward(self, x):
        x = self.relu(self.first(x))
        y = torch.relu(self.shared(x) + x)
        y = nn.functional.relu(self.wide(y) + self.gate(y))
        y = self.same(self.shared(y)) + 1.0
        z = self.wide(y)
        pooled = (z + nn.functional.relu(z) + self.shared(z)).mean((2, 3))
        return self.out(nn.functional.relu(self.hidden(pooled)))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fused_layers_compute_what_they_replace(precision):
    torch.manual_seed(0)
    network, device = Layers().eval(), open_device("cpu")
    ready = device.plugin.prepare(network, device.torch_device, precision=precision, compile=False).network
    fused = sum(isinstance(module, fuse._Fused) for module in ready.modules())
    if fuse._works():
        assert fused == {"fp32": 9, "bf16": 8}[precision]  # the last layer of all stays float32
    for shape in ((2, 3, 33, 17), (1, 3, 8, 8), (0, 3, 8, 8)):
        x = torch.randn(shape)
        expected = outputs(network, x)
        bound = 1e-5 if precision == "fp32" else 0.03 * float(expected.abs().amax() if len(x) else 1)
        assert torch.allclose(outputs(ready, x), expected, rtol=0, atol=bound)


def test_without_onednn_nothing_is_fused(monkeypatch):
    monkeypatch.setattr(fuse, "_works", lambda: False)
    network, device = Layers().eval(), open_device("cpu")
    ready = device.plugin.prepare(network, device.torch_device, precision="fp32", compile=False).network
    assert not any(isinstance(module, fuse._Fused) for module in ready.modules())
    x = torch.randn(1, 3, 9, 9)
    assert torch.allclose(outputs(ready, x), outputs(network, x), atol=1e-5)


def test_weights_that_are_not_finite_still_show():
    network, device = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval(), open_device("cpu")
    nn.init.constant_(network[0].weight, torch.nan)
    ready = device.plugin.prepare(network, device.torch_device, precision="fp32", compile=False).network
    assert outputs(ready, torch.randn(1, 3, 5, 5)).isnan().all()
