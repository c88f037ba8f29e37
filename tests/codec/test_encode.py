"""Training targets against the original, and their way back."""

import numpy as np
import pytest
import torch

from centers import decoded, encode_centers
from ctnet.codec.affine import affine_matrix, transform_boxes
from ctnet.codec.gaussian import draw_gaussians, gaussian_radius


def targets_of(file, name, **options):
    field = lambda key: file[f"{name}/{key}"]  # noqa: E731
    xywh = field("boxes_xywh").astype(np.float32)
    boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)[:128]
    map_hw = tuple(int(side) // 4 for side in field("input_hw"))
    matrix = affine_matrix(field("c"), float(np.ravel(field("s"))[0]), map_hw[::-1])
    return encode_centers(transform_boxes(boxes, matrix), field("cls")[:128].astype(np.int64), 5, map_hw, **options)


def dense(file, name, field):
    heatmap = np.zeros(tuple(file[f"{name}/hm_shape"]), np.float32)
    if field == "hm":
        heatmap.reshape(-1)[file[f"{name}/hm_idx"]] = file[f"{name}/hm_val"]
        return heatmap
    spread = np.zeros((2, *heatmap.shape[1:]), np.float32)
    spread.reshape(-1)[file[f"{name}/{field}_idx"]] = file[f"{name}/{field}_val"]
    return spread


def check_case(file, name):
    targets = targets_of(file, name)
    rows = len(targets.valid)
    assert np.array_equal(targets.heatmap, dense(file, name, "hm"))
    assert np.allclose(targets.size, file[f"{name}/wh"][:rows], atol=4e-5)
    assert np.allclose(targets.offset, file[f"{name}/reg"][:rows], atol=2e-5)
    assert np.array_equal(targets.cell, file[f"{name}/ind"][:rows])
    assert np.array_equal(targets.valid, file[f"{name}/reg_mask"][:rows].astype(bool))


@pytest.mark.parametrize(
    "name",
    ["case00", "case01", "case02", "case03", "case05", "case06", "case07", "case09", "case17", "case19"],
)
def test_targets_equal_the_original(name, golden):
    check_case(golden("ctdet_targets"), name)


def test_all_twenty_images_of_the_full_set(shared):
    file = np.load(shared / "golden" / "ctdet_targets.npz")
    for number in range(20):
        check_case(file, f"case{number:02d}")


def test_sizes_over_footprints_equal_the_original(golden):
    file = golden("ctdet_targets")
    spread = targets_of(file, "case01", dense_size=True).dense_size
    assert np.allclose(spread, dense(file, "case01", "dense_wh"), atol=4e-5)


@pytest.mark.parametrize("overlap", [0.3, 0.5, 0.7, 0.9])
def test_radii_equal_the_original(overlap, golden):
    file = golden("ctdet_targets")
    sizes = file["radius/sizes"].astype(float)
    radii = gaussian_radius(sizes[:, None], sizes[None, :], overlap)
    assert np.allclose(radii, file[f"radius/min_overlap_{overlap}"], atol=1e-12)


def test_drawn_gaussians_equal_the_original_also_outside_the_map(golden):
    file = golden("ctdet_targets")
    listed = file["draw/list_xyr"].astype(np.int64)
    heatmap = np.zeros((1, 24, 40), np.float32)
    for i, row in enumerate(listed):
        draw_gaussians(heatmap, np.zeros(1, np.int64), row[None, :2], row[2:])
        assert np.allclose(heatmap[0], file[f"draw/after{i}"], atol=1e-7)


def test_objects_sharing_a_cell_both_keep_their_size():
    boxes = np.array([[4, 4, 9, 9], [3, 3, 10, 10]], np.float32)
    targets = encode_centers(boxes, np.array([0, 0]), 1, (17, 21))
    assert targets.cell[0] == targets.cell[1] == 6 * 21 + 6
    assert targets.size.tolist() == [[5, 5], [7, 7]]
    assert (targets.heatmap == 1).sum() == 1


@pytest.mark.parametrize(
    ("height", "width", "radius"),
    [(10, 10, 2.2614), (20, 30, 5.3411), (7, 50, 2.3415), (100, 60, 16.5479), (1, 1, 0.226139)],
)
def test_exact_radii_are_mmdets(height, width, radius):
    assert gaussian_radius(np.array(height), np.array(width), 0.3, exact=True) == pytest.approx(radius, abs=6e-5)


def test_exact_radii_keep_the_overlap_they_are_named_after():
    height, width = 9.0, 23.0
    r = float(gaussian_radius(np.array(height), np.array(width), 0.55, exact=True))
    shifted = (height - r) * (width - r)
    shifted /= 2 * height * width - shifted
    smaller = (height - 2 * r) * (width - 2 * r) / (height * width)
    larger = height * width / ((height + 2 * r) * (width + 2 * r))
    assert min(shifted, smaller, larger) == pytest.approx(0.55)


def test_by_mmdets_rules_the_later_object_of_a_cell_alone_has_a_size():
    boxes = np.array([[4, 4, 9, 9], [3, 3, 10, 10], [1, 8, 4, 9]], np.float32)
    targets = encode_centers(boxes, np.array([0, 1, 1]), 2, (17, 21), rules="mmdet")
    assert targets.valid.tolist() == [False, True, True]
    assert targets.size.tolist() == [[0, 0], [7, 7], [3, 1]]
    assert (targets.heatmap == 1).sum() == 3


def test_by_mmdets_rules_boxes_need_their_middle_in_the_view_and_end_with_it():
    boxes = np.array([[-9, 2, 8, 6], [-3, 2.5, 9, 6], [18, 12, 23, 19], [5, 5, 5, 9], [20, 1, 22, 3]], np.float32)
    targets = encode_centers(boxes, np.zeros(5, np.int64), 1, (17, 21), rules="mmdet")
    assert targets.valid.tolist() == [False, True, True, False, False]
    assert targets.size[1:3].tolist() == [[9, 3.5], [3, 5]]
    assert targets.cell[1:3].tolist() == [4 * 21 + 4, 14 * 21 + 19]


@pytest.mark.parametrize("rules", ["centernet", "mmdet"])
def test_an_image_without_boxes_has_an_empty_map(rules):
    targets = encode_centers(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), 2, (17, 21), rules=rules)
    assert targets.heatmap.max() == 0
    assert [len(targets.size), len(targets.cell), len(targets.valid)] == [0, 0, 0]


