"""Run folders that came from elsewhere: what is in them is read with care, and nothing outside of them is touched."""

import os

import pytest
import torch

from ctnet.engine.record import Record
from ctnet.engine.report import RunLog, Silence
from ctnet.engine.run_folder import LAST, new_run_folder, require_same_data, run_to_resume
from ctnet.errors import ConfigError, DataError, StorageError
from ctnet.files import write_file
from ctnet.lock import LOCK, only_writer
from runs import assert_same, records
from tiny import TINY


@pytest.fixture
def run(tmp_path):
    write_file(tmp_path / "run" / LAST, b"")
    write_file(tmp_path / "outside" / "precious", b"content")
    return tmp_path / "run"


@pytest.mark.parametrize("name", ["log.jsonl", LOCK, "checkpoints/best.safetensors", "tensorboard", "tensorboard/x"])
def test_a_link_out_of_the_run_folder_is_refused(run, name):
    target = run.parent / "outside" / ("precious" if "." in name or "/" in name else "")
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).symlink_to(target)
    for opening in (run_to_resume(run), new_run_folder("x", run)):
        with pytest.raises(DataError, match="leads out"), opening:
            pass
    assert [path.read_bytes() for path in (run.parent / "outside").iterdir()] == [b"content"]


def test_a_pipe_in_the_run_folder_is_refused_and_a_link_to_the_folder_is_not(run):
    run.with_name("link").symlink_to(run)
    (run / "checkpoints" / "newest.pt").symlink_to("last.pt")
    with run_to_resume(run.with_name("link")) as folder:
        assert (folder / LOCK).is_file()
    os.mkfifo(run / "log.jsonl")
    with pytest.raises(DataError, match="no file"), run_to_resume(run):
        pass


def test_a_lock_that_is_a_link_cuts_nothing(run):
    precious = run.parent / "outside" / "precious"
    (run / LOCK).symlink_to(precious)
    with pytest.raises(StorageError), only_writer(run):
        pass
    assert precious.read_bytes() == b"content"


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"[1]", b"null", b'{"schema": {}}', b'{"data": [1]}',
                                     b'{"data": {"train": 5}}'])  # fmt: skip
def test_facts_that_cannot_be_read_are_none(tmp_path, content):
    (tmp_path / "env.json").write_bytes(content)
    assert require_same_data(tmp_path, {}, accept=False) is None
    with pytest.raises(ConfigError, match="new or empty"), new_run_folder("x", tmp_path):
        pass


@pytest.mark.parametrize("content", [b"\xff", b"step\n1\n", b"epoch,step\n1,x\n", b"epoch,step\n1\n"])
def test_rows_that_cannot_be_read_are_refused_where_they_are_needed(tmp_path, content):
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(DataError, match="rows of the run"):
        RunLog(tmp_path, Record(files=None), 3, ("epoch", "step"), Silence())
    known = Record(rows=[{"epoch": 1, "step": 2}])
    RunLog(tmp_path, known, 3, ("epoch", "step"), Silence()).close()
    assert (tmp_path / "metrics.csv").read_text() == "epoch,step\n1,2\n"


def test_a_run_goes_back_to_a_numbered_checkpoint_and_on_from_there(ctnet, small_set, tmp_path):
    out = tmp_path / "run"
    words = ("--data", small_set, "--device", "cpu", "--amp", "off", "--epochs", 2, "--out", out, *TINY)
    more = ("train.save_every_steps=1", "train.keep=9", "train.sample_batches=0", "data.val_split=none")
    code, _, err = ctnet("train", *words, *more)
    assert code == 0, err
    checkpoints = out / "checkpoints"
    whole, wanted = torch.load(checkpoints / "last.pt", weights_only=True), records(out)
    assert len(list(checkpoints.glob("step_*.pt"))) == 6
    code, _, err = ctnet("train", "--resume", checkpoints / "step_0000007.pt")
    assert (code, "there is no such checkpoint" in err, "step_0000006.pt" in err) == (2, True, True)
    code, _, err = ctnet("train", "--resume", checkpoints / "step_0000002.pt")
    assert code == 0, err
    assert "resumed after step 2 of 6" in err
    assert_same(torch.load(checkpoints / "last.pt", weights_only=True), whole)
    assert records(out) == wanted
