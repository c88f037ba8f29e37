"""Fixtures that every test shares."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

pytest_plugins = ["originals", "ascend"]

# Before torch is imported: threads that wait for work must not keep those of a neighbouring test process from theirs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of full reference data and real images; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("CTNET_SHARED", Path(__file__).parents[1] / ".." / "shared")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder}; set CTNET_SHARED")
    return folder


@pytest.fixture(scope="session")
def golden():
    """Open a golden file by name: arrays addressed as `case/field`."""
    return lambda name: np.load(Path(__file__).parent / "golden" / f"{name}.npz")


@pytest.fixture(scope="session")
def golden_cases() -> dict:
    """The parameters of golden cases."""
    return json.loads((Path(__file__).parent / "golden" / "cases.json").read_text())


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    """Run in an empty folder with a cache of its own, so that no test writes into the project or the user's home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTNET_HOME", str(tmp_path / "home"))


@pytest.fixture
def small_set(tmp_path) -> Path:
    """A demo set of 12 and 6 little images."""
    from ctnet.data.demo import write_demo

    return write_demo(tmp_path / "shapes", images_train=12, images_val=6, seed=3, size=(96, 120))


@pytest.fixture
def ctnet(monkeypatch, capsys):
    """Run the command line in this process: `ctnet("train", ...)` returns (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        from ctnet.cli.app import main

        monkeypatch.setattr("sys.argv", ["ctnet", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as leave:
            code = leave.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return run
