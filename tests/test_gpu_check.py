"""`scripts/gpu_check.sh` on a CPU: every part is a row, and one that fails does not end the others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu_check.sh"


def check(out, *words, **environment):
    command = [SCRIPT, "--device", "cpu", "--small", "--out", out, *words]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=400,
        env=os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip
    return done, json.loads((out / "gpu_check.json").read_text())


@pytest.mark.slow
def test_all_parts_run_and_one_table_and_json_are_left(small_set, tmp_path):
    done, document = check(tmp_path / "out", "--data", small_set)
    assert done.returncode == 0, done.stdout
    verdicts = {row["part"]: row["verdict"] for row in document["parts"]}
    assert verdicts == dict.fromkeys(
        ("doctor", "conformance", "benchmark_model", "benchmark_train_step", "training"), "passed"
    )
    assert {"model", "train_step"} <= set(document["figures"])
    assert all(name in done.stdout for name in verdicts)


def test_a_part_that_fails_is_a_row_and_the_others_run(tmp_path):
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/bash\ncase \"$*\" in *conformance*|*benchmarks*) echo went wrong; exit 9;; esac\n"
                      f"case \"$*\" in *'- '*) exec {sys.executable} \"$@\";; esac\necho fine\n")  # fmt: skip
    broken.chmod(0o755)
    done, document = check(tmp_path / "out", PYTHON=str(broken))
    assert done.returncode == 1
    rows = {row["part"]: (row["verdict"], row["last"]) for row in document["parts"]}
    assert rows["conformance"] == ("failed (9)", ["went wrong"])
    assert rows["training"] == ("passed", ["fine"])
