"""Deterministic pseudo-weights / pseudo-images. Needs numpy only."""

import zlib

import numpy as np


def recipe_tensor(key, shape, floating=True):
    """Value of one state_dict entry, from its name, shape and dtype class alone.

    Returns float32 (floating=True) or int64 (floating=False).
    Always draw in float64, scale in float64, then cast to float32.
    """
    shape = tuple(int(s) for s in shape)
    if not floating:  # e.g. num_batches_tracked
        return np.zeros(shape, np.int64)
    if len(shape) == 0:  # lone scalars (e.g. a learnable scale)
        return np.ones(shape, np.float32)
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode("utf-8"))))
    if len(shape) >= 2:  # conv / deconv / linear kernels
        fan_in = int(np.prod(shape[1:]))
        v = rng.standard_normal(shape) * np.sqrt(2.0 / fan_in)
        k = shape[-1]
        if len(shape) == 4 and k > 1 and k % 2 == 0:
            v = v * (k / 2)  # even kernels: the transposed convs
        if "conv_offset" in key:  # offset/mask branch of deformable convs
            v = v * 0.1
    elif key.endswith("running_mean"):
        v = rng.standard_normal(shape) * 0.1
    elif key.endswith("running_var"):
        v = rng.uniform(0.5, 1.5, shape)
    elif key.endswith("weight"):  # 1-d weight: normalisation gain
        v = rng.uniform(0.6, 1.2, shape)
        if key.endswith("bn3.weight") or (key.startswith("kps.") and key.endswith("bn2.weight")):
            v = v * 0.3  # last norm of bottleneck / hourglass residual blocks
    else:  # any other 1-d entry: a bias
        v = rng.standard_normal(shape) * 0.1
        if "conv_offset" in key:  # last third = mask logits: mostly open
            v[2 * (shape[0] // 3) :] += 2.0
    return v.astype(np.float32)


def recipe_image(shape, seed=0):
    """Network input, N x 3 x H x W float32, already 'normalised'."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return rng.standard_normal(tuple(shape)).astype(np.float32)


def rnd(name, shape):
    """Numbers of one draw, from their name and shape alone, float64."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode("utf-8")))).standard_normal(shape)
