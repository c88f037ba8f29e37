"""Weights of classes by the number of their boxes (Cui et al., "Class-Balanced Loss", 2019)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctnet.config import Recipe, changed
from ctnet.types import AnnotationSet

BETA = 0.999


def with_class_weights(recipe: Recipe, annotations: AnnotationSet) -> Recipe:
    """Return the recipe with numbers for `loss.class_weights=effective`, so that a resumed run has the same ones."""
    if getattr(recipe.loss, "class_weights", "none") != "effective":
        return recipe
    labels = np.concatenate([image.labels[~image.crowd] for image in annotations.images])
    weights = effective_weights(np.bincount(labels, minlength=len(annotations.categories)))
    return changed(recipe, {"loss.class_weights": tuple(round(float(weight), 6) for weight in weights)})


def effective_weights(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return (1 - b) / (1 - b^n) of each count n, at least 1, scaled to a mean of 1 (equation 2 and section 4)."""
    weights = (1 - BETA) / (1 - BETA ** np.maximum(counts, 1))
    return np.asarray(weights / weights.mean())
