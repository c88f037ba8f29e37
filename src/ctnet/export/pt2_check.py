"""What of a `.pt2` torch may see: a copy of the parts that are known, made after a check of every string in them.

torch evaluates and executes text of such files (torch 2.13): expressions of symbolic shapes by `sympify`, guards by
`exec`, names of nodes as source code; it imports modules that input specs name, calls whatever attribute of torch an
operator's name leads to, loads compiled libraries from `data/aotinductor/`, and unpickles objects and old layouts.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ctnet.errors import WeightsError
from ctnet.export.about import KEY
from ctnet.limits import parse_json
from ctnet.weights.containers.torch_file import load_torch_zip
from ctnet.weights.containers.zip_file import open_zip

_PROGRAM = "models/model.json"
_INPUTS = "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_ABOUT = f"extra/{KEY}"
_PLAIN = {"archive_format", "archive_version", ".data/version", "byteorder", ".data/serialization_id"}
_NUMBERS = re.compile(r"data/(weights/weight|constants/tensor)_\d{1,6}")

_NAME = re.compile(r"[A-Za-z_]\w{0,199}", re.ASCII)
_DOTTED = re.compile(r"|\w[\w.]{0,399}", re.ASCII)  # of modules and their tensors, which torch looks up part by part
_FREE = {"torch_version", "verifiers", "as_float"}
"""strings that torch compares or converts to a number"""
_OPERATOR = re.compile(r"torch\.ops\.(aten|ctnet)\.\w+\.\w+|torch\.sym_\w+", re.ASCII)
_PYTHON_OPERATOR = re.compile(r"(_operator|math)\.[a-z]\w*", re.ASCII)
_PLAIN_PYTHON = {
    *("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "getitem", "ceil", "floor", "trunc", "sqrt"),
    *("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "not_", "pos"),
}
_OPENS_FILES = "torch.ops.aten.from_file."

_TEXT = re.compile(r"[\w ()+\-*/%,.=<>!']{1,4000}", re.ASCII)
_SYMBOL = re.compile(r"[a-z]{1,3}\d{1,4}", re.ASCII)
_FUNCTIONS = {
    *("Symbol", "Integer", "Add", "Mul", "Pow", "Min", "Max", "Mod", "PythonMod", "FloorDiv", "CeilDiv", "CleanDiv"),
    *("ModularIndexing", "IntTrueDiv", "FloatTrueDiv", "ToFloat", "FloorToInt", "CeilToInt", "TruncToInt", "Where"),
    *("Equality", "Unequality", "GreaterThan", "LessThan", "StrictGreaterThan", "StrictLessThan", "Not", "And", "Or"),
}
_GRAMMAR = (
    *(ast.Expression, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod, ast.UnaryOp, ast.USub, ast.Load),
    *(ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
)
_DEEPEST_EXPRESSION = 40


def checked_copy(path: Path) -> tuple[io.BytesIO, str | None]:
    """Return an archive of the file's known parts for torch, and the metadata of the file.

    torch reads the copy, so that no second reading of the archive can find what this one did not. Raises WeightsError
    for anything that torch would execute, ValueError, KeyError, OSError and others for a damaged file.
    """
    parts = _parts(path)
    program = parse_json(parts[_PROGRAM])
    for node in _nodes(program):
        node["metadata"] = {}  # stack traces and the like, of no use here
    try:
        _check_strings(program, "")
        for name in _CONFIGS:
            _check_numbers(parse_json(parts[name]), name, parts)
    except ValueError as error:
        raise _refused(path, error) from None
    parts[_PROGRAM] = json.dumps(program).encode()
    _check_inputs(path, parts[_INPUTS])
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as archive:
        for name, content in parts.items():
            if name != _ABOUT:
                archive.writestr(f"archive/{name}", content)
    copy.seek(0)
    return copy, parts[_ABOUT].decode() if _ABOUT in parts else None


def check_expression(text: str) -> None:
    """Raise ValueError unless the text is an expression of symbolic shapes: names, integers, + - * // %, comparisons.

    torch also writes the operators as functions (`Add`, `FloorDiv`, ...).
    """
    if not _TEXT.fullmatch(text):
        raise ValueError(f"an expression of a shape: {text[:80]!r}")
    try:
        _check_node(ast.parse(text, mode="eval"), 0)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"an expression of a shape: {text[:80]!r} ({error})") from None


def _check_node(node: ast.AST, depth: int) -> None:
    if depth > _DEEPEST_EXPRESSION:
        raise ValueError("nested too deep")
    if isinstance(node, ast.Name):
        if not _SYMBOL.fullmatch(node.id):
            raise ValueError(f"the name {node.id}")
    elif isinstance(node, ast.Constant):
        if type(node.value) is not int or abs(node.value) >= 2**63:
            raise ValueError(f"the constant {str(node.value)[:40]}")
    elif isinstance(node, ast.Call):
        _check_call(node, depth)
    elif isinstance(node, _GRAMMAR):
        for child in ast.iter_child_nodes(node):
            _check_node(child, depth + 1)
    else:
        raise ValueError(type(node).__name__)


def _check_call(node: ast.Call, depth: int) -> None:
    name = node.func.id if isinstance(node.func, ast.Name) else None
    if name not in _FUNCTIONS:
        raise ValueError("a call of something else than the functions of shapes")
    flags = [word.value for word in node.keywords]
    if not all(isinstance(flag, ast.Constant) and type(flag.value) is bool for flag in flags):
        raise ValueError(f"an argument of {name}")
    arguments = node.args
    if name == "Symbol":
        (argument,) = arguments
        if not (isinstance(argument, ast.Constant) and _SYMBOL.fullmatch(str(argument.value))):
            raise ValueError("the name of a symbol")
        return
    if name == "Pow":  # a tower of powers takes for ever
        exponent = ast.unparse(arguments[1])
        if not re.fullmatch(r"(Integer\()?-?[1-8]\)?", exponent) or "Pow" in ast.unparse(arguments[0]):
            raise ValueError("a power of a power, or above 8")
    for argument in arguments:
        _check_node(argument, depth + 1)


def _parts(path: Path) -> dict[str, bytes]:
    """Return the content of the archive's entries by their names below its folder. Raises WeightsError."""
    parts: dict[str, bytes] = {}
    with open_zip(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise _refused(path, "an archive that unpacks to more than its size")
        for entry in archive.infolist():
            name = entry.filename.partition("/")[2]
            known = {_PROGRAM, _INPUTS, _ABOUT, *_CONFIGS, *_PLAIN}
            if (name not in known and not _NUMBERS.fullmatch(name)) or name in parts:
                raise _refused(path, f"the part {entry.filename[:80]!r}")
            parts[name] = archive.read(entry)
    return parts


def _nodes(program: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from program["graph_module"]["graph"]["nodes"]


def _check_strings(value: Any, key: str, depth: int = 0) -> None:
    """Check each string of the program by the key it stands under; one without a rule must be a name."""
    if depth > _DEEPEST_EXPRESSION:
        raise ValueError("a program nested too deep")
    if isinstance(value, dict):
        for inner, content in value.items():
            if key == "range_constraints":
                check_expression(inner)
            elif not _NAME.fullmatch(inner):
                raise ValueError(f"the key {inner[:80]!r}")
            # tensors may bear any name, also that of a rule
            _check_strings(content, "" if key.endswith("_values") else inner, depth + 1)
    elif isinstance(value, list):
        for content in value:
            _check_strings(content, key, depth + 1)
    elif isinstance(value, str) and key not in _FREE:
        _check_string(value, key)


def _check_string(text: str, key: str) -> None:
    if key in ("expr_str", "guards_code"):
        check_expression(text)
    elif key in ("target", "as_operator"):
        plain = _PYTHON_OPERATOR.fullmatch(text) and text.partition(".")[2] in _PLAIN_PYTHON
        if not (plain or _OPERATOR.fullmatch(text)) or text.startswith(_OPENS_FILES):
            raise ValueError(f"the operator {text[:80]!r}")
    elif key in ("in_spec", "out_spec"):
        _check_spec(parse_json(text)[1])
    elif not (_DOTTED if key in ("fqn", "parameter_name", "buffer_name") else _NAME).fullmatch(text):
        raise ValueError(f"{key}: {text[:80]!r}")


def _check_spec(spec: Any) -> None:
    """Check how inputs or outputs are nested: in tuples, lists and empty dictionaries."""
    plain = {"builtins.tuple": "null", "builtins.list": "null", "builtins.dict": "[]", None: None}
    if spec["type"] not in plain or spec["context"] != plain[spec["type"]]:
        raise ValueError(f"inputs or outputs in {str(spec['type'])[:80]!r}")
    for child in spec["children_spec"]:
        _check_spec(child)


def _check_numbers(config: dict[str, Any], name: str, parts: dict[str, bytes]) -> None:
    """Check that each tensor is numbers in a part of its own, and none of a size that is not there."""
    for entry in config["config"].values():
        at = f"{name.rpartition('/')[0]}/{entry['path_name']}"
        if entry.get("use_pickle") or at not in parts or not _NUMBERS.fullmatch(at):
            raise ValueError(f"objects among the numbers: {entry['path_name']!r:.80}")
        sizes = [size["as_int"] for size in entry["tensor_meta"]["sizes"]]
        if not all(type(size) is int and size >= 0 for size in sizes) or math.prod(sizes) > max(len(parts[at]), 1) * 8:
            raise ValueError(f"a tensor of sizes {str(sizes)[:80]} in {len(parts[at])} bytes")


def _check_inputs(path: Path, content: bytes) -> None:
    """Raise WeightsError unless the example inputs are tensors in plain containers.

    Where torch's restricted reader refuses them, torch takes the unrestricted one.
    """
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder, "inputs.pt")
        part.write_bytes(content)
        load_torch_zip(part)
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception:
        raise _refused(path, "example inputs that are not tensors") from None


def _refused(path: Path, got: object) -> WeightsError:
    return WeightsError(
        "the program holds what torch would execute; nothing in it was executed", file=path, got=got,
        expected="tensors, torch's own operators, and shapes of names, integers, + - * // % and comparisons",
        hint="export the weights again: ctnet export pt2",
    )  # fmt: skip
