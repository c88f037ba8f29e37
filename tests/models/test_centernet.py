"""Networks as recipes describe them: shapes, options, starting points, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ctnet.config import CenterNetModel, Recipe, load_recipe
from ctnet.config.families.backbones import BACKBONES
from ctnet.errors import ConfigError
from ctnet.families import build_network, family_of
from ctnet.models.blocks import Bottleneck
from ctnet.models.centernet import build_backbone
from ctnet.models.upsampling import UpsamplingNeck
from ctnet.nn import DeformConv2d
from ctnet.types import FeatureSpec


@pytest.mark.parametrize("backbone", ["resnet34", "resnet50", "resnet101", "resnet152"])
def test_deeper_backbones_keep_the_output_stride(backbone):
    network = build_network(CenterNetModel(backbone=backbone), 3).eval()
    with torch.no_grad():
        [heads] = network(torch.zeros(1, 3, 64, 96))
    assert {k: tuple(v.shape) for k, v in heads.items()} == {
        "heatmap_logits": (1, 3, 16, 24),
        "size": (1, 2, 16, 24),
        "offset": (1, 2, 16, 24),
    }


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_a_lateral_neck_hands_fine_detail_on(backbone):
    torch.manual_seed(0)
    model = CenterNetModel(backbone=backbone, neck="lateral", neck_channels=(24, 24, 24))
    lateral, straight = (build_network(m, 3).eval() for m in (model, CenterNetModel(backbone=backbone)))
    assert not any(isinstance(m, DeformConv2d) for m in lateral.modules())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        [heads] = lateral(x)
        assert {k: tuple(v.shape[1:]) for k, v in heads.items()} == {
            "heatmap_logits": (3, 16, 24),
            "size": (2, 16, 24),
            "offset": (2, 16, 24),
        }
        for network in (lateral, straight):  # the coarsest map says nothing any more
            network.backbone.layer4.register_forward_hook(lambda module, inputs, map: torch.zeros_like(map))
        other = torch.randn(1, 3, 64, 96)
        assert torch.equal(straight(x)[0]["size"], straight(other)[0]["size"])
        assert not torch.equal(lateral(x)[0]["size"], lateral(other)[0]["size"])


@pytest.mark.parametrize("kind", ["deform", "conv", "plain"])
def test_a_fresh_neck_interpolates_and_loses_nothing(kind):
    torch.manual_seed(0)
    up = UpsamplingNeck([FeatureSpec(12, 32)], (12, 12, 12), kind)[0].up
    ramp = torch.arange(5.0).view(1, 1, 1, 5) * torch.randn(1, 12, 1, 1)
    with torch.no_grad():
        enlarged = up(ramp.expand(1, 12, 4, 5))[:, :, 1:-1]  # rows and columns at the edge reach past it
    expected = F.interpolate(ramp, scale_factor=(1, 2), mode="bilinear")
    assert torch.allclose(enlarged.norm(dim=1)[..., 1:-1], expected.norm(dim=1)[..., 1:-1].expand(1, 6, 8), atol=1e-5)


def test_options_of_the_heads():
    network = build_network(CenterNetModel(class_specific_size=True, predict_offset=False), 5).eval()
    with torch.no_grad():
        [heads] = network(torch.zeros(1, 3, 32, 64))
    assert set(heads) == {"heatmap_logits", "size"}
    assert heads["size"].shape == (1, 10, 8, 16)


def test_a_head_without_hidden_channels_is_one_convolution():
    network = build_network(CenterNetModel(head_channels=0, heatmap_bias=-1.5), 5)
    assert network.heads["size"].weight.shape == (2, 64, 1, 1)
    assert network.heads["heatmap_logits"].bias.tolist() == [-1.5] * 5
    with torch.no_grad():
        assert network.eval()(torch.zeros(1, 3, 32, 64))[0]["heatmap_logits"].shape == (1, 5, 8, 16)


@pytest.mark.parametrize("hidden", [0, 16])
def test_fresh_sizes_are_the_median_of_the_data(hidden):
    sizes = torch.tensor([[4.0, 6.0], [9.0, 5.0], [5.0, 30.0], [20.0, 40.0]])
    labels = torch.tensor([0, 0, 0, 2])
    for per_class, expected in ((False, [5, 6]), (True, [5, 6, 5, 6, 20, 40])):
        network = build_network(CenterNetModel(head_channels=hidden, class_specific_size=per_class), 3).eval()
        network.heads.start_at_median("size", sizes, labels)
        with torch.no_grad():
            answer = network(torch.randn(1, 3, 64, 96))[0]["size"]
        assert torch.allclose(answer, torch.tensor(expected).view(1, -1, 1, 1).expand_as(answer).float(), atol=0.5)


@pytest.mark.parametrize(
    "model", [CenterNetModel(), CenterNetModel(backbone="dla34")], ids=lambda model: model.backbone
)
def test_deformable_convolutions_with_and_without_bias(model):
    for bias in (True, False):
        network = build_network(model.model_copy(update={"deform_bias": bias}), 2)
        layers = [m for m in network.modules() if isinstance(m, DeformConv2d)]
        assert len(layers) >= 3
        assert all((layer.bias is not None) == bias for layer in layers)


def test_bottlenecks_may_halve_the_map_in_their_first_convolution():
    usual, other = (Bottleneck(8, 4, 2, stride_in_1x1=choice).eval() for choice in (False, True))
    other.load_state_dict(usual.state_dict())
    nn.init.constant_(usual.conv2.weight, 0.1)
    nn.init.constant_(other.conv2.weight, 0.1)
    x = torch.randn(1, 8, 10, 14)
    assert usual(x).shape == other(x).shape == (1, 16, 5, 7)
    shown = x.clone()
    shown[:, :, 1::2, 1::2] = 0  # what a strided 1x1 convolution does not look at
    assert torch.equal(other(x), other(shown))
    assert not torch.equal(usual(x), usual(shown))
    network = build_network(CenterNetModel(backbone="resnet50", stride_in_1x1=True), 2)
    assert network.backbone.layer3[0].conv1.stride == (2, 2)
    assert network.backbone.layer3[0].conv2.stride == (1, 1)


def test_a_fresh_network_says_a_tenth_everywhere():
    torch.manual_seed(0)
    network = build_network(CenterNetModel(), 4)
    with torch.no_grad():
        probability = network(torch.randn(2, 3, 64, 64))[0]["heatmap_logits"].sigmoid()
    assert 0.05 < probability.mean() < 0.2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.backbone=hourglass104", "model.neck=plain"], "model.neck does not apply to hourglass104"),
        (["model.backbone=hourglass104", "model.deform_bias=false"], "model.deform_bias does not apply"),
        (["model.backbone=dla34", "model.neck_channels=[64,64,64]"], "model.neck_channels does not apply to dla34"),
        (["model.backbone=dla34", "model.neck=conv"], "model.neck=deform and model.neck=plain"),
        (["model.backbone=dla34", "model.neck=lateral"], "model.neck=deform and model.neck=plain"),
        (["model.backbone=mobilenetv2", "model.neck=lateral"], "model.neck does not apply to mobilenetv2"),
        (["model.backbone=resnet34", "model.stride_in_1x1=true"], "does not apply to resnet34"),
        (["model.backbone=hourglass104", "data.image_size=[256,320]"], "multiples of 128 for hourglass104"),
    ],
)
def test_settings_that_do_not_fit_the_backbone_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe("centernet_resdcn18", overrides)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbones_row_says_what_its_maps_are(name):
    model = CenterNetModel(backbone=name)
    family = family_of(Recipe(model=model))
    with FakeTensorMode():  # nothing is computed
        backbone, network = build_backbone(model), family.build(3)
        maps = backbone(torch.zeros(1, 3, 128, 256))
        outputs = network(torch.zeros(1, 3, 128, 256))
    assert tuple(backbone.specs) == model.row.specs
    assert [(m.shape[1], 128 // m.shape[2], 256 // m.shape[3]) for m in maps] == [(c, s, s) for c, s in model.row.specs]
    assert tuple(outputs[-1]) == family.output_names
    [stride] = family.strides
    assert all(values.shape[2:] == (128 // stride, 256 // stride) for values in outputs[-1].values())
