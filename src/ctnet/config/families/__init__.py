"""The settings of each family of detectors: `model` and `loss` of a recipe, chosen by `model.family`."""

from __future__ import annotations

from typing import NamedTuple

from ctnet.config.families.base import Loss, Model
from ctnet.config.families.centerface import CenterFaceLoss, CenterFaceModel
from ctnet.config.families.centernet import CenterNetLoss, CenterNetModel
from ctnet.config.families.pose import PoseLoss, PoseModel

__all__ = [
    "DEFAULT",
    "SETTINGS",
    "CenterFaceModel",
    "CenterNetLoss",
    "CenterNetModel",
    "FamilySettings",
    "Loss",
    "Model",
    "PoseLoss",
    "PoseModel",
    "settings_of",
]


class FamilySettings(NamedTuple):
    """The classes that hold a family's settings."""

    model: type[Model]
    loss: type[Loss]


DEFAULT = "centernet"
"""the family of recipes, weights and exported files that name none, such as those of ctnet 0.1"""

SETTINGS: dict[str, FamilySettings] = {
    DEFAULT: FamilySettings(CenterNetModel, CenterNetLoss),
    "centerface": FamilySettings(CenterFaceModel, CenterFaceLoss),
    "pose": FamilySettings(PoseModel, PoseLoss),
}


def settings_of(family: object) -> FamilySettings:
    """Return the settings of the family. Raises ValueError for one that there is none of."""
    found = SETTINGS.get(family) if isinstance(family, str) else None
    if found is None:
        raise ValueError(f"a family of {', '.join(SETTINGS)}")
    return found
