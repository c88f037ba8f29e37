"""A `last.pt` in which any part is wrong ends in one message that names it."""

import pytest
import torch

import forged
from ctnet.config import load_recipe
from ctnet.devices import open_device
from ctnet.engine.precision import choose_precision
from ctnet.engine.state import new_state, restore_state, save_state
from ctnet.errors import WeightsError
from ctnet.families import family_of
from ctnet.types import Category
from ctnet.weights.ctnet_file import read_state


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A recipe, and the state that it has after one update."""
    overrides = [
        "data.image_size=64",
        "model.neck_channels=[16,16,16]",
        "model.head_channels=0",
        "optimizer.name=adamw",
    ]
    recipe = load_recipe("centernet_mobilenetv2", overrides).recipe
    state, device = _fresh(recipe)
    for parameter in state.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    state.optimizer.step()
    state.step = 1
    file = tmp_path_factory.mktemp("run") / "last.pt"
    save_state(file, state, recipe, (Category(1, "a"), Category(2, "b")), "data", device)
    return recipe, file


def _fresh(recipe):
    device = open_device("cpu")
    return new_state(family_of(recipe), 2, device, choose_precision("fp32", device), 1e-3), device


def test_the_state_itself_goes_on(run):
    recipe, file = run
    content, about = read_state(file)
    state, device = _fresh(recipe)
    restore_state(content, state, device, file)
    assert (state.step, about.recipe, about.categories) == (1, recipe, (Category(1, "a"), Category(2, "b")))
    for name, tensor in state.network.state_dict().items():
        assert torch.equal(tensor, content["model"][name])


def test_every_forged_part_is_told_with_the_file(run, tmp_path):
    recipe, file = run
    state, device = _fresh(recipe)

    def answer(forgery):
        try:
            restore_state(read_state(forgery)[0], state, device, forgery)
        except WeightsError as error:
            return str(error)
        return "accepted"

    answers = {what: answer(forgery) for what, forgery in forged.forged_states(file, tmp_path / "forged.pt")}
    assert [what for what, text in answers.items() if "forged.pt" not in text] == []
