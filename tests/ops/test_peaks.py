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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced", "transposed"])
@pytest.mark.parametrize(
    ("shape", "k"), [((2, 5, 17, 23), 40), ((1, 1, 9, 1), 3), ((3, 80, 4, 5), 1000), ((1, 3, 130, 71), 100)]
)
def test_any_layout_and_type_gives_what_sorting_gives(dtype, layout, shape, k):
    # few levels, so that plateaus and ties are everywhere
    logits = torch.randint(-6, 7, shape, generator=torch.Generator().manual_seed(1)).to(dtype) / 2
    if layout == "channels_last":
        logits = logits.contiguous(memory_format=torch.channels_last)
    elif layout == "sliced":
        logits = torch.cat([logits, logits], 1).contiguous(memory_format=torch.channels_last)[:, : shape[1]]
    elif layout == "transposed":
        logits = logits.transpose(2, 3).contiguous().transpose(2, 3)
    peaks = decode_peaks(logits, k)
    padded = torch.nn.functional.pad(logits.double(), (1, 1, 1, 1), value=-torch.inf)
    windows = padded.unfold(2, 3, 1).unfold(3, 3, 1).amax((4, 5))
    for image in range(shape[0]):
        found = (logits[image].double() == windows[image]).flatten().nonzero()[:, 0]
        order = torch.argsort(logits[image].flatten()[found].double(), descending=True, stable=True)
        expected = found[order][:k]
        cells = shape[2] * shape[3]
        assert (peaks.labels[image] * cells + peaks.cells[image])[: len(expected)].tolist() == expected.tolist()
        scores = logits[image].flatten()[expected].float().sigmoid()
        assert torch.allclose(peaks.scores[image, : len(expected)], scores, rtol=1e-6, atol=0)
        assert peaks.scores[image, len(expected) :].abs().sum() == 0


def test_what_is_not_a_number_is_no_peak_and_hides_its_neighbours():
    logits = torch.full((1, 1, 5, 7), -3.0)
    logits[0, 0, 1, 1], logits[0, 0, 1, 2], logits[0, 0, 4, 6] = torch.nan, 9.0, 1.0
    peaks = decode_peaks(logits, 1)
    assert peaks.cells.tolist() == [[4 * 7 + 6]]


def test_infinite_logits_are_certain_or_no_peak_at_all():
    logits = torch.full((1, 2, 3, 3), -torch.inf)
    logits[0, 1, 1, 1] = torch.inf
    peaks = decode_peaks(logits, 4)
    assert peaks.scores.tolist() == [[1, 0, 0, 0]]
    assert (peaks.labels.tolist(), peaks.cells.tolist()) == ([[1, 0, 0, 0]], [[4, 0, 0, 0]])


def test_a_negative_zero_ties_with_a_zero():
    logits = torch.full((1, 1, 1, 5), -1.0)
    logits[..., 0], logits[..., 4] = -0.0, 0.0
    assert decode_peaks(logits, 2).cells.tolist() == [[0, 4]]


def test_empty_batch():
    assert decode_peaks(torch.zeros(0, 3, 4, 5), 7).labels.shape == (0, 7)


def test_operator_contract_holds():
    torch.library.opcheck(torch.ops.ctnet.decode_peaks, (torch.randn(2, 3, 5, 7), 10))


@pytest.mark.parametrize(("shape", "k"), [((3, 5, 7), 4), ((1, 3, 5, 7), 0)])
def test_wrong_shape_or_count_is_refused(shape, k):
    with pytest.raises(ValueError, match="top_k >= 1"):
        decode_peaks(torch.zeros(shape), k)
