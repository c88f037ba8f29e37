"""The plug-ins of npu and sdaa, unchanged, on emulated devices: see `tests/emulated/README.md` for what that proves."""

import json
import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from ctnet.devices.cpu.native import ISA_VARIABLE
from ctnet.devices.npu import NpuDevice
from ctnet.devices.sdaa import SdaaDevice
from ctnet.errors import ConfigError
from ctnet.weights.ctnet_file import save_weights
from ctnet.weights.opening import load_network, open_weights
from lively import lively

EMULATED = Path(__file__).parents[1] / "emulated"
# Steps of SGD keep differences small; a step of Adam turns the sign of a rounding error into a whole step.
TINY = (
    "model.neck=deform", "optimizer.lr=2e-3",
    "model.neck_channels=[16,16,16]", "model.head_channels=16", "data.image_size=64", "data.workers=0",
    "train.batch_size=4", "augment.photometric=0", "train.log_every=1", "optimizer.name=sgd", "--epochs", "2",
)  # fmt: skip
LOSS_BOUND, WEIGHT_BOUND = 1e-4, 1e-4
# The processor updates weights in one pass, which may round otherwise; what is compared does what the cards do.
PLAIN_UPDATES = "from ctnet.devices.cpu import CpuDevice; CpuDevice.fused_optimizer = False"


def state(folder):
    return torch.load(folder / "checkpoints" / "last.pt", weights_only=True)


def losses(folder):
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [event["loss"] for event in events if event["event"] == "step"]


def farthest(one, other):
    """Return the largest difference between two states' weights, relative to the largest weight of all."""
    pairs = [(value.float(), other["model"][name].float()) for name, value in one["model"].items()]
    largest = max(float(a.abs().max()) for a, _ in pairs)
    return max(float((a - b).abs().max()) for a, b in pairs) / largest


def write_lively(run, path):
    """Write a network like the run's that answers each cell differently: in what has learned little, cells tie."""
    weights = open_weights(run / "checkpoints" / "best.safetensors")
    torch.manual_seed(5)
    network = lively(load_network(weights, run)[0], (64, 64))
    save_weights(path, replace(weights, tensors=network.state_dict()))


def in_order(detections):
    """Return rows of results by image and class, the best first."""
    return sorted(detections, key=lambda row: (row["image_id"], row["category_id"], -row["score"]))


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory, session):
    """A folder with a data set, a whole run and half a run of the references on the processor."""
    from ctnet.data.demo import write_demo

    folder = tmp_path_factory.mktemp("devices")
    data = write_demo(folder / "shapes", images_train=12, images_val=6, seed=3, size=(96, 120))
    train = ["train", "--data", data, "--device", "cpu", "--amp", "off", *TINY]
    done = session(
        [*train, "--out", folder / "whole"],
        [*train, "--out", folder / "half", "--max-steps", 3],
        variables={ISA_VARIABLE: "reference", "CTNET_HOME": str(folder / "home")},
        first=PLAIN_UPDATES,
    )
    assert [code for code, _, _ in done] == [0, 0], done
    write_lively(folder / "whole", folder / "lively.safetensors")
    done = session(["eval", *evaluated(folder, "cpu")], variables={ISA_VARIABLE: "reference"})
    assert done[0][0] == 0, done
    return folder


def evaluated(folder, device):
    weights = folder / "lively.safetensors"
    results = folder / f"found_{device}.json"
    asked = ("--precision", "fp32", "--flip", "--json", "--save-results", results)
    return ["--weights", weights, "--data", folder / "shapes", "--device", device, *asked]


def assert_equal_detections(folder, device):
    here, there = (json.loads((folder / f"found_{name}.json").read_text()) for name in ("cpu", device))
    assert len(here) > 200
    assert len(here) == len(there)
    for one, other in zip(in_order(here), in_order(there), strict=True):
        assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
        assert one["score"] == pytest.approx(other["score"], abs=5e-5)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=0.05)


