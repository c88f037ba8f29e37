"""Random views and colours."""

import numpy as np
import pytest
import torch

from ctnet.codec.affine import transform_points
from ctnet.codec.pixels import normalise
from ctnet.config import Augment
from ctnet.data.augment import color_map, jitter_colors, lighting_shift, random_matrix, warp_boxes


def matrices(settings, count=40, image_hw=(120, 200), input_hw=(64, 96)):
    return [random_matrix(np.random.default_rng(i), image_hw, input_hw, settings) for i in range(count)]


def test_whole_image_without_mirroring_is_the_letterbox():
    plain = Augment(crop="none", flip=0)
    for matrix in matrices(plain, 3):
        assert np.allclose(matrix, [[0.48, 0, 0], [0, 0.48, 32 - 0.48 * 60]])


def test_random_crops_span_the_scales_and_stay_off_the_border():
    settings = Augment(flip=0, scale=(0.6, 1.3))
    scales, centers = [], []
    for matrix in matrices(settings, 300):
        scales.append(96 / matrix[0, 0] / 200)
        inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
        centers.append(transform_points(np.array([[48.0, 32.0]]), inverse)[0])
    assert sorted({round(s, 2) for s in scales}) == [0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3]
    x, y = np.array(centers).T
    # a border of 128 is halved to 64 for a side of 200 and to 32 for one of 120
    assert (x.min() > 63, x.max() < 136.5, y.min() > 31, y.max() < 88.5) == (True,) * 4
    assert np.ptp(x) > 60
    assert np.ptp(y) > 45


def test_crops_inside_show_the_image_and_nothing_else_as_far_as_they_fit():
    """The image is 120 x 200, the input 64 x 96: from scale 0.9 on a window is higher than the image."""
    settings = Augment(flip=0, crop="inside", scale=(0.5, 0.95))
    seen = []
    for matrix in matrices(settings, 300):
        inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
        (left, top), (right, bottom) = transform_points(np.array([[0.0, 0], [96, 64]]), inverse)
        assert -1e-6 < left < right < 200 + 1e-6
        fits = bottom - top <= 120
        if fits:
            assert -1e-6 < top < bottom < 120 + 1e-6
        else:
            assert top < 1e-6 < 119.9 < bottom
        seen.append((left, top, (right - left) / 200))
    lefts, tops, scales = np.array(seen).T
    assert (scales.min() < 0.52, scales.max() > 0.93) == (True, True)
    assert (np.ptp(lefts) > 80, np.ptp(tops) > 40) == (True, True)


@pytest.mark.parametrize(("name", "axis", "size"), [("flip", 0, 96), ("flip_vertical", 1, 64)])
def test_mirror_images_put_the_first_pixel_last(name, axis, size):
    straight = matrices(Augment(crop="none", flip=0), 1)[0]
    mirrored = matrices(Augment(crop="none", **{"flip": 0, name: 1}), 1)[0]
    points = np.array([[10.0, 20.0], [150.0, 70.0]])
    expected = transform_points(points, straight)
    expected[:, axis] = size - 1 - expected[:, axis]
    assert np.allclose(transform_points(points, mirrored), expected)


def test_transposing_swaps_the_axes_of_a_view_of_the_swapped_input():
    """Whole images, then crops: a transposed view shows what an upright one of 96 x 64 shows, rows as columns."""
    for plain in (Augment(crop="none", flip=0), Augment(crop="inside", flip=0, scale=(0.3, 0.5))):
        always = plain.model_copy(update={"transpose": 1.0})
        for seed in range(5):
            transposed = random_matrix(np.random.default_rng(seed), (120, 200), (64, 96), always)
            rng = np.random.default_rng(seed)
            rng.random()
            assert np.array_equal(transposed[::-1], random_matrix(rng, (120, 200), (96, 64), plain))
    half = matrices(Augment(crop="none", flip=0, transpose=0.5), 100)
    assert 30 < sum(matrix[0, 0] == 0 for matrix in half) < 70


def test_rotated_boxes_are_bounded():
    turn = np.array([[0.0, -1, 30], [1, 0, 5]])
    assert warp_boxes(np.array([[2, 4, 10, 8]], np.float32), turn).tolist() == [[22, 7, 26, 15]]
    assert warp_boxes(np.zeros((0, 4), np.float32), turn).shape == (0, 4)


def test_rotation_and_shift_vary_the_view():
    shifted = np.array(matrices(Augment(crop="shift", rotate=10), 20))
    assert np.std(shifted[:, 0, 1]) > 0
    assert np.std(shifted[:, 0, 2]) > 0


def test_colours_depend_on_the_generator_alone():
    image = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    first, again, other = (jitter_colors(np.random.default_rng(s), image, 0.4) for s in (1, 1, 2))
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.allclose(jitter_colors(np.random.default_rng(1), image, 0.0), image, atol=1)
    shift = lighting_shift(np.random.default_rng(0), Augment(lighting=0.1))
    assert shift.shape == (3,)
    assert 0 < np.abs(shift).max() < 0.2
    assert np.abs(lighting_shift(np.random.default_rng(0), Augment(lighting=0))).max() == 0


def test_the_map_of_colours_is_the_originals_three_changes():
    """Against the three functions applied one after the other to floating values, grey taken once before."""
    image = np.random.default_rng(1).integers(0, 256, (7, 5, 3), np.uint8)
    for seed in range(5):
        found = color_map(np.random.default_rng(seed), image, 0.4, np.array([0.01, 0.02, 0.03], np.float32))
        rng = np.random.default_rng(seed)
        x = image / 255
        gray = x @ [0.114, 0.587, 0.299]
        for change in rng.permutation(3):
            alpha = 1 + rng.uniform(-0.4, 0.4)
            x = alpha * x + (1 - alpha) * (0, gray.mean(), gray[..., None])[change]
        batch = torch.from_numpy(image)[None]
        values = normalise(batch, (0, 0, 0), (1, 1, 1), lighting=torch.from_numpy(found)[None])[0]
        assert np.allclose(values.permute(1, 2, 0), x + np.array([0.01, 0.02, 0.03]), atol=1e-5)
