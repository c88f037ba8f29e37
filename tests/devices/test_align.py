"""ctnet bench align on emulated cards and on devices that compute wrong numbers."""

import json
from pathlib import Path

import pytest

from ctnet.data.demo import write_demo
from ctnet.devices.cpu.native import ISA_VARIABLE

EMULATED = Path(__file__).parents[1] / "emulated"
TINY = (
    "model.neck=deform", "optimizer.lr=2e-3",
    "model.neck_channels=[16,16,16]", "model.head_channels=16", "data.workers=0", "optimizer.name=sgd",
    "--image-size", "64x96", "--batch-size", 5,
)  # fmt: skip

BENT = """
from ctnet.devices.cpu import CpuDevice

class Bent(CpuDevice):
    name = "bent"
    def arrange(self, network, *, channels_last):
        for parameter in network.parameters():
            parameter.register_hook(lambda gradient: gradient * {factor})
        return super().arrange(network, channels_last=channels_last)

device = Bent
"""


def test_emulated_devices_are_aligned_with_the_processor_and_with_each_other(session, tmp_path):
    data = write_demo(tmp_path / "shapes", images_train=12, images_val=6, seed=3, size=(96, 120))
    align = ["bench", "align", "demo", "--data", data, *TINY, "--steps", 4, "--json"]
    done = session(
        [*align, "--devices", "cpu,sdaa"],
        [*align, "--devices", "sdaa,npu"],
        path=[EMULATED],
        variables={ISA_VARIABLE: "reference", "CTNET_HOME": str(tmp_path / "home")},
    )
    for code, _, err in done:
        assert code == 0, err
    (exact, near) = (json.loads(out) for _, out, _ in done)
    assert exact["gate"]["largest_relative_error"] < 1e-6, "float32, but for the order of sums"
    assert near["gate"]["largest_relative_error"] < 1e-4
    assert [near["runs"][role]["device"] for role in ("first", "second")] == ["sdaa:0", "npu:0"]
    assert "emulated" in near["runs"]["second"]["machine"]["device_name"]


@pytest.mark.parametrize(
    ("factor", "code", "words"),
    [
        ("-1", 3, "forward passes agree"),
        ("float('nan')", 5, "step 1 on bent: the loss or its gradient"),
    ],
    ids=["wrong gradients", "gradients that are not finite"],
)
def test_a_device_that_computes_wrong_gradients_is_found_out(ctnet, plugin, small_set, factor, code, words):
    plugin("bent", BENT.format(factor=factor))
    flags = ("--data", small_set, "--devices", "cpu,bent", "--steps", 5, "optimizer.lr=0.1", "schedule.warmup=0")
    got, _, err = ctnet("bench", "align", "demo", *TINY, *flags)
    assert got == code, err
    assert words in err
