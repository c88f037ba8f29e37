"""Repeat-factor sampling: images with rare classes are shown more often (Gupta et al., "LVIS", 2019, section 5.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ctnet.types import AnnotationSet, Int64

Factors = NDArray[np.float64]


def repeat_factors(annotations: AnnotationSet, threshold: float) -> Factors | None:
    """Return how often each image is shown in an epoch on average, at least 1; None where nothing is repeated.

    A class in the part f of all images has the factor max(1, sqrt(threshold / f)), an image that of its rarest class.
    """
    if not threshold:
        return None
    present = [np.unique(image.labels[~image.crowd]) for image in annotations.images]
    counts = np.bincount(np.concatenate(present), minlength=len(annotations.categories)) if present else np.zeros(0)
    of_class = np.maximum(1, np.sqrt(threshold * len(present) / np.maximum(counts, 1)))
    factors = np.array([of_class[labels].max(initial=1.0) for labels in present])
    return factors if (factors > 1).any() else None


def draw(factors: Factors, samples: int, rng: np.random.Generator) -> tuple[Int64, Int64]:
    """Return the images (samples,) of an epoch and which repetition of its image each is, from 0.

    An image comes as often as its factor says, rounded up or down at random.
    """
    ends = np.cumsum(factors)
    places = (np.arange(samples) + rng.random()) * (ends[-1] / samples)
    images = np.minimum(np.searchsorted(ends, places, side="right"), len(factors) - 1)
    first = np.searchsorted(images, images)  # they are sorted
    return images, np.arange(samples) - first
