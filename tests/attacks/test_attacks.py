"""A few of the hostile inputs, in a process of their own: `python -m attacks` runs them all."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="inputs run in forked children")


def test_hostile_inputs_do_no_harm(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    command = [sys.executable, "-m", "attacks", "--every", "61"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_what_watches_inputs_sees_each_fault(tmp_path):
    program = Path(__file__).with_name("faults_program.py")
    done = subprocess.run([sys.executable, program, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
