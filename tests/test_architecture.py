"""The rules that keep the package readable, checked on its source."""

import ast
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "ctnet"
FILES = sorted(SOURCE.rglob("*.py"))
LAYERS = [
    {"errors", "types", "files", "_version", "distribution", "terminal"},
    {"config"},
    {"ops"},
    {"devices", "nn", "codec"},
    {"models", "losses", "data", "weights"},
    {"bench", "engine", "eval", "export", "predict"},
    {"cli"},
]
RANK = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
SIBLINGS = {
    ("engine", "eval"),  # training scores its weights
    ("bench", "export"),  # what is timed is the file and the runtime that users get
    ("bench", "engine"),  # and the step that training takes
    ("bench", "eval"),  # what a faster file costs is AP
}
FENCED = {
    "typer": {"cli"},
    "rich": {"cli"},
    "pydantic": {"config"},
    "yaml": {"config"},
    "cv2": {"data", "predict", "codec/affine.py", "eval/plots.py", "engine/samples.py"},
    "pycocotools": {"eval/coco.py", "data"},
    "albumentations": {"data/augment.py"},
    "onnx": {"export"},
    "onnxruntime": {"export"},
    "onnxscript": {"export"},
    "openvino": {"export"},
    "nncf": {"export"},
    "executorch": {"export"},
    "ais_bench": {"export"},
    "torch_npu": {"devices/npu"},
    "torch_sdaa": {"devices/sdaa"},
    "triton": {"devices/cuda"},
}


def imports(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def room(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


@pytest.fixture(scope="module")
def trees() -> dict:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def test_no_room_imports_a_higher_one_or_a_sibling_of_the_fifth_level(trees):
    wrong = []
    for path, tree in trees.items():
        here = room(path)
        if here not in RANK:  # the public surface and `python -m ctnet`
            continue
        for name in imports(tree):
            if not name.startswith("ctnet."):
                continue
            there = name.split(".")[1]
            siblings = RANK[there] == 5 == RANK[here] and there != here and (here, there) not in SIBLINGS
            if RANK[there] > RANK[here] or siblings:
                wrong.append(f"{path.relative_to(SOURCE)} -> {name}")
    assert not wrong


def test_packages_are_imported_only_in_their_rooms(trees):
    wrong = []
    for path, tree in trees.items():
        relative = path.relative_to(SOURCE).as_posix()
        for name in imports(tree):
            allowed = FENCED.get(name.split(".")[0])
            if allowed is not None and not any(relative == a or relative.startswith(f"{a}/") for a in allowed):
                wrong.append(f"{relative} -> {name}")
    assert not wrong


def test_files_and_functions_stay_small(trees):
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in trees}
    assert max(lengths.values()) <= 500
    assert median(lengths.values()) <= 200
    long = [
        f"{path.relative_to(SOURCE)}:{node.name}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        # a command's options are one a line; what it does is counted from its docstring on
        and node.end_lineno - (node.body[0] if room(path) == "cli" else node).lineno >= 60
    ]
    assert not long


def test_every_room_is_packaged():
    text = (ROOT / "pyproject.toml").read_text()
    listed = text.partition("packages = [")[2].partition("]")[0]
    packages = [line.strip(' ",') for line in listed.splitlines() if line.strip()]
    rooms = {path.parent.relative_to(SOURCE.parent).as_posix().replace("/", ".") for path in FILES}
    assert set(packages) == rooms | {"ctnet.recipes"}


def test_help_is_fast_and_imports_no_torch():
    heavy = ("torch", "cv2", "numpy", "pydantic", "pycocotools")
    code = f"""
import sys
sys.argv = ["ctnet", "--help"]
from ctnet.cli.app import main
try:
    main()
except SystemExit:
    pass
print(*[m for m in {heavy} if m in sys.modules], file=sys.stderr)
"""
    best = 9.0
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        best = min(best, time.perf_counter() - start)
    assert done.stderr.strip() == ""
    for command in ("train", "eval", "predict", "doctor", "data", "config"):
        assert command in done.stdout
    # the promise is 0.5 s on an idle machine; a loaded one is given room
    assert best < 1.0


def test_public_names_are_these():
    import ctnet

    assert ctnet.__all__ == ["Detections", "Detector", "__version__", "load_detector"]
    assert all(hasattr(ctnet, name) for name in ctnet.__all__)
    with pytest.raises(AttributeError):
        ctnet.nothing  # noqa: B018
