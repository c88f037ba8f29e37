"""Runs that are killed, stopped or run out of disk, in real processes."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

TINY = (
    "model.neck=deform", "optimizer.lr=2e-3",
    "model.neck_channels=[16,16,16]", "model.head_channels=16", "data.image_size=64", "data.workers=2",
    "train.batch_size=4", "train.log_every=1", "train.save_every_steps=2", "train.eval_every=2",
)  # fmt: skip


def start(*arguments: object, **options) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "ctnet", "train", *map(str, arguments)]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, **options
    )


def finish(process: subprocess.Popen, code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    return out, err


def wait_for_step(folder: Path, step: int, process: subprocess.Popen) -> None:
    log = folder / "log.jsonl"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        lines = log.read_text().splitlines() if log.exists() else []
        if any(json.loads(line).get("step", 0) >= step for line in lines):
            return
        time.sleep(0.02)
    raise AssertionError("the run did not come that far")


def state(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.pt", weights_only=True)


def assert_same(a: object, b: object, path: str = "state") -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}[{i}]")
    else:
        assert a == b, path


def test_a_killed_run_ends_like_one_that_never_stopped(small_set, tmp_path):
    arguments = ("--data", small_set, "--epochs", 4, *TINY)
    straight = start(*arguments, "--out", tmp_path / "straight")
    finish(straight)
    killed = start(*arguments, "--out", tmp_path / "killed")
    wait_for_step(tmp_path / "killed", 5, killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert state(tmp_path / "killed")["step"] < 12
    finish(start("--resume", tmp_path / "killed"))
    assert_same(state(tmp_path / "straight"), state(tmp_path / "killed"))
    rows = [(tmp_path / name / "metrics.csv").read_text().splitlines() for name in ("straight", "killed")]
    assert len(rows[0]) == len(rows[1]) == 5
    leftovers = [p.name for p in (tmp_path / "killed" / "checkpoints").iterdir() if p.name.endswith(".tmp")]
    assert len(leftovers) <= 1  # at most the one that was being written when the kill came


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds loader processes in /proc")
def test_a_loader_process_out_of_memory_is_told_and_the_run_goes_on(small_set, tmp_path):
    out = tmp_path / "run"
    process = start("--data", small_set, "--epochs", 50, "--out", out, *TINY)
    wait_for_step(out, 4, process)
    loaders = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(loaders[0]), signal.SIGKILL)  # as the system does when memory runs out
    _, err = finish(process, 4)
    assert "a process that reads pictures died" in err
    assert "killed by signal: Killed" in err
    assert "data.workers" in err
    assert "Traceback" not in err
    saved_at = state(out)["step"]
    assert saved_at >= 2
    finish(start("--resume", out, "--max-steps", saved_at + 2))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_saves_and_goes_on(small_set, tmp_path, number, code):
    out = tmp_path / "run"
    process = start(
        "--data", small_set, "--epochs", 50, "--out", out, *TINY, "train.save_every_steps=1000", "train.save_every=1000"
    )
    wait_for_step(out, 4, process)
    process.send_signal(number)
    _, err = finish(process, code)
    assert "everything is saved" in err
    assert "Traceback" not in err
    stopped_at = state(out)["step"]
    assert stopped_at >= 4
    moved = small_set.rename(tmp_path / "moved")
    last, _ = finish(start("--resume", out, "--data", moved, "--max-steps", stopped_at + 2, "--json"))
    assert json.loads(last)["steps"] == stopped_at + 2


def test_a_full_disk_ends_the_run_and_keeps_the_old_state(small_set, tmp_path):
    out = tmp_path / "run"
    finish(start("--data", small_set, "--max-steps", 2, "--out", out, *TINY))
    before = (out / "checkpoints" / "last.pt").read_bytes()

    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, 20_000_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    process = start("--resume", out, "--max-steps", 9, preexec_fn=small_files_only)
    _, err = finish(process, 4)
    assert "last.pt" in err
    assert "Traceback" not in err
    assert (out / "checkpoints" / "last.pt").read_bytes() == before
    assert not list((out / "checkpoints").glob("*.tmp"))
