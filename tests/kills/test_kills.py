"""A sample of what `kill_program.py` shows by hand."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("kill_program.py")


def test_runs_that_were_killed_anywhere_leave_what_one_undisturbed_leaves(tmp_path):
    words = ("--operations", "14", "--times", "6", "--seed", "1")
    done = subprocess.run([sys.executable, PROGRAM, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert (found["trials"], found["different"]) == (20, {})
    assert found["kills"] == 30
    assert found["operations_in_a_run"] > 300
    assert found["rows_compared"] >= 7
