"""Runs that are killed, stopped or run out of disk, in real processes."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from runs import assert_same, records

TINY = (
    "centernet_mobilenetv2", "model.neck=deform", "optimizer.lr=2e-3",
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
    assert records(tmp_path / "straight") == records(tmp_path / "killed")
    assert leftovers(tmp_path / "killed") == []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds loader processes in /proc")
def test_a_loader_process_out_of_memory_is_told_and_the_run_goes_on(small_set, tmp_path):
    out = tmp_path / "run"
    process = start("--data", small_set, "--epochs", 50, "--out", out, *TINY)
    wait_for_step(out, 4, process)
    loaders = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(loaders[0]), signal.SIGKILL)  # as the system does when memory runs out
    _, err = finish(process, 4)
    assert "a process that reads images died" in err
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


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


def stop_when(folder: Path, process: subprocess.Popen, number: int, condition) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)


def test_a_run_stopped_within_an_epoch_and_in_an_evaluation_records_what_one_undisturbed_does(small_set, tmp_path):
    """Every sum goes on: that of the log's next line, that of the epoch, the row that waits for its evaluation."""
    settings = (*TINY, "train.log_every=4", "train.batch_size=2", "train.save_every_steps=1000", "evaluation.flip=true",
                "evaluation.test_scale=12")  # fmt: skip  # an evaluation that takes seconds
    arguments = ("--data", small_set, "--epochs", 2, *settings)
    finish(start(*arguments, "--out", tmp_path / "straight"))
    out = tmp_path / "stopped"
    process = start(*arguments, "--out", out)
    stop_when(out, process, signal.SIGTERM, lambda: (out / "samples" / "train_batch_1.jpg").exists())
    finish(process, 143)
    first = state(out)["step"]
    assert first in range(1, 6)
    process = start("--resume", out)
    stop_when(out, process, signal.SIGTERM, lambda: (out / "checkpoints" / "last.pt").exists() and due(out))
    finish(process, 143)
    assert due(out)
    assert len(records(out)["metrics"]) == 2  # the row is there, with its losses
    finish(start("--resume", out))
    assert records(out) == records(tmp_path / "straight")
    assert leftovers(out) == leftovers(tmp_path / "straight") == []
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (out, tmp_path / "straight")]
    assert summaries[0]["loss"] == summaries[1]["loss"]


def due(folder: Path) -> bool:
    try:
        return state(folder)["evaluation_due"]
    except (OSError, RuntimeError):  # between two files
        return False


def test_a_second_writer_of_a_run_is_refused_by_name(small_set, tmp_path):
    out = tmp_path / "run"
    first = start("--data", small_set, "--epochs", 50, "--out", out, *TINY)
    wait_for_step(out, 3, first)
    image = next((small_set / "images" / "val").iterdir())
    predict = subprocess.Popen(
        [sys.executable, "-m", "ctnet", "predict", image, "--weights", "any.safetensors", "--out", out],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    others = [start("--data", small_set, "--out", out, *TINY), start("--resume", out), predict]
    for second in others:
        _, err = finish(second, 2)
        assert "another process writes into the folder" in err
        assert f"process  {first.pid}" in err
        assert "--epochs 50" in err
    first.kill()
    first.communicate()
    finish(start("--resume", out, "--max-steps", state(out)["step"] + 1))  # no trace of the lock


def test_a_deleted_run_folder_ends_the_run(small_set, tmp_path):
    out = tmp_path / "run"
    process = start("--data", small_set, "--epochs", 50, "--out", out, *TINY)
    wait_for_step(out, 3, process)
    out.rename(tmp_path / "moved")
    _, err = finish(process, 4)
    assert "deleted or moved" in err
    assert "Traceback" not in err
    assert not out.exists()
    finish(start("--resume", tmp_path / "moved", "--max-steps", state(tmp_path / "moved")["step"] + 1))


ALONE = [setting.replace("workers=2", "workers=0") for setting in TINY]


def test_other_annotations_than_the_run_began_with_are_refused_unless_accepted(ctnet, small_set, tmp_path):
    out = tmp_path / "run"
    assert ctnet("train", "--data", small_set, "--max-steps", 1, "--out", out, *ALONE)[0] == 0
    file = next((small_set / "annotations").glob("*train*.json"))
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content, indent=1))  # the same in other words
    assert ctnet("train", "--resume", out, "--max-steps", 2)[0] == 0
    content["annotations"][0]["bbox"][2] += 1
    file.write_text(json.dumps(content))
    code, _, err = ctnet("train", "--resume", out, "--max-steps", 3)
    assert (code, "the data set has changed since the run began" in err) == (3, True), err
    assert "--accept-changed-data" in err
    code, _, err = ctnet("train", "--resume", out, "--max-steps", 3, "--accept-changed-data")
    assert (code, "warning: the data set has changed" in err) == (0, True), err
    assert ctnet("train", "--resume", out, "--max-steps", 4)[0] == 0  # accepted once and for all
    assert ctnet("train", "--data", small_set, "--accept-changed-data")[0] == 2


