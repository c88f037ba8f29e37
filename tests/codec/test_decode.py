"""Boxes from heads against the original."""

import pytest
import torch

from centers import center_family, decoded


@pytest.mark.parametrize(
    ("name", "top_k"), [("dec_3_rect", 100), ("dec_noreg", 100), ("dec_catspec", 100), ("dec_k40", 40)]
)
def test_detections_equal_the_original(name, top_k, golden):
    file = golden("decode")
    names = {"hm": "heatmap_logits", "wh": "size", "reg": "offset"}
    heads = {ours: torch.tensor(file[f"{name}/{k}"]) for k, ours in names.items() if f"{name}/{k}" in file.files}
    family = center_family(per_class=heads["size"].shape[1] > 2, predict_offset="offset" in heads)
    boxes, scores, labels = decoded(heads, top_k, family)
    found = torch.cat([boxes, scores[..., None], labels[..., None].float()], -1)
    assert torch.allclose(found, torch.tensor(file[f"{name}/dets"]), atol=1e-5)


def test_a_logarithm_of_the_size_is_decoded_to_it():
    heads = {"heatmap_logits": torch.full((1, 1, 8, 8), -9.0), "log_size": torch.zeros(1, 2, 8, 8)}
    heads["heatmap_logits"][0, 0, 3, 5] = 2.0
    heads["log_size"][0, :, 3, 5] = torch.tensor([2.0, 5.0]).log()
    boxes, _, _ = decoded(heads, 1, center_family(heads=("heatmap", "log_size")))
    assert torch.allclose(boxes[0, 0], torch.tensor([4.5, 1.0, 6.5, 6.0]), atol=1e-5)
