"""The name under which ctnet is installed: in its metadata, in every hint, and beside another project's files."""

import json
import os
import re
import shutil
import subprocess
import sys
from email.parser import Parser
from pathlib import Path

import pytest

from ctnet.distribution import NAME, install_command
from ctnet.export.formats import FORMATS

ROOT = Path(__file__).parents[1]
SPOKEN = ("src", "docs", "examples", "benchmarks", "configs", "README.md", "CONTRIBUTING.md", "pyproject.toml")
HINT = re.compile(r"""pip install (?:-\S+ )*["'`]?(?P<what>[\w.-]+)?(?:\[(?P<extras>[\w,]+)\])?""")
OURS = {NAME, ".", "./examples/mydevice"}


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    """The metadata that a build of the sources as they are writes."""
    folder = tmp_path_factory.mktemp("build")
    sources = shutil.copytree(ROOT, folder / "sources", ignore=shutil.ignore_patterns(".*", "tests", "*.so", "build"))
    code = "import sys; from setuptools.build_meta import prepare_metadata_for_build_wheel as p; p(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, folder], cwd=sources, check=True, capture_output=True, timeout=200)
    (file,) = folder.glob("*.dist-info/METADATA")
    return Parser().parsestr(file.read_text(encoding="utf-8"))


def texts():
    for start in SPOKEN:
        for file in [ROOT / start, *sorted((ROOT / start).rglob("*"))]:
            if file.suffix in (".py", ".md", ".toml", ".yaml", ".txt", ".sh"):
                yield file.relative_to(ROOT), file.read_text(encoding="utf-8")


def test_the_distribution_and_its_extras_have_a_name_of_their_own(metadata):
    assert metadata["Name"] == NAME == "ctnet-toolkit"
    own = [line for line in metadata.get_all("Requires-Dist") if re.match(r"ctnet\b", line)]
    assert own
    assert all(line.startswith(f"{NAME}[") for line in own)


def test_every_hint_names_the_distribution_or_the_sources_and_an_extra_that_exists(metadata):
    extras = set(metadata.get_all("Provides-Extra"))
    wrong, seen = [], 0
    for file, text in texts():
        wrong += [f"{file}: {found[0]}" for found in re.finditer(r"\bctnet\[[\w,{]+", text)]
        for found in HINT.finditer(text):
            what = found["what"] or ""
            seen += what in OURS
            if re.fullmatch(r"ctnet(==.*)?", what) or not set((found["extras"] or "all").split(",")) <= extras:
                wrong.append(f"{file}: {found[0]}")
    assert wrong == []
    assert seen > 5
    asked = {extra for f in FORMATS for extra in (f.extra, *(needs.extra for needs in f.also.values())) if extra}
    asked |= set(re.findall(r"install_command\(['\"](\w+)", "".join(text for _, text in texts())))
    assert {"onnx", "int8", "tensorboard"} <= asked <= extras
    assert install_command("int8") == 'pip install "ctnet-toolkit[int8]"'


def run(*arguments, path=()):
    folders = os.pathsep.join(map(str, path))
    done = subprocess.run(
        [sys.executable, "-m", "ctnet", *arguments],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": folders}, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def stranger(folder, name="ctnet", version="1.0.2"):
    facts = folder / f"{name}-{version}.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (facts / "top_level.txt").write_text("ctnet\n")
    return folder


def test_alone_nothing_is_said():
    out, err = run("doctor", "--json")
    facts = json.loads(out)["distribution"]
    assert (err, facts["problems"], facts["name"]) == ("", [], NAME)
    assert Path(facts["folder"]) == ROOT / "src" / "ctnet"


def test_a_stranger_of_our_name_is_noticed_at_every_start(tmp_path):
    folder = stranger(tmp_path / "site")
    _, err = run("config", "list", path=[folder])
    assert f"warning: another distribution, ctnet 1.0.2 in {folder}" in err.replace("\n", "")
    assert f"pip uninstall ctnet {NAME}" in err
    out, _ = run("doctor", path=[folder])
    assert "ctnet 1.0.2" in out.partition("devices")[0]


def test_another_distribution_that_claims_the_package_is_told_by_doctor(tmp_path):
    out, _ = run("doctor", path=[stranger(tmp_path / "site", "someones-fork")])
    assert "someones-fork claims files of the package ctnet" in out


def test_a_copy_that_is_not_the_installed_one_is_told_by_doctor(tmp_path):
    shutil.copytree(ROOT / "src" / "ctnet", tmp_path / "ctnet", ignore=shutil.ignore_patterns("__pycache__", "csrc"))
    out, _ = run("doctor", "--json", path=[tmp_path])
    (problem,) = json.loads(out)["distribution"]["problems"]
    assert problem.endswith(f"but ctnet was imported from {tmp_path / 'ctnet'}")


def test_an_overwritten_package_is_noticed(tmp_path):
    copy = shutil.copytree(ROOT / "src" / "ctnet", tmp_path / "ctnet", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "__init__.py").write_text('__version__ = "1.0.2"\n')
    _, err = run("--version", path=[tmp_path])
    assert "__init__.py is not that of ctnet-toolkit" in err.replace("\n", "")