def test_a_state_with_one_wrong_byte_is_refused(ctnet, small_set, tmp_path):
    out = tmp_path / "run"
    assert ctnet("train", "--data", small_set, "--max-steps", 1, "--out", out, *ALONE)[0] == 0
    last = out / "checkpoints" / "last.pt"
    content = bytearray(last.read_bytes())
    tensor = next(
        value for value in state(out)["optimizer"]["state"][0].values() if value.dim() == 1 or value.dim() > 1
    )
    content[content.index(bytes(tensor.untyped_storage())) + 2] ^= 1
    last.write_bytes(content)
    code, _, err = ctnet("train", "--resume", out, "--max-steps", 2)
    assert (code, "last.pt" in err, "another checksum" in err, "Traceback" in err) == (3, True, True, False), err


def test_loader_processes_end_with_the_run(small_set, tmp_path):
    out = tmp_path / "run"
    process = start("--data", small_set, "--epochs", 50, "--out", out, *TINY)
    wait_for_step(out, 3, process)
    loaders = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(loaders) == 2
    process.kill()
    process.wait()
    begin = time.monotonic()
    while any(Path(f"/proc/{pid}").exists() for pid in loaders):
        assert time.monotonic() - begin < 10
        time.sleep(0.05)


def test_a_finished_run_is_extended_by_its_last_pt(ctnet, small_set, tmp_path):
    steady = (
        *ALONE, "schedule.name=constant", "schedule.warmup=0", "train.eval_every=1", "train.save_every_steps=1000",
        "train.sample_batches=0", "evaluation.flip=false", "train.batch_size=6",
    )  # fmt: skip
    assert ctnet("train", "--data", small_set, "--epochs", 2, "--out", tmp_path / "straight", *steady)[0] == 0
    out = tmp_path / "run"
    assert ctnet("train", "--data", small_set, "--epochs", 1, "--out", out, *steady)[0] == 0
    last = out / "checkpoints" / "last.pt"
    code, _, err = ctnet("train", "--resume", last)
    assert (code, "complete since step 2; --epochs N trains it further" in err) == (0, True), err
    for arguments, words in (("--epochs", 0), "epochs"), (("--max-steps", 1), "the run has come as far already"):
        code, _, err = ctnet("train", "--resume", out, *arguments)
        assert (code, words in err) == (2, True), err
    code, _, err = ctnet("train", "--resume", last, "--epochs", 2)
    assert code == 0, err
    assert "2 epochs instead of 1: the learning rate follows schedule.name=constant over the new length" in err
    assert "epochs: 2" in (out / "config.yaml").read_text()
    for part in ("step", "model", "ema", "optimizer", "rng"):
        assert_same(state(tmp_path / "straight")[part], state(out)[part], part)
    code, _, err = ctnet("train", "--resume", out, "--epochs", 1)
    assert (code, "the run has come as far already" in err, "4 steps, 2 epochs of 2" in err) == (2, True, True), err


def test_last_is_the_newest_run_also_one_with_a_folder_of_its_own(ctnet, small_set, tmp_path, monkeypatch):
    out = tmp_path / "elsewhere" / "run"
    assert ctnet("train", "--data", small_set, "--max-steps", 1, "--out", out, *ALONE)[0] == 0
    code, _, err = ctnet("train", "--resume", "last", "--max-steps", 2)
    assert (code, f"{out}: resumed after step 1 of 2" in err) == (0, True), err
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    code, _, err = ctnet("train", "--resume", "last")
    assert (code, "no run to resume" in err) == (2, True), err


def test_a_second_signal_tells_what_is_saved(small_set, tmp_path):
    out = tmp_path / "run"
    process = start("--data", small_set, "--epochs", 50, "--out", out, *TINY)
    wait_for_step(out, 3, process)
    for _ in range(200):  # until it is gone: one comes while the first is answered
        process.send_signal(signal.SIGINT)
        time.sleep(0.001)
    _, err = finish(process, 130)
    assert "Traceback" not in err
    assert f"continue with --resume {out}" in " ".join(err.split())
    found = re.search(r"after step (\d+)", " ".join(err.split()))
    assert found
    assert int(found[1]) == state(out)["step"]
