"""The rules that keep the package readable, checked on its source."""

import ast
import subprocess
import sys
import time
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "ctnet"
FILES = sorted(SOURCE.rglob("*.py"))
LAYERS = [
    {"_version", "terminal", "parent"},
    {"distribution"},
    {"errors"},
    {"limits", "precision"},
    {"lock"},
    {"types", "files"},
    {"config"},
    {"ops"},
    {"nn", "codec"},
    {"devices"},
    {"models", "losses", "data"},
    {"families"},
    {"weights"},
    {"export"},
    {"detect"},
    {"eval"},
    {"engine", "predict"},
    {"bench"},
    {"cli"},
]
RANK = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
FENCED = {
    "typer": {"cli"},
    "rich": {"cli"},
    "pydantic": {"config"},
    "yaml": {"config"},
    "cv2": {"data", "detect/inputs.py", "predict", "codec/affine.py", "eval/plots.py", "engine/samples.py"},
    "pycocotools": {"eval/coco.py", "eval/keypoints.py", "data"},
    "scipy": {"eval/widerface.py"},
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
    "pandas": {"types.py"},
    "supervision": {"types.py", "predict/tracks.py"},
    "PIL": {"detect/inputs.py"},
    "pillow_heif": {"data/image.py"},
    "trackers": {"predict/tracks.py"},
}


MOST_LINES, MOST_LINES_OF_A_FUNCTION = 450, 60  # of a function with its signature, also of commands


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


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


def test_rooms_import_lower_ones_alone(trees):
    """Neither higher rooms nor others of their own level, so there is no circle between rooms."""
    wrong = []
    for path, tree in trees.items():
        here = room(path)
        if here not in RANK:  # the public surface and `python -m ctnet`
            continue
        for name in imports(tree):
            there = name.split(".")[1] if name.startswith("ctnet.") else here
            if there != here and RANK[there] >= RANK[here]:
                wrong.append(f"{path.relative_to(SOURCE)} -> {name}")
    assert not wrong


def test_no_files_import_each_other_in_a_circle(trees):
    """Imports inside functions and for type checkers count as well."""
    modules = {path: ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in trees}
    names = {name.removesuffix(".__init__") for name in modules.values()}
    graph = {}
    for path, tree in trees.items():
        found = set(imports(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
        name = modules[path].removesuffix(".__init__")
        # `from package import module` needs the module, not what else the package's own file imports
        needed = {
            one for one in found & names if one != name and not any(f.startswith(f"{one}.") for f in found & names)
        }
        graph[name] = needed
    TopologicalSorter(graph).prepare()  # raises CycleError, naming the circle


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
    assert median(lines(path) for path in trees) <= 200
    everything = [*trees, *(path for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))]
    assert [f"{path.relative_to(ROOT)}: {lines(path)}" for path in everything if lines(path) > MOST_LINES] == []
    assert [
        f"{path.relative_to(ROOT)}:{node.name}: {length}"
        for path in everything
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        # a generator of cases in the tests is a table
        and not ("tests" in path.parts and any(isinstance(inner, ast.Yield) for inner in ast.walk(node)))
        and (length := node.end_lineno - node.lineno + 1) > MOST_LINES_OF_A_FUNCTION
    ] == []


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

    assert ctnet.__all__ == ["CtnetError", "Detections", "Detector", "__version__", "load_detector", "read_image"]
    assert all(hasattr(ctnet, name) for name in ctnet.__all__)
    with pytest.raises(AttributeError):
        ctnet.nothing  # noqa: B018
