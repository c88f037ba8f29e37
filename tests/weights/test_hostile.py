"""Small files of weights that ask for much: a WeightsError each, in little time and memory, and nothing runs."""

import json
import subprocess
import sys

import pytest

import hostile

SECONDS, MEGABYTES = 10, 2000

PROGRAM = """
import json, sys, time
from pathlib import Path
import hostile, torch
from ctnet.errors import WeightsError
from ctnet.weights.containers import read_container

found = {}
for number, name in enumerate(json.loads(sys.argv[1])):
    path = Path(f"file-{number}")
    hostile.WEIGHTS[name](path)
    began = time.process_time()
    try:
        container = read_container(path)
        ended = "read: " + ", ".join(f"{n} {tuple(t.shape)}" for n, t in container.tensors.items())
    except WeightsError as error:
        ended = str(error)
    found[name] = (ended, time.process_time() - began, hostile.peak_megabytes())
    path.unlink()
print(json.dumps(found))
"""

GROUPS = ("zip", "legacy", "pickle", "safetensors", "")


@pytest.mark.parametrize("group", GROUPS)
def test_small_files_that_ask_for_much(group, tmp_path):
    others = tuple(g for g in GROUPS if g)
    names = [n for n in hostile.WEIGHTS if (n.startswith(f"{group}-") if group else not n.startswith(others))]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(names)],
        capture_output=True, text=True, timeout=300, cwd=tmp_path, env=hostile.environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert list(found) == names
    for name, (ended, seconds, megabytes) in found.items():
        assert not ended.startswith("read") or name in hostile.HARMLESS, (name, ended)
        assert "weights_only" not in ended
        assert len(ended) < 1000, name
        assert seconds < SECONDS, name
        assert megabytes < MEGABYTES, name
    for name in ("system", "eval", "extension", "zeros"):
        for kind in ("zip", "legacy", "pickle"):
            if kind == group:
                assert "asks for code" in found[f"{kind}-{name}"][0], name
    assert not list(tmp_path.iterdir())
