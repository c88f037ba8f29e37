"""Where the host waits for the device in training: at the listed places and nowhere else; and what devices lack."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tiny import TINY

EMULATED = Path(__file__).parents[1] / "emulated"

LISTED = {
    "devices/torch_device.py:wait": "the flag of the step before, which is ready",
    "devices/torch_device.py:synchronize": "lines of the log, every train.log_every steps",
    "engine/record.py:collect": "losses of these lines, and of an epoch's row",
    "engine/state.py:_on_host": "saving",
    "engine/state.py:_rng_state": "saving",
}
"""places in ctnet by what they wait for; `fp16` waits in the scaler of torch as well, once an update"""


def waits(session, tmp_path, data, device, steps, *more):
    """Return where a run of so many steps waited."""
    calls = tmp_path / f"{steps}.json"
    options = ("train.log_every=1000", "train.eval_every=0", "train.sample_batches=0", "data.val_split=none")
    (code, _, err), = session(
        ["train", "--data", data, "--device", device, *TINY, "--epochs", "50", "--max-steps", steps, *options, *more,
         "--out", tmp_path / f"run_{steps}"],
        path=[EMULATED], variables={"EMULATED_CALLS": str(calls)},
    )  # fmt: skip
    assert code == 0, err
    return json.loads(calls.read_text())["waits"]


@pytest.mark.parametrize("device", ["npu", "sdaa"])
def test_a_training_step_waits_for_the_device_at_the_listed_places_only(session, small_set, tmp_path, device):
    fewer, more = (waits(session, tmp_path, small_set, device, steps, "--amp", "off") for steps in (2, 6))
    each_step = {place: (more[place] - fewer.get(place, 0)) / 4 for place in more if more[place] != fewer.get(place, 0)}
    assert {place.split()[0] for place in each_step} <= set(LISTED), each_step
    # what is copied once stays on the device, and the count sees it
    assert [sum(n for place, n in found.items() if "_constant" in place) for found in (fewer, more)] == [2, 2]


def test_an_operator_that_a_device_lacks_takes_the_round_trip_over_the_processor_and_says_so(session, small_set):
    run = ("train", "--data", small_set, "--device", "sdaa", "--amp", "off", "--max-steps", "1", *TINY)
    (code, _, err), (_, told, _) = session(
        [*run, "data.val_split=none"], ["doctor", "--json"], path=[EMULATED],
        variables={"EMULATED_MISSING": "index_add_"},
    )  # fmt: skip
    assert code == 0, err
    kernels = json.loads(told)["devices"]["sdaa"]["kernels"]
    assert kernels["deform_conv2d_backward"].startswith("CPU round trip (it fails on the device")
    assert "index_add_" in kernels["deform_conv2d_backward"]
    assert kernels["deform_conv2d"].startswith("torch (gathered rows")


@pytest.mark.parametrize("device", ["npu", "sdaa"])
def test_the_second_device_and_the_precision_of_inference(session, small_set, tmp_path, device):
    run = tmp_path / "run"
    train = ("train", "--data", small_set, *TINY, "--max-steps", "2", "evaluation.flip=true", "--out", run, "--json")
    weights = run / "checkpoints" / "best.safetensors"
    (code, out, err), (_, told, _note), (lost, _, words) = session(
        [*train, "--device", f"{device}:1", "--precision", "fp16"],
        [
            "eval",
            "--weights",
            weights,
            "--data",
            small_set,
            "--device",
            f"{device}:1",
            "--flip",
            "--keep-res",
            "--json",
        ],
        ["eval", "--weights", weights, "--data", small_set, "--device", f"{device}:2"],
        path=[EMULATED],
    )
    assert code == 0, err
    assert json.loads(out)["device"] == f"{device}:1"
    precision = json.loads(told)["protocol"]["precision"]
    assert precision == ("float32" if device == "sdaa" else "bfloat16")
    assert (lost, "number 2" in words) == (4, True)


@pytest.mark.slow
def test_a_list_of_devices_is_trained_on_with_one_process_each(small_set, tmp_path):
    """With `train.accumulate`, because a static graph of DDP wants page-locked memory, which is not emulated."""
    words = ("train", "--data", small_set, "--device", "npu:0,1", "--amp", "off", "--max-steps", "1", "--json")
    settings = ("--global-batch", "8", "train.accumulate=2", "data.val_split=none", "--out", tmp_path / "run")
    tiny = [word for word in TINY if not word.startswith("train.batch_size")]
    command = [sys.executable, "-m", "ctnet", *map(str, (*words, *settings)), *tiny]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(EMULATED), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["world_size"], summary["batch_size"], summary["effective_batch"]) == (2, 2, 8)
