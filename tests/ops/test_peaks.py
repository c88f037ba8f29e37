"""Peaks of heatmaps."""

import pytest
import torch

from ctnet.ops import decode_peaks


def test_strongest_peaks_of_all_classes_come_first():
    logits = torch.full((1, 2, 5, 7), -9.0)
    logits[0, 0, 1, 2], logits[0, 1, 4, 6], logits[0, 1, 4, 5] = 1.0, 3.0, 2.0
    peaks = decode_peaks(logits, 2)
    assert peaks.labels.tolist() == [[1, 0]]
    assert peaks.cells.tolist() == [[4 * 7 + 6, 1 * 7 + 2]]  # (4,5) is beaten by its neighbour
    assert torch.allclose(peaks.scores, torch.tensor([[3.0, 1.0]]).sigmoid())


def test_cells_on_the_border_are_peaks_and_plateaus_are_kept_whole():
    logits = torch.full((1, 1, 3, 4), -20.0)
    logits[0, 0, 0, :2] = 5.0
    assert sorted(decode_peaks(logits, 2).cells[0].tolist()) == [0, 1]


def test_fewer_cells_than_places_are_filled_with_score_zero():
    peaks = decode_peaks(torch.zeros(3, 1, 1, 2), 5)
    assert peaks.scores.shape == (3, 5)
    assert peaks.scores[:, 2:].abs().sum() == 0
    assert peaks.cells[:, 2:].abs().sum() == 0


def test_reduced_precision_is_decoded_in_float32():
    logits = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    reduced, full = decode_peaks(logits, 4), decode_peaks(logits.float(), 4)
    assert reduced.scores.dtype == torch.float32
    assert torch.equal(reduced.scores, full.scores)


def test_empty_batch():
    assert decode_peaks(torch.zeros(0, 3, 4, 5), 7).labels.shape == (0, 7)


def test_operator_contract_holds():
    torch.library.opcheck(torch.ops.ctnet.decode_peaks, (torch.randn(2, 3, 5, 7), 10))


@pytest.mark.parametrize(("shape", "k"), [((3, 5, 7), 4), ((1, 3, 5, 7), 0)])
def test_wrong_shape_or_count_is_refused(shape, k):
    with pytest.raises(ValueError, match="top_k >= 1"):
        decode_peaks(torch.zeros(shape), k)
