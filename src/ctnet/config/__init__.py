"""Recipes: their schema, how files and overrides become one frozen `Recipe`, and where each value came from."""

from ctnet.config.change import changed
from ctnet.config.families import CenterNet2Loss, CenterNet2Model, CenterNetLoss, CenterNetModel, Loss, Model
from ctnet.config.load import (
    DEFAULT_RECIPE,
    DEMO_RECIPE,
    FINE_TUNING_RECIPE,
    FINE_TUNING_RECIPES,
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
    "DEFAULT_RECIPE",
    "DEMO_RECIPE",
    "FINE_TUNING_RECIPE",
    "FINE_TUNING_RECIPES",
    "Augment",
    "CenterNet2Loss",
    "CenterNet2Model",
    "CenterNetLoss",
    "CenterNetModel",
    "Data",
    "Evaluation",
    "ExportMetadata",
    "LoadedRecipe",
    "Loss",
    "Model",
    "Optimizer",
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
]
