"""One writer for a folder, whoever else wants it; what killed processes left goes, what the living write stays."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from ctnet.errors import ConfigError, StorageError
from ctnet.files import remove_leftovers, replacing, temporary_beside, write_file
from ctnet.lock import LOCK, only_writer

HOLDING = """
import os, sys, time
from pathlib import Path
from ctnet.lock import only_writer
with only_writer(Path(sys.argv[1])):
    child = os.fork()  # as loader processes are: it lives on, without the lock
    if child:
        print("holds", child, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDING, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline().split()[1])
    yield process
    os.kill(child, signal.SIGKILL)
    process.kill()
    process.communicate()


def test_a_second_writer_is_refused_and_the_first_is_named(holder, tmp_path):
    with pytest.raises(ConfigError, match="another process writes") as error, only_writer(tmp_path / "run"):
        pass
    facts = error.value.facts
    assert (facts["process"], facts["host"]) == (str(holder.pid), socket.gethostname())
    assert facts["command"]
    assert facts["since"].startswith(time.strftime("%Y-"))


def test_a_lock_is_gone_with_its_process_though_its_children_live(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with only_writer(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / LOCK).read_text())["process"] == os.getpid()
    assert not (tmp_path / "run" / LOCK).exists()


def test_a_process_does_not_take_a_folder_twice(tmp_path):
    with only_writer(tmp_path / "run"):
        with pytest.raises(ConfigError), only_writer(tmp_path / "run"):
            pass
        assert (tmp_path / "run" / LOCK).exists()


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"process": 1}', b"\xff{"])
def test_a_lock_file_that_nobody_holds_is_no_lock(tmp_path, content):
    (tmp_path / LOCK).write_bytes(content)
    with only_writer(tmp_path):
        pass


@pytest.mark.parametrize("fate", ["moved", "replaced"])
def test_nothing_is_written_into_a_folder_that_went_away(tmp_path, fate):
    folder = tmp_path / "run"
    with only_writer(folder):
        write_file(folder / "a" / "first.txt", b"1")
        folder.rename(tmp_path / "elsewhere")
        if fate == "replaced":
            folder.mkdir()
        with pytest.raises(StorageError, match="deleted or moved"):
            write_file(folder / "a" / "second.txt", b"2")
    assert folder.exists() == (fate == "replaced")
    write_file(folder / "third.txt", b"3")  # it is anybody's again


def test_what_killed_processes_left_goes_and_what_others_write_stays(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()[:24]
    left = [f".last.pt.{dead.pid}.tmp", f".a b.{dead.pid}@{host}.tmp", f".video.mp4.{dead.pid}@{host}.tmp.mp4"]
    left += [f".own.{os.getpid()}@{host}.tmp", f".last.pt.{10**30}.tmp", ".old.1@elsewhere.tmp"]
    kept = [f".last.pt.{os.getppid()}.tmp", ".new.1@elsewhere.tmp", ".notes.tmp", "last.pt.1.tmp", ".x.y.tmp"]
    (tmp_path / "checkpoints").mkdir()
    for name in (*left, *kept):
        (tmp_path / "checkpoints" / name).write_bytes(b"")
    os.utime(tmp_path / "checkpoints" / ".old.1@elsewhere.tmp", (0, 0))
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == sorted(kept)


def test_a_temporary_file_is_known_as_one(tmp_path):
    with replacing(tmp_path / "last.pt") as temporary:
        temporary.write_bytes(b"1")
        assert temporary == temporary_beside(tmp_path / "last.pt")
        remove_leftovers(tmp_path)
        assert not temporary.exists()
        temporary.write_bytes(b"2")
