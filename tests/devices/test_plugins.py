"""Plug-ins from outside: found, refused with one message, put through the conformance suite."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "mydevice"

WORKING = """
import torch
from ctnet.devices.base import Probe
from ctnet.devices.torch_device import TorchDevice

class Device(TorchDevice):
    name = "testdevice"
    def probe(self): return Probe(1, "a test")
    def open(self, index): return torch.device("cpu")

device = Device
"""


def refused(ctnet, name, code):
    """Return what the command line says when told to use the device."""
    got, out, err = ctnet("train", "--device", name, "--max-steps", 1)
    assert got == code, err
    assert out == ""
    assert "Traceback" not in err
    return err


def test_a_plug_in_is_found_by_its_entry_point_and_told_by_doctor(ctnet, plugin):
    plugin("testdevice", WORKING)
    code, out, _ = ctnet("doctor", "--json")
    assert code == 0
    found = json.loads(out)["devices"]["testdevice"]
    assert (found["count"], found["reason"], found["ddp_backend"]) == (1, "a test", "gloo")
    assert set(found["kernels"].values()) == {"reference (this device has no kernels)"}


@pytest.mark.parametrize(("name", "package"), [("npu", "torch_npu"), ("sdaa", "torch_sdaa")])
def test_a_vendors_device_without_its_package_says_what_is_missing(ctnet, name, package):
    assert f"{package} is not installed" in refused(ctnet, name, 4)


def test_an_unknown_device_names_the_nearest(ctnet, plugin):
    plugin("testdevice", WORKING)
    message = refused(ctnet, "testdevise", 2)
    assert "unknown device 'testdevise'" in message
    assert "nearest  testdevice" in message


@pytest.mark.parametrize(
    "source", ["raise OSError('libdevice.so is missing')", "def device(): raise OSError('libdevice.so is missing')"]
)
def test_a_plug_in_that_raises_is_named_with_its_package(ctnet, plugin, source):
    plugin("testdevice", source)
    message = refused(ctnet, "testdevice", 4)
    assert "somebodys-plugin 1.0" in message
    assert "OSError: libdevice.so is missing" in message
    code, out, _ = ctnet("doctor")
    assert code == 0
    assert "libdevice.so is missing" in out


def test_a_plug_in_whose_probe_raises_breaks_neither_doctor_nor_the_automatic_choice(ctnet, plugin):
    plugin("testdevice", WORKING.replace('return Probe(1, "a test")', "raise OSError('no driver')"))
    code, out, _ = ctnet("doctor")
    assert code == 0
    assert "the plug-in fails: OSError: no driver" in out
    from ctnet.devices import open_device

    assert "no driver" in open_device("auto").reason


def test_a_probe_that_raises_without_a_word_is_told_by_its_kind(plugin):
    plugin("testdevice", WORKING.replace('return Probe(1, "a test")', "raise AssertionError"))
    from ctnet.devices import open_device

    assert "testdevice: AssertionError" in open_device("auto").reason


def test_two_plug_ins_of_one_name_are_refused_with_both_packages(ctnet, plugin):
    plugin("testdevice", WORKING, package="one-plugin")
    plugin("testdevice", WORKING, package="other-plugin")
    message = refused(ctnet, "testdevice", 2)
    assert "one-plugin 1.0 (one_plugin:device), other-plugin 1.0 (other_plugin:device)" in message
    assert "uninstall" in message


def test_cards_hidden_by_the_environment_are_explained(ctnet, plugin, monkeypatch):
    plugin("testdevice", WORKING.replace("    def open", '    visible_env = "TEST_VISIBLE_DEVICES"\n    def open'))
    monkeypatch.setenv("TEST_VISIBLE_DEVICES", "3")
    message = refused(ctnet, "testdevice:1", 4)
    assert "TEST_VISIBLE_DEVICES  3" in message


def test_torch_npu_without_its_driver_breaks_no_command_and_is_explained(session, plugin):
    source = "raise ImportError('libhccl.so: cannot open shared object file')"
    folder = plugin("torch_npu", source, package="torch-npu", group="torch.backends")
    doctor, train, elsewhere = session(
        ["doctor"], ["train", "--device", "npu"], ["config", "list"], path=[folder], variables={}
    )
    assert (doctor[0], train[0], elsewhere[0]) == (0, 4, 0)
    for said in (doctor[1], train[2]):
        assert "torch_npu does not import: ImportError: libhccl.so" in said
        assert "TORCH_DEVICE_BACKEND_AUTOLOAD=0" in said


def test_the_example_installs_and_keeps_the_contract(conformance, tmp_path):
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    source = tmp_path / "source"  # building writes beside the sources
    source.mkdir()
    for file in EXAMPLE.iterdir():
        (source / file.name).write_text(file.read_text())
    subprocess.run([*command, "--target", tmp_path / "site", source], check=True, capture_output=True, timeout=200)
    code, out, err = conformance("--device", "mydevice", "--json", path=[tmp_path / "site"])
    assert code == 0, out + err
    document = json.loads(out)
    assert (document["schema"], document["device"], document["passed"]) == ("ctnet.conformance/1", "mydevice", True)
    outcomes = {row["check"]: row["outcome"] for row in document["checks"]}
    assert outcomes["all-reduce and DDP, 2 processes"] == "passed"
    assert outcomes["training step, bfloat16"] == "passed"
    assert outcomes["peak_memory"] == "skipped"


WRONG = """
import torch
from contextlib import nullcontext
from ctnet.devices.base import Probe
from ctnet.devices.torch_device import TorchDevice, register
from ctnet.ops import deform_conv_reference, upsample

def swapped(input, offset, weight, bias, mask, *sampling):
    n, _, h, w = offset.shape
    flipped = offset.reshape(n, -1, 2, h, w).flip(2).reshape(offset.shape)
    return deform_conv_reference.forward(input, flipped, weight, bias, mask, *sampling)

def no_gradient(grad_output, input, weight, stride, padding):
    return torch.zeros_like(input), torch.zeros_like(weight)

class Device(TorchDevice):
    name = "testdevice"
    def probe(self): return Probe(1, "a test")
    def open(self, index): return torch.device("cpu")
    def autocast(self, dtype): return nullcontext()
    def grad_scaler(self, *, enabled): return torch.amp.GradScaler("cpu", enabled=False)
    def register_kernels(self):
        register("CPU", {"deform_conv2d": swapped, "depthwise_upsample_backward": no_gradient})
        return super().register_kernels()

device = Device
"""


def test_the_suite_finds_what_is_wrong(conformance, plugin, monkeypatch):
    monkeypatch.setenv("CTNET_CPU_ISA", "reference")  # the compiled kernels would hold the same dispatch key
    folder = plugin("testdevice", WRONG)
    code, out, _ = conformance("--device", "testdevice", "--processes", 1, path=[folder])
    assert code == 3
    failed = {line[8:60].strip() for line in out.splitlines() if line.startswith("failed")}
    for check in (
        "precisions", "deform_conv2d, 3x3", "deform_conv2d, groups 2", "depthwise_upsample, by 2",
        "deform_conv2d, autocast bfloat16", "grad_scaler, state", "grad_scaler, overflow",
    ):  # fmt: skip
        assert check in failed
    assert "decode_peaks, ties and plateaus" not in failed


def test_a_device_that_is_not_here_ends_the_suite_with_its_exit_code(conformance):
    code, out, err = conformance("--device", "npu")
    assert (code, out) == (4, "")
    assert "torch_npu is not installed" in err
