"""What a checkpoint holds, whatever the device it was written on."""

import torch
from torch import nn

from ctnet.config import Recipe, load_recipe
from ctnet.devices import open_device
from ctnet.engine.state import TrainingState, restore_state, save_state
from ctnet.families import family_of
from ctnet.types import Category


class Elsewhere(type(open_device("cpu").plugin)):
    """A device with a generator of its own."""

    def __init__(self, name):
        self.name = name
        self.state = torch.arange(4, dtype=torch.uint8)
        self.restored = None

    def rng_state(self):
        return self.state

    def set_rng_state(self, state):
        self.restored = state


def fresh(weight=1.0):
    network = nn.Linear(2, 1, bias=False)
    nn.init.constant_(network.weight, weight)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    return TrainingState(family_of(Recipe()), network, None, optimizer, torch.amp.GradScaler("cpu", init_scale=8.0))


def opened(name):
    device = open_device("cpu")
    return type(device)(Elsewhere(name), device.torch_device, "a test")


def written(path, device):
    state = fresh(3.0)
    state.network(torch.ones(1, 2)).sum().backward()
    state.optimizer.step()
    state.step = 5
    save_state(path, state, load_recipe("demo").recipe, (Category(1, "cup"),), "data", device)
    return state, torch.load(path, weights_only=True)


def test_a_state_goes_on_on_another_device_but_for_the_devices_own_generator(tmp_path):
    state, content = written(tmp_path / "last.pt", opened("one"))
    assert content["rng"]["device_name"] == "one"
    again, same, other = fresh(), opened("one"), opened("other")
    restore_state(content, again, other, tmp_path)
    assert torch.equal(again.network.weight, state.network.weight)
    assert (again.step, again.scaler.state_dict()) == (5, state.scaler.state_dict())
    assert other.plugin.restored is None
    restore_state(content, fresh(), same, tmp_path)
    assert torch.equal(same.plugin.restored, torch.arange(4, dtype=torch.uint8))
