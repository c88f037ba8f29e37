"""Recipes: their schema, how files and overrides become one frozen `Recipe`, and where each value came from."""

from ctnet.config.families import CenterNetLoss, CenterNetModel, Loss, Model
from ctnet.config.load import LoadedRecipe, load_recipe, recipe_from_dict, recipe_names, recipe_titles
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
    "Augment",
    "CenterNetLoss",
    "CenterNetModel",
    "Data",
    "Evaluation",
    "LoadedRecipe",
    "Loss",
    "Model",
    "Optimizer",
    "Recipe",
    "Schedule",
    "Train",
    "load_recipe",
    "recipe_from_dict",
    "recipe_names",
    "recipe_titles",
]