@pytest.mark.parametrize("device", ["npu", "sdaa"])
def test_runs_equal_the_processors_and_go_on_on_either(on_cpu, session, tmp_path, device):
    began_on_cpu = tmp_path / "began_on_cpu"
    shutil.copytree(on_cpu / "half", began_on_cpu)
    train = ["train", "--data", on_cpu / "shapes", "--device", device, "--json", *TINY]
    calls = tmp_path / "calls.json"
    done = session(
        [*train, "--amp", "off", "--out", tmp_path / "whole"],
        [*train, "--amp", "off", "--out", tmp_path / "half", "--max-steps", 3],
        ["train", "--resume", began_on_cpu, "--device", device, "--max-steps", 6],
        [*train, "--amp", "fp16", "--out", tmp_path / "fp16", "--max-steps", 2, "optimizer.name=muon"],
        ["eval", *evaluated(on_cpu, device)],
        ["doctor", "--json"],
        path=[EMULATED],
        variables={"EMULATED_CALLS": str(calls), ISA_VARIABLE: "reference"},
    )
    for code, _, err in done:
        assert code == 0, err
    summaries = [json.loads(out) for _, out, _ in (done[0], done[1], done[3])]  # exactly one document each
    assert [s["device"] for s in summaries] == [f"{device}:0"] * 3
    assert summaries[0]["peak_memory_bytes"] > 1_000_000

    whole, wanted = state(tmp_path / "whole"), state(on_cpu / "whole")
    assert losses(tmp_path / "whole") == pytest.approx(losses(on_cpu / "whole"), rel=LOSS_BOUND)
    assert farthest(wanted, whole) < WEIGHT_BOUND
    assert farthest(wanted, state(began_on_cpu)) < WEIGHT_BOUND
    assert type(next(iter(whole["model"].values()))) is torch.Tensor
    scaler = state(tmp_path / "fp16")["scaler"]
    assert set(scaler) == set(torch.amp.GradScaler("cpu").state_dict())

    found = json.loads((tmp_path / "whole" / "env.json").read_text())["device"]
    assert "emulated" in found["device_names"][0]
    assert "+emulated" in found["versions"][f"torch_{device}"]
    counted = json.loads(calls.read_text())
    told = json.loads(done[5][1])["devices"][device]
    if device == "npu":
        assert counted["jit_compile=False"] > 0
        assert counted["npu_deformable_conv2d"] > counted["npu_deformable_conv2dbk"] > 0
        assert told["kernels"]["deform_conv2d"].startswith("torch_npu")
        assert told["static_shapes"]
    else:
        assert counted["TORCH_SDAA_CONV2D_BACKWARD_USE_FP32=1"] == 1
        assert told["switches"]["TORCH_SDAA_CONV2D_BACKWARD_USE_FP32"] == "1"
        assert told["kernels"]["deform_conv2d"].startswith("torch (gathered rows")
        assert told["kernels"]["decode_peaks"].startswith("torch (top-k of each class")

    assert_equal_detections(on_cpu, device)

    back = session(
        ["train", "--resume", tmp_path / "half", "--device", "cpu", "--max-steps", 6],
        ["train", "--resume", tmp_path / "fp16", "--device", "cpu", "--max-steps", 3],
        variables={ISA_VARIABLE: "reference"},
    )
    assert [code for code, _, _ in back] == [0, 0], back
    assert farthest(wanted, state(tmp_path / "half")) < WEIGHT_BOUND
    assert state(tmp_path / "fp16")["step"] == 3


CASCADE = (
    "centernet2_r18", "model.neck_channels=64", "model.head_convs=1", "model.roi_channels=16", "model.proposals=20",
    "loss.rois=16", "loss.proposals=60", "loss.candidates=100", "model.candidates=100", "data.image_size=64",
    "data.workers=0", "train.batch_size=2", "augment.photometric=0", "train.log_every=1", "optimizer.name=sgd",
    "optimizer.lr=1e-3", "--epochs", "1", "--max-steps", "1", "--amp", "off",
)  # fmt: skip


def test_two_stages_train_and_are_evaluated_with_static_shapes(session, tmp_path):
    """On npu, where boxes are padded and masked, losses and detections are the processor's."""
    from ctnet.data.demo import write_demo

    data = write_demo(tmp_path / "shapes", images_train=4, images_val=2, size=(96, 120))
    for device, path in (("cpu", ()), ("npu", [EMULATED])):
        run = ["train", *CASCADE, "--data", data, "--device", device, "--out", tmp_path / device]
        weights = tmp_path / "cpu" / "checkpoints" / "best.safetensors"
        results = ("--precision", "fp32", "--json", "--save-results", tmp_path / f"{device}.json")
        done = session(
            run, ["eval", "--weights", weights, "--data", data, "--device", device, *results],
            path=path, variables={ISA_VARIABLE: "reference"}, first=PLAIN_UPDATES,
        )  # fmt: skip
        for code, _, err in done:
            assert code == 0, err
    assert losses(tmp_path / "npu") == pytest.approx(losses(tmp_path / "cpu"), rel=1e-3)
    here, there = (json.loads((tmp_path / f"{device}.json").read_text()) for device in ("cpu", "npu"))
    assert len(here) == len(there) > 0
    for one, other in zip(in_order(here), in_order(there), strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)


@pytest.mark.parametrize("device", ["npu", "sdaa"])
def test_the_plug_ins_keep_the_contract(conformance, device):
    code, out, err = conformance("--device", device, "--processes", 2, "--json", path=[EMULATED])
    assert code == 0, out + err
    document = json.loads(out)
    assert all("emulated" in card for card in document["device_names"])
    outcomes = {row["check"]: row["outcome"] for row in document["checks"]}
    assert outcomes["all-reduce and DDP, 2 processes"] == "passed"
    assert outcomes["deform_conv2d, offsets that are not finite"] == "passed"
    assert set(outcomes.values()) == {"passed"}


def test_an_environment_that_chose_fp16_convolutions_is_left_alone(monkeypatch):
    name = "TORCH_SDAA_CONV2D_BACKWARD_USE_FP32"
    monkeypatch.setenv(name, "0")
    assert SdaaDevice().switches()[name] == "0"
    monkeypatch.delenv(name)
    assert SdaaDevice().switches()[name] == "1"


@pytest.mark.parametrize("device", [NpuDevice(), SdaaDevice()])
def test_compiling_where_it_is_not_possible_is_refused(device):
    with pytest.raises(ConfigError, match="does not compile"):
        device.compile(torch.nn.Identity())


@pytest.mark.skipif(find_spec("torch_npu") is None, reason="no torch_npu: its schemas cannot be compared")
def test_the_schemas_are_those_of_the_vendors_library():
    sys.path.insert(0, str(EMULATED / "torch_npu"))
    from schemas import SCHEMAS

    library = Path(find_spec("torch_npu").origin).parent / "lib" / "libtorch_npu.so"
    content = library.read_bytes()
    assert all(schema.encode() in content for schema in SCHEMAS.values())
