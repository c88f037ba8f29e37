"""`ctnet train` in several real processes: what ends them, what brings them back, what users get wrong."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from runs import assert_same, records

TINY = (
    "centernet_mobilenetv2", "model.neck=deform", "optimizer.lr=2e-3",
    "model.neck_channels=[16,16,16]", "model.head_channels=16", "data.image_size=64", "data.workers=1",
    "train.batch_size=2", "train.log_every=1", "train.save_every_steps=2", "train.eval_every=0",
)  # fmt: skip


def start(*words: object, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        text=True,
    )


def train(*arguments: object) -> subprocess.Popen:
    return start("-m", "ctnet", "train", *arguments)


def finish(process: subprocess.Popen, code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == code, err
    return out, err


def wait_for_step(folder: Path, step: int, process: subprocess.Popen) -> None:
    log = folder / "log.jsonl"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        if log.exists() and any(json.loads(line).get("step", 0) >= step for line in log.read_text().splitlines()):
            return
        time.sleep(0.05)
    raise AssertionError("the run did not come that far")


def process_of_rank(launcher: subprocess.Popen, rank: int) -> int:
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                words = (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if parent == launcher.pid and f"RANK={rank}".encode() in words:
                return int(folder.name)
    raise AssertionError(f"no process of rank {rank}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_killed_rank_is_replaced_and_the_run_goes_on_from_its_last_state(small_set, tmp_path):
    out = tmp_path / "run"
    launcher = train(
        "--nproc", 2, "--max-restarts", 1, "--data", small_set, "--epochs", 3, "--out", out, "--json", *TINY
    )
    wait_for_step(out, 3, launcher)
    os.kill(process_of_rank(launcher, 1), signal.SIGKILL)
    stdout, err = finish(launcher)
    assert "restart 1 of 1" in err
    assert "resumed after step" in err
    summary = json.loads(stdout)  # one document, from rank 0
    assert (summary["steps"], summary["world_size"], summary["effective_batch"]) == (9, 2, 4)
    steps = [json.loads(line).get("step") for line in (out / "log.jsonl").read_text().splitlines() if "step" in line]
    assert set(range(1, 10)) <= set(steps)
    assert json.loads((out / "summary.json").read_text()) == summary


def test_a_stopped_run_is_saved_once_and_goes_on_in_one_process(small_set, tmp_path):
    out = tmp_path / "run"
    late = ("train.save_every_steps=1000", "train.save_every=1000")
    launcher = train("--nproc", 2, "--data", small_set, "--epochs", 50, "--out", out, *TINY, *late)
    wait_for_step(out, 2, launcher)
    launcher.send_signal(signal.SIGTERM)
    _, err = finish(launcher, 143)
    assert err.count("everything is saved") == 1
    assert "Traceback" not in err
    state = torch.load(out / "checkpoints" / "last.pt", weights_only=True)
    assert state["world_size"] == 2
    stdout, err = finish(train("--resume", out, "--max-steps", state["step"] + 1, "--json"))
    summary = json.loads(stdout)
    # one process takes the whole batch that two shared
    assert (summary["batch_size"], summary["effective_batch"], summary["world_size"]) == (4, 4, 1)
    assert summary["steps"] == state["step"] + 1


def test_two_launchers_are_one_run(small_set, tmp_path):
    nodes = ("--nproc", 1, "--nnodes", 2, "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--timeout", 100)
    common = ("--data", small_set, "--max-steps", 2, "--json", *TINY)
    first = train(*nodes, "--node-rank", 0, "--out", tmp_path / "run", *common)
    second = train(*nodes, "--node-rank", 1, *common)
    summary = json.loads(finish(first)[0])
    assert (summary["world_size"], summary["steps"]) == (2, 2)
    out, _ = finish(second)
    assert out == ""
    assert not (tmp_path / "runs").exists()  # the second node writes nothing


@pytest.mark.slow
def test_a_broken_image_on_any_rank_is_told_once_with_its_code(small_set, tmp_path):
    for image in (small_set / "images" / "train").iterdir():
        image.write_bytes(b"")
    _, err = finish(train("--nproc", 2, "--data", small_set, "--out", tmp_path / "run", *TINY), 3)
    assert err.count("error:") == 1
    assert "Traceback" not in err
    assert "train_0" in err


def processes_of(launcher: int) -> list[int]:
    """Return the ranks and their loader processes."""
    found = [launcher]
    for parent in found:
        children = Path(f"/proc/{parent}/task").glob("*/children")
        found += [int(word) for file in children for word in file.read_text().split()]
    return found[1:]


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_rank_or_launcher_and_a_stop_end_all_and_the_run_goes_on_exactly(small_set, tmp_path):
    common = ("--nproc", 2, "--data", small_set, "--epochs", 2, *TINY)
    straight = tmp_path / "straight"
    finish(train(*common, "--out", straight))
    for victim in ("launcher", "rank", "nobody"):
        out = tmp_path / victim
        launcher = train(*common, "--out", out)
        wait_for_step(out, 3, launcher)  # a state of step 2 is saved
        others = processes_of(launcher.pid)
        assert len(others) >= 4
        if victim == "nobody":
            launcher.send_signal(signal.SIGTERM)  # saves between two states of those that it saves by its settings
        else:
            os.kill(launcher.pid if victim == "launcher" else process_of_rank(launcher, 1), signal.SIGKILL)
        begin = time.monotonic()
        _, err = launcher.communicate(timeout=30)
        while any(map(is_alive, others)):
            assert time.monotonic() - begin < 30
            time.sleep(0.1)
        if victim == "rank":
            assert launcher.returncode == 6
            assert "rank 1 was killed by SIGKILL" in err
            assert "lost contact" not in err
        finish(train("--nproc", 2, "--resume", out))
        states = [torch.load(run / "checkpoints" / "last.pt", weights_only=True) for run in (straight, out)]
        assert_same(*states)
        assert records(out) == records(straight)
        assert not list(out.rglob(".*"))
        assert not list(Path(tempfile.gettempdir()).glob(f".ctnet-launch-*.{launcher.pid}@*"))


@pytest.mark.slow
def test_a_rank_that_hangs_is_named(small_set, tmp_path):
    out = tmp_path / "run"
    launcher = train("--nproc", 2, "--timeout", 20, "--data", small_set, "--epochs", 50, "--out", out, *TINY)
    wait_for_step(out, 3, launcher)
    os.kill(process_of_rank(launcher, 1), signal.SIGSTOP)
    _, err = finish(launcher, 6)
    assert "rank 0 waited 20 s for the others" in err
    assert "silent  rank 1" in err


@pytest.mark.slow
def test_plain_torchrun_works(small_set, tmp_path):
    out = tmp_path / "run"
    words = ("--standalone", "--nproc-per-node", 2, "-m", "ctnet", "train")
    process = start("-m", "torch.distributed.run", *words, "--data", small_set, "--epochs", 1, "--out", out, *TINY)
    finish(process)
    assert json.loads((out / "summary.json").read_text())["world_size"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--nproc", "2", "train.batchsize=3"), 2, "train.batch_size"),
        (("--nproc", "0"), 2, "from 1 on, or auto"),
        (("--nproc", "3", "--global-batch", "8"), 2, "1, 2, 4, 8 can"),
        (("--nproc", "2", "--global-batch", "8", "--batch-size", "4"), 2, "not both"),
        (("--nproc", "2", "--device", "cpu:0"), 2, "needs its own device"),
        (("--nproc", "2", "--data", "nowhere"), 3, "nowhere"),
        (("--nproc", "2", "--nnodes", "2"), 2, "--rdzv-endpoint"),
        (("--nproc", "2", "--nnodes", "2", "--node-rank", "2"), 2, "--node-rank"),
        (("--nproc", "2", "--resume", "nowhere/run"), 2, "holds no run"),
        (("--max-restarts", "2"), 2, "go with --nproc"),
    ],
)
def test_mistakes_are_told_before_any_process_starts(ctnet, monkeypatch, arguments, code, words):
    def refuse(*_):
        raise AssertionError("processes were started")

    monkeypatch.setattr("ctnet.engine.processes.launch.elastic_launch", refuse)
    found, _, err = ctnet("train", *arguments)
    assert (found, words in err) == (code, True), err
    assert err.count("error:") == 1


def test_a_port_in_use_is_named(ctnet, small_set):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        code, _, err = ctnet("train", "--data", small_set, "--nproc", 1, "--nnodes", 2, "--rdzv-endpoint", endpoint)
    assert code == 2, err
    assert "the port is in use" in err
    assert endpoint in err


def test_a_world_size_alone_is_not_enough(ctnet, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    code, _, err = ctnet("train")
    assert code == 2
    assert "RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT are not set" in err
