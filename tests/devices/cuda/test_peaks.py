"""Peaks against the reference: which, in which order, and how strong."""

import pytest
import torch

from ctnet.devices.cuda import peaks as kernels
from ctnet.ops import decode_peaks
from ctnet.ops.peaks import reference_peaks


def check(logits, top_k, device):
    found, expected = decode_peaks(logits.to(device), top_k), reference_peaks(logits, top_k)
    assert found.scores.dtype == torch.float32
    assert torch.equal(found.labels.cpu(), expected[1])
    assert torch.equal(found.cells.cpu(), expected[2])
    assert torch.allclose(found.scores.cpu(), expected[0], rtol=1e-6, atol=0)


def few_levels(*shape):
    """Logits full of plateaus and ties."""
    return torch.randint(-6, 7, shape, generator=torch.Generator().manual_seed(1)) / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced", "transposed"])
def test_any_layout_and_type_gives_what_the_reference_gives(dtype, layout, device, monkeypatch):
    monkeypatch.setattr(kernels, "_TILE", 16)
    logits = few_levels(2, 3, 5, 4).to(dtype)
    if layout == "channels_last":
        logits = logits.contiguous(memory_format=torch.channels_last)
    elif layout == "sliced":
        logits = torch.cat([logits, logits], 1).contiguous(memory_format=torch.channels_last)[:, :3]
    elif layout == "transposed":
        logits = logits.transpose(2, 3).contiguous().transpose(2, 3)
    check(logits, 2, device)


@pytest.mark.parametrize(("shape", "k"), [((1, 1, 9, 1), 3), ((3, 8, 4, 5), 200), ((1, 3, 1, 1), 1), ((0, 3, 4, 5), 7)])
def test_odd_shapes_and_more_places_than_peaks(shape, k, device):
    check(few_levels(*shape), k, device)


def test_the_strongest_may_all_lie_in_one_tile(device, monkeypatch):
    monkeypatch.setattr(kernels, "_TILE", 16)
    logits = torch.full((1, 2, 6, 16), -20.0)
    logits[0, 1, 3, ::2] = torch.arange(8.0)
    check(logits, 5, device)


def test_what_is_not_a_number_is_no_peak_and_hides_its_neighbours(device):
    logits = few_levels(1, 2, 5, 7)
    logits[0, 0, 1, 1], logits[0, 0, 1, 2], logits[0, 1, 4, 6], logits[0, 1, 0, 0] = torch.nan, 9, torch.inf, -torch.inf
    check(logits, 9, device)


def test_a_negative_zero_ties_with_a_zero(device):
    logits = torch.full((1, 1, 1, 5), -1.0)
    logits[..., 0], logits[..., 4] = -0.0, 0.0
    check(logits, 2, device)


def test_scores_that_round_to_zero_are_no_peaks(device):
    check(torch.full((1, 2, 3, 3), -200.0), 4, device)


def test_a_cuda_graph_replays_it_on_other_numbers(card):
    logits = torch.zeros(2, 5, 17, 23, device=card)
    decode_peaks(logits, 40)  # builds the kernels
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = decode_peaks(logits, 40)
    logits.copy_(few_levels(2, 5, 17, 23))
    graph.replay()
    expected = reference_peaks(few_levels(2, 5, 17, 23), 40)
    assert torch.equal(found.cells.cpu(), expected[2])
