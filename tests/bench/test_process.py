"""Objects in processes of their own. The module `os` is one whose functions show what happens to a process."""

import os
from importlib import import_module

import numpy as np
import pytest

from ctnet.bench.memory import resident_bytes
from ctnet.bench.process import Remote, unexpected
from ctnet.devices import open_device
from ctnet.errors import BenchError, ConfigError


def test_calls_run_elsewhere_and_bring_back_values_and_errors(capfd):
    with Remote(import_module, "os") as remote:
        assert remote.call("getpid") != os.getpid()
        assert remote.call("getppid") == os.getpid()
        with pytest.raises(BenchError, match=r"FileNotFoundError.*nowhere"):
            remote.call("listdir", "/nowhere")
        assert remote.call("write", 1, b"words of a library\n") == 19, "an error ends nothing"
    out, err = capfd.readouterr()
    assert out == ""
    assert "words of a library" in err


def test_errors_of_ours_arrive_whole():
    with pytest.raises(ConfigError) as caught:
        Remote(open_device, "nosuchdevice")
    assert "nosuchdevice" in caught.value.message
    assert "cpu" in caught.value.facts["known"]


@pytest.mark.parametrize(("method", "argument", "words"), [("_exit", 7, "exit code 7"), ("kill", 9, "SIGKILL")])
def test_a_process_that_dies_is_an_error_and_stays_one(method, argument, words):
    with Remote(import_module, "os") as remote:
        arguments = (remote.call("getpid"), argument) if method == "kill" else (argument,)
        with pytest.raises(BenchError, match=words) as caught:
            remote.call(method, *arguments)
        assert (caught.value.hint is not None) == (method == "kill"), "memory is the usual reason for SIGKILL"
        with pytest.raises(BenchError, match=words):
            remote.call("getpid")


def test_peak_memory_is_the_process_s_own():
    ours = np.ones(100_000_000)  # 800 MB here must not count there
    with Remote(import_module, "ctnet.bench.memory") as remote:
        before = remote.call("resident_bytes")
        remote.call("Memory", bytes(50_000_000), 0, "passes through and is gone")
        memory = remote.call("peak_memory", open_device("cpu"), before)
    assert 50_000_000 <= memory.growth < 400_000_000
    assert before < memory.peak < ours.nbytes < resident_bytes()


def test_an_unexpected_error_is_told_in_a_line():
    assert unexpected(KeyError()).message == "KeyError: no message"
    assert unexpected(RuntimeError("\n first\nsecond")).message == "RuntimeError: first"
