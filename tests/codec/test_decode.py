"""Boxes from heads against the original."""

import pytest
import torch

from ctnet.codec.decode import peak_boxes
from ctnet.ops import decode_peaks


@pytest.mark.parametrize(
    ("name", "top_k"), [("dec_3_rect", 100), ("dec_noreg", 100), ("dec_catspec", 100), ("dec_k40", 40)]
)
def test_detections_equal_the_original(name, top_k, golden):
    file = golden("decode")
    heads = {k: torch.tensor(file[f"{name}/{k}"]) for k in ("hm", "wh", "reg") if f"{name}/{k}" in file.files}
    peaks = decode_peaks(heads["hm"], top_k)
    boxes = peak_boxes(peaks, heads["wh"], heads.get("reg"))
    found = torch.cat([boxes, peaks.scores[..., None], peaks.labels[..., None].float()], -1)
    assert torch.allclose(found, torch.tensor(file[f"{name}/dets"]), atol=1e-5)
