"""Settings that have no effect in a combination: each with the condition under which it has one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ctnet.config.families import CenterNetLoss, CenterNetModel
from ctnet.config.schema import Recipe

Condition = tuple[Callable[[Recipe], bool], str]


def _crop(*names: str) -> Condition:
    return lambda recipe: recipe.augment.crop in names, f"augment.crop={' or '.join(names)}"


def _optimizer(*names: str) -> Condition:
    return lambda recipe: recipe.optimizer.name in names, f"optimizer.name={' or '.join(names)}"


def _schedule(*names: str) -> Condition:
    return lambda recipe: recipe.schedule.name in names, f"schedule.name={' or '.join(names)}"


def _has_deformable_layers(recipe: Recipe) -> bool:
    model = recipe.model
    return not isinstance(model, CenterNetModel) or (model.neck == "deform" and bool(model.row.necks))


def _has_head(role: str) -> Callable[[Recipe], bool]:
    def has(recipe: Recipe) -> bool:
        return not isinstance(recipe.model, CenterNetModel) or any(role in name for name in recipe.model.head_names)

    return has


def _squares(recipe: Recipe) -> bool:
    return not isinstance(recipe.loss, CenterNetLoss) or recipe.loss.heatmap_form == "mse"


_ADAM = _optimizer("adam", "adamw", "muon")
_LIGHTING: Condition = (lambda recipe: recipe.augment.lighting > 0, "augment.lighting above 0")
_RESIZED: Condition = (lambda recipe: not recipe.evaluation.keep_res, "evaluation.keep_res=false")

NEEDS: Mapping[str, Condition] = {
    "augment.border": _crop("random"),
    "augment.scale": _crop("random", "inside"),
    "augment.shift": _crop("shift"),
    "augment.scale_jitter": _crop("shift"),
    "augment.rotate_probability": (lambda recipe: recipe.augment.rotate > 0, "augment.rotate above 0"),
    "augment.jitter": (lambda recipe: recipe.augment.photometric > 0, "augment.photometric above 0"),
    "augment.eigenvalues": _LIGHTING,
    "augment.eigenvectors": _LIGHTING,
    "optimizer.betas": _ADAM,
    "optimizer.eps": _ADAM,
    "optimizer.momentum": _optimizer("sgd", "muon"),
    "optimizer.offset_lr": (_has_deformable_layers, "deformable layers"),
    "optimizer.lr_batch": (lambda recipe: recipe.optimizer.lr_scaling != "none", "optimizer.lr_scaling"),
    "optimizer.decay": (lambda recipe: recipe.optimizer.weight_decay > 0, "optimizer.weight_decay above 0"),
    "schedule.milestones": _schedule("multistep"),
    "schedule.gamma": _schedule("multistep"),
    "schedule.power": _schedule("poly"),
    "schedule.final": _schedule("onecycle", "cosine", "poly"),
    "schedule.warmup_start": (
        lambda recipe: (recipe.schedule.warmup_steps or recipe.schedule.warmup) > 0, "a warm-up",
    ),
    "loss.offset": (_has_head("offset"), "a head that predicts the offset"),
    "loss.sigma": (_squares, "loss.heatmap_form=mse"),
    "train.overflows": (lambda recipe: recipe.train.loss_scale != "off", "loss scaling"),
    "evaluation.test_scale": _RESIZED,
    "evaluation.image_size": _RESIZED,
}  # fmt: skip


def without_effect(recipe: Recipe, sources: Mapping[str, str], named: str | None = None) -> list[str]:
    """Return a sentence about each setting of the command line, or of the file `named`, that has no effect here."""
    found = []
    for key, (applies, needed) in NEEDS.items():
        source = sources.get(key, "default")
        given = source == "command line" or (source.startswith("--") and " " not in source) or source == named
        if given and not applies(recipe):
            found.append(f"{key} has no effect without {needed}")
    return found
