"""Images of more than eight bits: which of their values become black and white."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ValueRange = tuple[float, float]
"""the values that become 0 and 255; those beyond are clipped"""

_BITS = (8, 10, 12, 14, 16)  # of sensors; values of fewer bits are often stored in more


def value_range_of(image: NDArray[Any]) -> ValueRange:
    """Return the range that the values of an image seem to come from.

    Values from 0 on come from the fewest bits of 8, 10, 12, 14 and 16 that hold them, floating ones up to 1 from 0..1;
    all others range from the smallest to the largest. Values that are not finite do not count.
    """
    finite = image[np.isfinite(image)] if image.dtype.kind == "f" else image
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    if low < 0 or high >= 1 << _BITS[-1]:
        return low, high
    if image.dtype.kind == "f" and high <= 1:
        return 0.0, 1.0
    return 0.0, float((1 << next(bits for bits in _BITS if high < 1 << bits)) - 1)


def to_eight_bits(image: NDArray[Any], value_range: ValueRange | None = None) -> tuple[NDArray[np.uint8], ValueRange]:
    """Return the image with the values of a range scaled to 0..255, and that range: its own unless one is given.

    NaN becomes 0.
    """
    low, high = value_range or value_range_of(image)
    step = 255 / (high - low) if high > low else 1.0
    scaled = np.nan_to_num((image.astype(np.float32) - np.float32(low)) * np.float32(step), posinf=255, neginf=0)
    return np.rint(scaled.clip(0, 255)).astype(np.uint8), (low, high)
