"""The benchmark scripts run, check before they time, and write the ratios that they promise; no time is looked at."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"

CASES = [
    (["nms.py"], {"nms/100/torch", "soft_nms/1000/torch"}),
    (
        ["model.py", "--size", "64", "--batches", "1", "--no-compile"],
        {"resdcn18/fp32/b1/matmul_limit", "resdcn18/bf16/b1/matmul_limit"},
    ),
    (["train_step.py", "--cases", "64x2"], {"train/resdcn18/fp32/64x2/grid_sample"}),
    pytest.param(["batch_norm.py"], {"batch_norm/bfloat16/relu/torch"}, marks=pytest.mark.slow),
    pytest.param(["max_pool.py"], {"max_pool/bfloat16/torch"}, marks=pytest.mark.slow),
    pytest.param(
        ["distributed.py", "--image-size", "64", "--batch", "2", "--steps", "2", "--rounds", "1"],
        {"distributed/resdcn18/64x2/2"},
        marks=pytest.mark.slow,
    ),
    pytest.param(
        ["loader.py", "--image-size", "64", "--seconds", "0.2"],
        {"loader/worker/training_step"},
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.slow
def test_the_protocol_of_widerface_is_faster_than_loops(shared, tmp_path):
    truth = ["--truth", str(shared / "data" / "widerface_gt")]
    test_a_script_writes_its_ratios(["widerface.py", *truth], {"widerface/loops"}, tmp_path)


@pytest.mark.parametrize(
    ("command", "expected"),
    CASES,
    ids=["nms", "model", "train_step", "batch_norm", "max_pool", "distributed", "loader"],
)
def test_a_script_writes_its_ratios(command, expected, tmp_path):
    file = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, FOLDER / command[0], *command[1:], "--repeats", "3", "--json", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(file.read_text())
    assert expected <= set(content["ratios"])
    assert all(ratio > 0 for ratio in content["ratios"].values())
    assert content["machine"]["threads"] >= 1


def test_a_wrong_kernel_gets_no_time(tmp_path):
    program = "import torch, measure; measure.check('it', torch.ones(3), torch.zeros(3) + 2, 1e-3)"
    done = subprocess.run([sys.executable, "-c", program], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "it is wrong" in done.stderr
