"""Recipes: their schema, how files and overrides become one frozen `Recipe`, and where each value came from."""

from ctnet.config.change import changed
from ctnet.config.families import (
    DEFAULT,
    CenterFaceModel,
    CenterNetLoss,
    CenterNetModel,
    Loss,
    Model,
    PoseLoss,
    PoseModel,
    settings_of,
)
from ctnet.config.load import (
    DEFAULT_RECIPE,
    DEMO_RECIPE,
    FINE_TUNING_RECIPE,
    LoadedRecipe,
    load_recipe,
    recipe_from_dict,
    recipe_names,
    recipe_titles,
)
from ctnet.config.metadata import ExportMetadata, StateMetadata, WeightsMetadata, parse_metadata, read_metadata
from ctnet.config.schema import (
    Augment,
    Data,
    Evaluation,
    Optimizer,
    Recipe,
    Schedule,
    Train,
)

__all__ = [
    "DEFAULT",
    "DEFAULT_RECIPE",
    "DEMO_RECIPE",
    "FINE_TUNING_RECIPE",
    "Augment",
    "CenterFaceModel",
    "CenterNetLoss",
    "CenterNetModel",
    "Data",
    "Evaluation",
    "ExportMetadata",
    "LoadedRecipe",
    "Loss",
    "Model",
    "Optimizer",
    "PoseLoss",
    "PoseModel",
    "Recipe",
    "Schedule",
    "StateMetadata",
    "Train",
    "WeightsMetadata",
    "changed",
    "load_recipe",
    "parse_metadata",
    "read_metadata",
    "recipe_from_dict",
    "recipe_names",
    "recipe_titles",
    "settings_of",
]
