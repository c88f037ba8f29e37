"""Detectors with key points take steps on emulated devices as on the processor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctnet.devices.cpu.native import ISA_VARIABLE

EMULATED = Path(__file__).parents[1] / "emulated"
STEPS = """
import json, sys
import numpy as np, torch
from ctnet.config import load_recipe
from ctnet.data.loader import Batch, collate
from ctnet.data.sample import Sample
from ctnet.devices import open_device
from ctnet.engine.precision import choose_precision
from ctnet.engine.processes.world import World
from ctnet.engine.state import new_state, seed_generators
from ctnet.engine.step import Updater
from ctnet.families import assumed_keypoints, family_of
from ctnet.types import Objects

name, recipe, *words = sys.argv[1:]
words += ["data.image_size=64", "optimizer.name=sgd", "train.ema=0", "train.amp=off"]
recipe = load_recipe(recipe, words).recipe
schema = assumed_keypoints(recipe.model)
family = family_of(recipe, schema)
rng, samples = np.random.default_rng(0), []
for index in range(2):
    boxes = np.array([[8, 8, 40, 44], [30, 20, 60, 60]], np.float32)
    places = boxes[:, None, :2] + rng.random((2, len(schema.names), 2)) * 30
    seen = np.array([2.0, 0.0 if index else 1.0])[:, None, None].repeat(len(schema.names), 1)
    keypoints = np.concatenate([places, seen], -1).astype(np.float32)
    targets = family.encoder(1)(Objects(boxes, np.zeros(2, np.int64), keypoints), (64, 64))
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    samples.append(Sample(image, np.zeros(3, np.float32), targets, index, index))
device = open_device(name)
seed_generators(0)
precision = choose_precision("fp32", device)
state = new_state(family, 1, device, precision, 1e-3)
updater = Updater(state, device, precision, World())
losses = []
for _ in range(2):
    result = updater.update([collate(samples)], 1e-3)
    losses.append({part: float(value) for part, value in result.losses.items()})
print(json.dumps({"losses": losses, "device": str(device.torch_device)}))
"""
NETWORKS = {
    "face": ("centerface_mobilenetv2",),
    "pose": ("pose_resdcn18", "model.neck_channels=[16,16,16]", "model.head_channels=16"),
}


def steps(device, network):
    environment = os.environ | {"PYTHONPATH": str(EMULATED), "OMP_NUM_THREADS": "1", ISA_VARIABLE: "reference",
                                "PYTHONWARNINGS": "ignore"}  # fmt: skip
    command = [sys.executable, "-c", STEPS, device, *NETWORKS[network]]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module", params=NETWORKS)
def on_cpu(request):
    return request.param, steps("cpu", request.param)


@pytest.mark.parametrize("device", ["npu", "sdaa"])
def test_steps_equal_the_processors(on_cpu, device):
    network, expected = on_cpu
    found = steps(device, network)
    assert found["device"] == f"{device}:0"
    for ours, theirs in zip(found["losses"], expected["losses"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
        assert all(value > 0 for value in ours.values())
    first, second = (step["loss"] for step in found["losses"])
    assert second != first
