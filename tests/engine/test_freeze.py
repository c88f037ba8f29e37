import pytest
import torch

from ctnet.config import load_recipe
from ctnet.devices import open_device
from ctnet.engine.freeze import backbone_parts
from ctnet.engine.precision import choose_precision
from ctnet.engine.processes.world import World
from ctnet.engine.state import new_state
from ctnet.engine.step import Updater
from ctnet.engine.trainer import training_samples
from ctnet.errors import ConfigError
from ctnet.families import family_of

SMALL = ["data.image_size=64", "model.neck_channels=[16,16,16]", "model.head_channels=16", "train.amp=fp32"]


def state_of(freeze, recipe="centernet_res18_lateral", *more):
    recipe = load_recipe(recipe, [*SMALL, f"train.freeze={freeze}", *more]).recipe
    device = open_device("cpu")
    precision = choose_precision("fp32", device)
    return new_state(family_of(recipe), 6, device, precision, 1e-3), recipe, device, precision


@pytest.mark.parametrize(
    ("freeze", "names"), [("backbone", "backbone."), (3, ("backbone.conv1", "backbone.bn1", "backbone.layer1"))]
)
def test_frozen_weights_and_statistics_stay_and_the_others_learn(freeze, names, small_set):
    from ctnet.data.dataset import open_dataset
    from ctnet.data.loader import collate

    state, recipe, device, precision = state_of(freeze)
    before = {name: value.clone() for name, value in state.network.state_dict().items()}
    samples = training_samples(open_dataset(small_set, "train"), recipe)
    batch = collate([samples[0, i] for i in range(2)])
    updater = Updater(state, device, precision, World())
    for _ in range(2):
        assert bool(updater.update([batch], 1e-3).finite)
    changed = {name for name, value in state.network.state_dict().items() if not torch.equal(value, before[name])}
    assert not {name for name in changed if name.startswith(names)}
    assert any(name.startswith("heads") for name in changed)
    assert any(name.startswith("backbone.layer4") for name in changed) == (freeze != "backbone")
    assert "M parameters" in state.frozen


def test_parts_are_counted_in_every_kind_of_backbone():
    for recipe in ("centernet_mobilenetv2", "centernet_dla34"):
        network = family_of(load_recipe(recipe, []).recipe).build(2)
        assert len(backbone_parts(network)) >= 5


def test_more_parts_than_there_are_is_an_error_that_lists_them():
    with pytest.raises(ConfigError, match=r"backbone\.layer4"):
        state_of(99)
