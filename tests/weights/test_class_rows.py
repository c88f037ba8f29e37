"""Fine-tuning for other classes: what the weights know of a class stays with its name."""

import pytest
import torch

from ctnet.config import CenterNetModel, Recipe
from ctnet.families import build_network, family_of
from ctnet.types import Category
from ctnet.weights.class_rows import rows_by_class

FAMILY = family_of(Recipe())
OLD = tuple(Category(i, name) for i, name in enumerate(("cup", "fork", "spoon", "knife")))
NAMES = ("heads.heatmap_logits.2.weight", "heads.heatmap_logits.2.bias")


def networks(count, **settings):
    """Return the tensors of a network of the old classes, and a network of `count` others."""
    torch.manual_seed(3)
    return tuple(build_network(CenterNetModel(neck="conv", **settings), n) for n in (len(OLD), count))


@pytest.mark.parametrize(
    "names", [("knife", "cup", "spoon", "fork"), ("plate", "fork"), ("dish", "bowl", "mug", "pan")]
)
def test_rows_follow_the_names(names):
    old, new = networks(len(names))
    before, given = {k: v.clone() for k, v in new.state_dict().items()}, old.state_dict()
    tensors, (sentence,) = rows_by_class(
        FAMILY, new, given, OLD, [Category(9 + i, name) for i, name in enumerate(names)]
    )
    known = [c.name for c in OLD]
    for tensor in NAMES:
        for label, name in enumerate(names):
            wanted = given[tensor][known.index(name)] if name in known else before[tensor][label]
            assert torch.equal(tensors[tensor][label], wanted), (tensor, name)
    assert {k for k in tensors if tensors[k] is not given[k]} == set(NAMES)
    assert all((f"stay random: {name}" in sentence or f", {name}" in sentence) for name in names if name not in known)


def test_sizes_of_their_own_go_with_their_class():
    old, new = networks(2, class_specific_size=True)
    family = family_of(Recipe.model_validate({"model": {"class_specific_size": True}}))
    tensors, _ = rows_by_class(family, new, old.state_dict(), OLD, [Category(1, "knife"), Category(2, "fork")])
    given = old.state_dict()["heads.size.2.weight"]
    assert torch.equal(tensors["heads.size.2.weight"], torch.cat([given[6:8], given[2:4]]))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [(OLD, OLD), ([Category(i, f"class {i}") for i in (1, 2, 3, 4)], [Category(7, n) for n in "abcd"])],
    ids=["the same", "names that say nothing"],
)
def test_nothing_moves_without_need(theirs, ours):
    old, new = networks(4)
    tensors, sentences = rows_by_class(FAMILY, new, old.state_dict(), theirs, ours)
    assert sentences == []
    assert all(torch.equal(tensors[name], tensor) for name, tensor in old.state_dict().items())


def test_classes_of_one_name_follow_in_their_order():
    old, new = networks(4)
    twice = [Category(i, name) for i, name in enumerate(("cup", "fork", "cup", "knife"))]
    tensors, _ = rows_by_class(FAMILY, new, old.state_dict(), twice, [twice[i] for i in (3, 0, 1, 2)])
    given = old.state_dict()[NAMES[0]]
    assert torch.equal(tensors[NAMES[0]], given[[3, 0, 1, 2]])


def test_sizes_of_an_only_class_stay():
    torch.manual_seed(4)
    old, new = (build_network(CenterNetModel(neck="conv"), 1) for _ in range(2))
    tensors, _ = rows_by_class(FAMILY, new, old.state_dict(), [Category(1, "cat")], [Category(1, "dog")])
    assert torch.equal(tensors["heads.size.2.weight"], old.state_dict()["heads.size.2.weight"])
    assert torch.equal(tensors[NAMES[0]], new.state_dict()[NAMES[0]])
