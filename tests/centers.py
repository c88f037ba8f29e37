"""Targets, losses and boxes of the family `centernet`, in cells, for tests of numbers."""

from types import SimpleNamespace

from ctnet.config import Recipe
from ctnet.families import family_of
from ctnet.types import Objects, Targets

STRIDE = 4


def center_family(*, heads=None, per_class=False, predict_offset=True, **loss):
    """Return the family with these settings of `loss`."""
    model = {"heads": heads, "class_specific_size": per_class, "predict_offset": predict_offset}
    return family_of(Recipe.model_validate({"model": model, "loss": loss}))


def encode_centers(boxes_cells, labels, num_classes, map_hw, *, rules="centernet", dense_size=False):
    """Return the targets of one image, by name, of boxes in cells."""
    family = center_family(targets=rules, size_targets="dense" if dense_size else "center")
    objects = Objects(boxes_cells * STRIDE, labels)
    maps, rows = family.encoder(num_classes)(objects, (map_hw[0] * STRIDE, map_hw[1] * STRIDE))
    return SimpleNamespace(heatmap=maps["heatmap"], dense_size=maps.get("size"), **rows)


def center_batch(heatmap, size, offset, cell, label, valid, dense_size=None):
    """Return the targets of a batch."""
    maps = {"heatmap": heatmap} | ({} if dense_size is None else {"size": dense_size})
    return Targets(maps, {"size": size, "offset": offset, "cell": cell, "label": label, "valid": valid})


def center_loss(family, outputs, targets, whole=None):
    """Return the total and its parts of a batch, or of a part of a `whole` one."""
    parts = family.compare(outputs, targets, family.normalisers(targets if whole is None else whole))
    return family.total(parts), parts


def decoded(heads, top_k, family=None):
    """Return boxes in cells, scores and labels of raw outputs."""
    instances = (family or center_family(predict_offset="offset" in heads)).decode(heads, top_k)
    return instances.boxes / STRIDE, instances.scores, instances.labels
