"""Device plug-ins made for a test, found through real entry points, and command lines in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Install a plug-in in a temporary folder: `plugin("name", "source code")`. Returns the folder."""
    folder = tmp_path / "site"

    def install(name: str, source: str, package: str = "somebodys-plugin", group: str = "ctnet.devices") -> Path:
        module = package.replace("-", "_")
        facts = folder / f"{module}-1.0.dist-info"
        facts.mkdir(parents=True)
        (folder / f"{module}.py").write_text(source)
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (facts / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}:device\n")
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, module, raising=False)  # another test's
        return folder

    return install


_SESSION = """
import contextlib, io, json, sys
from ctnet.cli.app import main
results = []
for argv in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["ctnet", *argv]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as leave:
            code = leave.code or 0
    results.append((code, out.getvalue(), err.getvalue()))
json.dump(results, sys.stdout)
"""


@pytest.fixture(scope="session")
def session():
    """Run command lines one after the other in one new process; return (exit code, stdout, stderr) of each.

    `path` is prepended to the process's search path, `variables` are added to its environment, `first` is Python that
    runs before.
    """

    def run(*commands, path=(), variables=None, first=""):
        environment = process_environment(path) | (variables or {})
        words = [[str(word) for word in command] for command in commands]
        done = subprocess.run(
            [sys.executable, "-c", f"{first}\n{_SESSION}"],
            input=json.dumps(words), capture_output=True, text=True, env=environment, timeout=400,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [tuple(result) for result in json.loads(done.stdout)]

    return run


def process_environment(path=()) -> dict[str, str]:
    """Return this environment with folders in front of the search path of modules."""
    before = os.environ.get("PYTHONPATH")
    folders = [*map(str, path), *([before] if before else [])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="session")
def conformance():
    """Run the conformance suite in a new process; return (exit code, stdout, stderr)."""

    def run(*arguments, path=()):
        command = [sys.executable, "-m", "ctnet.devices.conformance", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=process_environment(path), timeout=400)
        return done.returncode, done.stdout, done.stderr

    return run
