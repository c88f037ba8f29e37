"""Finding devices."""

import os
import subprocess
import sys

import pytest
import torch

from ctnet.devices import Probe, device_for_processes, device_names, open_device, open_for_rank
from ctnet.devices.cpu import CpuDevice
from ctnet.errors import ConfigError, DeviceUnavailable


def test_built_in_devices_come_through_entry_points():
    assert {"cpu", "cuda"} <= set(device_names())


def test_auto_always_finds_something():
    opened = open_device("auto")
    assert opened.torch_device.type in device_names()
    assert opened.reason


@pytest.mark.parametrize("spec", ["cpu", "cpu:0"])
def test_cpu(spec):
    opened = open_device(spec)
    assert opened.torch_device == torch.device("cpu")
    assert opened.plugin.probe().count == 1


def test_unknown_devices_name_the_nearest():
    with pytest.raises(ConfigError, match="unknown device 'cuad'") as caught:
        open_device("cuad")
    assert caught.value.facts["nearest"] == "cuda"


@pytest.mark.parametrize(("spec", "error"), [("cpu:x", ConfigError), ("cpu:1", DeviceUnavailable)])
def test_wrong_numbers(spec, error):
    with pytest.raises(error):
        open_device(spec)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a cuda device")
def test_a_device_that_is_not_here_says_why():
    with pytest.raises(DeviceUnavailable, match="no cuda device") as caught:
        open_device("cuda")
    assert caught.value.exit_code == 4
    assert caught.value.facts["reason"]


def test_a_plug_in_that_fails_to_load_is_named(monkeypatch):
    class Broken:
        name, value, dist = "broken", "libbroken:device", None

        def load(self):
            raise ImportError("libbroken.so not found")

    monkeypatch.setattr("ctnet.devices.registry.entry_points", lambda **_: [Broken()])
    with pytest.raises(DeviceUnavailable, match="'broken'") as caught:
        open_device("broken")
    assert "libbroken.so" in caught.value.facts["reason"]


class TwoCards(CpuDevice):
    """A device kind with two devices that compute on the CPU."""

    name = "pair"

    def probe(self):
        return Probe(2, "")

    def open(self, index):
        self.opened = index
        return torch.device("cpu")

    def ddp_device_ids(self, index):
        return [index]


def test_each_process_opens_a_card_of_its_own(monkeypatch):
    plugin = TwoCards()
    monkeypatch.setattr("ctnet.devices.registry.load_plugin", lambda name: plugin)
    open_for_rank("pair", 1, 2)
    assert plugin.opened == 1
    with pytest.raises(DeviceUnavailable, match="3 processes need as many pair devices") as caught:
        device_for_processes("pair", 3)
    assert caught.value.facts["found"] == "2"


def test_any_number_of_processes_share_the_processor():
    assert open_for_rank("cpu", 6, 7).torch_device == torch.device("cpu")
    with pytest.raises(ConfigError, match="needs its own device"):
        device_for_processes("cpu:0", 2)


def test_devices_name_their_backend():
    assert {name: device_for_processes(name, 1).ddp_backend for name in ["cpu"]} == {"cpu": "gloo"}


FIRST_CALLS = """
import os, sys
import torch
from ctnet.devices import open_device
from ctnet.devices.registry import load_plugin

torch.set_num_threads(1)
load_plugin("cpu")  # imports much, once
x = torch.linspace(1e-4, 1, 46_080)
for _ in range(80):  # one process in twelve was wrong, when two threads made the first call
    if os.fork() == 0:
        open_device("cpu")
        torch.set_num_threads(2)
        os._exit(not all(torch.equal(f(x), f(x)) for f in (torch.exp, torch.log, torch.sqrt)))
    if os.wait()[1]:
        sys.exit("a first call gave other numbers than the second")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs many processes within a second")
def test_the_first_exponentials_and_logarithms_are_those_of_every_later_call():
    done = subprocess.run([sys.executable, "-c", FIRST_CALLS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
