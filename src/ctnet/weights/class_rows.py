"""Reorder the class rows of the last layers of heads to the classes of another data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ctnet.errors import listed
from ctnet.families import Family
from ctnet.types import Category, counted_names
from ctnet.weights.class_names import are_placeholders

_PARTS = ("weight", "bias")  # of a layer


def rows_by_class(
    family: Family,
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    theirs: Sequence[Category],
    ours: Sequence[Category],
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors with each class's rows where the network has it, and a sentence if that changed anything.

    Classes are the same when their names are; those of one name follow in their order. Those that the file lacks keep
    the network's own, fresh rows. Where the file does not name its classes, or heads are of another width, nothing
    changes.
    """
    names, wanted = counted_names(theirs), counted_names(ours)
    changed = dict(tensors)
    if names == wanted or are_placeholders(theirs):
        return changed, []
    source_of = {label: names.index(name) for label, name in enumerate(wanted) if name in names}
    own = network.state_dict()
    layers = [(f"{name}.{part}", n, more) for name, n, more in family.class_layers(network) for part in _PARTS]
    for name, each, more in layers:
        if name not in tensors or own[name].shape[1:] != tensors[name].shape[1:]:
            return dict(tensors), []
        here, there = each * len(ours), each * len(theirs)
        if (len(own[name]), len(tensors[name])) != (here + more, there + more):
            continue  # sizes that all classes share
        if each == 2 and len(ours) == 1:
            continue  # sizes of the only class: shared ones look the same
        rows = own[name][:here].detach().clone().reshape(len(ours), each, *own[name].shape[1:])
        given = tensors[name][:there].reshape(len(theirs), each, *rows.shape[2:])
        for label, source in source_of.items():
            rows[label] = given[source]
        changed[name] = torch.cat([rows.flatten(0, 1), tensors[name][there:]])
    kept = [ours[label].name for label in source_of]
    fresh = [category.name for label, category in enumerate(ours) if label not in source_of]
    parts = [f"{what}: {listed(part)}" for what, part in (("kept", kept), ("stay random", fresh)) if part]
    return changed, [f"classes of the weights by name; {'; '.join(parts)}"]
