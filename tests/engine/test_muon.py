"""Muon: which weights it moves, by how much, and that AdamW moves the others."""

import copy

import pytest
import torch
from torch import nn

from ctnet.config import Optimizer, load_recipe
from ctnet.engine.muon import hidden_kernels, orthogonalised
from ctnet.engine.optimizer import build_optimizer
from ctnet.families import build_network
from ctnet.nn import DeformConv2d

LR = 0.01


def moved(layer, gradients, name="muon", **settings):
    """Return how far one step with each of the gradients moves a layer's weight, the sum of all steps."""
    layer = copy.deepcopy(layer)
    before = layer.weight.detach().clone()
    optimizer = build_optimizer(layer, Optimizer(name=name, weight_decay=0, **settings), LR)
    for gradient in gradients:
        layer.weight.grad = gradient.clone(memory_format=torch.preserve_format)
        optimizer.step()
    return (layer.weight - before).detach()


@pytest.mark.parametrize("shape", [(1, 64, 288), (3, 33, 576), (2, 96, 40)])
def test_matrices_become_nearly_orthogonal_in_their_own_axes(shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    assert float(values.max() / values.min()) > 1.3
    result = orthogonalised(matrices)
    kept = (left.mT @ result @ right.mT).diagonal(dim1=1, dim2=2)
    assert 0.6 < float(kept.min()) <= float(kept.max()) < 1.25
    torch.testing.assert_close(result, left @ torch.diag_embed(kept) @ right, rtol=0, atol=1e-5)


@pytest.mark.parametrize("noise", [1e-1, 1e-3, 0])
def test_matrices_of_low_rank_are_no_trouble(noise):
    torch.manual_seed(0)
    low = torch.randn(3, 64, 5) @ torch.randn(3, 5, 288)
    values = torch.linalg.svdvals(orthogonalised(low + noise * torch.randn_like(low)))
    assert 0.6 < float(values[:, :5].min()) <= float(values.max()) < 1.25
    assert torch.equal(orthogonalised(torch.zeros(2, 64, 40)), torch.zeros(2, 64, 40))


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(32, 64, 3), nn.Conv2d(40, 96, 1), nn.Conv2d(7, 128, (3, 5)), nn.ConvTranspose2d(64, 24, 4)]
)
def test_a_step_has_the_size_of_adamws_whatever_the_gradients_is(layer):
    torch.manual_seed(0)
    gradient = torch.randn_like(layer.weight)
    small, large = moved(layer, [gradient * 1e-6]), moved(layer, [gradient * 1e3])
    torch.testing.assert_close(small, large, rtol=1e-3, atol=1e-6)
    assert 0.15 * LR < float(small.square().mean().sqrt()) < 0.25 * LR
    assert float((small * gradient).sum()) < 0


def test_rows_are_made_orthogonal_by_sixty_four():
    torch.manual_seed(0)
    layer, gradient = nn.Conv2d(64, 128, 3), torch.randn(128, 64, 3, 3)
    gradient[64:] *= 1000
    step = moved(layer, [gradient]).flatten(1)
    assert float(step[:64].norm()) == pytest.approx(float(step[64:].norm()), rel=0.02)


def test_layout_does_not_matter_and_momentum_does():
    torch.manual_seed(0)
    layer, gradients = nn.Conv2d(33, 64, 3), [torch.randn(64, 33, 3, 3) for _ in range(3)]
    plain = moved(layer, gradients)
    other = moved(
        copy.deepcopy(layer).to(memory_format=torch.channels_last),
        [g.contiguous(memory_format=torch.channels_last) for g in gradients],
    )
    torch.testing.assert_close(plain, other, rtol=1e-3, atol=1e-6)
    mixed = moved(copy.deepcopy(layer).to(memory_format=torch.channels_last), gradients)
    torch.testing.assert_close(plain, mixed, rtol=1e-3, atol=1e-6)
    assert not torch.allclose(plain, moved(layer, gradients, momentum=0.5), rtol=0.05)


@pytest.mark.parametrize("recipe", ["centernet_resdcn18", "centernet_dla34", "centernet_mobilenetv2"])
def test_kernels_between_hidden_channels_move_by_it_and_all_else_by_adamw(recipe):
    model = load_recipe(recipe).recipe.model
    network = build_network(model, 80)
    for branch in network.heads.values():
        assert id(branch[-1].weight) not in {id(p) for p in hidden_kernels(network)}
    by_muon, by_adamw = copy.deepcopy(network), network
    names = {id(p): name for name, p in by_muon.named_parameters()}
    hidden = {names[id(p)] for p in hidden_kernels(by_muon)}
    slow = {names[id(p)] for m in by_muon.modules() if isinstance(m, DeformConv2d) for p in m.offset_mask.parameters()}
    assert len(hidden - slow) >= 20
    for network, name in ((by_muon, "muon"), (by_adamw, "adamw")):
        generator = torch.Generator().manual_seed(3)
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        torch.manual_seed(0)
        build_optimizer(network, Optimizer(name=name), LR).step()
    for (name, one), other in zip(by_muon.named_parameters(), by_adamw.parameters(), strict=True):
        assert torch.equal(one, other) == (name not in hidden - slow), name


@pytest.mark.parametrize("fused", [True, False])
def test_a_loss_scaler_skips_all_of_a_step_with_an_infinite_gradient(fused):
    network = nn.Sequential(nn.Conv2d(4, 64, 3), nn.Conv2d(64, 2, 1))
    before = copy.deepcopy(network.state_dict())
    optimizer = build_optimizer(network, Optimizer(name="muon"), LR, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    scaler.scale(network(torch.randn(1, 4, 5, 4)).sum()).backward()
    network[1].bias.grad.fill_(torch.inf)
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 1.0
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