def test_boxes_without_area_or_outside_teach_nothing():
    boxes = np.array([[5, 5, 5, 9], [-9, 2, -1, 6], [30, 3, 44, 8]], np.float32)
    targets = encode_centers(boxes, np.zeros(3, np.int64), 2, (17, 21))
    assert not targets.valid.any()
    assert targets.heatmap.max() == 0
    assert targets.cell.tolist() == [0, 0, 0]


def test_decoding_perfect_outputs_returns_the_boxes():
    rng = np.random.default_rng(1)
    middles = np.array([[3, 4], [15, 3], [8, 13], [18, 12]])
    half = rng.uniform(1.1, 2.4, (4, 2))
    boxes = np.concatenate([middles + 0.3 - half, middles + 0.3 + half], 1).astype(np.float32)
    labels = np.array([2, 0, 1, 1])
    targets = encode_centers(boxes, labels, 3, (17, 21))
    size, offset = torch.zeros(1, 2, 17, 21), torch.zeros(1, 2, 17, 21)
    for n, cell in enumerate(targets.cell):
        size[0, :, cell // 21, cell % 21] = torch.from_numpy(targets.size[n])
        offset[0, :, cell // 21, cell % 21] = torch.from_numpy(targets.offset[n])
    logits = torch.logit(torch.from_numpy(targets.heatmap)[None], eps=1e-6)
    found_boxes, _, found_labels = decoded({"heatmap_logits": logits, "size": size, "offset": offset}, 4)
    found = found_boxes[0].numpy()
    order = found[:, 0].argsort()
    expected = np.clip(boxes, 0, [20, 16, 20, 16])
    assert np.allclose(found[order], expected[expected[:, 0].argsort()], atol=1e-5)
    assert found_labels[0].numpy()[order].tolist() == labels[expected[:, 0].argsort()].tolist()
