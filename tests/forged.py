"""Sound files with one part forged, for whoever tests a reader: each function writes files and yields what is forged.

Code in them would make the file `executed` in the working folder.
"""

import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

TOUCH = "__import__('pathlib').Path('executed').touch()"
HUGE = 10**30


class Touch:
    """An object whose unpickling runs code."""

    def __reduce__(self):
        return eval, (TOUCH,)


def edit_archive(source: Path, target: Path, edit: Callable[[dict[str, bytes]], None]) -> Path:
    """Write a zip anew with its entries edited, all of them stored."""
    with zipfile.ZipFile(source) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    edit(entries)
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return target


def edit_program(source: Path, target: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """Write a `.pt2` anew with its program edited."""

    def change(entries: dict[str, bytes]) -> None:
        content = json.loads(entries["archive/models/model.json"])
        edit(content)
        entries["archive/models/model.json"] = json.dumps(content).encode()

    return edit_archive(source, target, change)


def forged_programs(source: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield `.pt2` files in which torch finds code: each way in that torch 2.13 has."""

    def expression(program):
        first = next(iter(program["graph_module"]["graph"]["tensor_values"].values()))
        first["sizes"][0] = {"as_expr": {"expr_str": TOUCH, "hint": None}}

    def guard(program):
        program["guards_code"] = [TOUCH]

    def guard_with_comment(program):
        program["guards_code"] = [f"1 == 1 #\n, '') or {TOUCH} #"]

    def spec(program):
        context = {"default_factory_module": "antigravity", "default_factory_name": "x", "dict_context": []}
        leaf = {"type": "collections.defaultdict", "context": json.dumps(context), "children_spec": []}
        program["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = json.dumps([1, leaf])

    def node_name(program):
        text = json.dumps(program["graph_module"])
        name = program["graph_module"]["graph"]["nodes"][0]["outputs"][0]["as_tensor"]["name"]
        program["graph_module"] = json.loads(text.replace(f'"{name}"', json.dumps(f"a = {TOUCH}; b")))

    def call(program):
        program["graph_module"]["graph"]["nodes"].insert(
            0,
            {
                "target": "torch.os.system", "metadata": {}, "name": "touched", "is_hop_single_tensor_return": None,
                "inputs": [{"name": "", "kind": 1, "arg": {"as_string": "touch executed"}}],
                "outputs": [{"as_none": True}],
            },
        )  # fmt: skip

    def opened_file(program):
        program["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.aten.from_file.default"

    def counter(program):
        program["range_constraints"] = {"u99999999999": {"min_val": 0, "max_val": 1}}

    def power(program):
        first = next(iter(program["graph_module"]["graph"]["tensor_values"].values()))
        first["sizes"][0] = {"as_expr": {"expr_str": "Pow(Integer(9), Integer(999999999))", "hint": None}}

    for edit in (expression, guard, guard_with_comment, spec, node_name, call, opened_file, counter, power):
        yield edit.__name__, edit_program(source, folder / f"{edit.__name__}.pt2", edit)

    def pickled_weight(entries):
        name = "archive/data/weights/model_weights_config.json"
        config = json.loads(entries[name])
        first = next(iter(config["config"].values()))
        first["use_pickle"] = True
        entries[name] = json.dumps(config).encode()
        entries[f"archive/data/weights/{first['path_name']}"] = _pickled(Touch())

    def opaque_constant(entries):
        entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        entries["archive/data/constants/model_constants_config.json"] = json.dumps({"config": {"c": entry}}).encode()
        entries["archive/data/constants/opaque_obj_0"] = pickle.dumps(Touch())

    def example_inputs(entries):
        entries["archive/data/sample_inputs/model.pt"] = _pickled(Touch())

    def library(entries):
        entries["archive/data/aotinductor/model/a.so"] = b"\x7fELF"

    def second_program(entries):
        entries["archive/models/other.json"] = entries["archive/models/model.json"]

    def old_layout(entries):
        entries["version"] = b"8.8"
        entries["serialized_exported_program.json"] = entries.pop("archive/models/model.json")

    def vast_tensor(entries):
        name = "archive/data/weights/model_weights_config.json"
        config = json.loads(entries[name])
        first = next(iter(config["config"].values()))
        first["tensor_meta"]["sizes"] = [{"as_int": 10**11}]
        entries[f"archive/data/weights/{first['path_name']}"] = b""
        entries[name] = json.dumps(config).encode()

    for part in (
        pickled_weight, opaque_constant, example_inputs, library, second_program, old_layout, vast_tensor,
    ):  # fmt: skip
        yield part.__name__, edit_archive(source, folder / f"{part.__name__}.pt2", part)


def _pickled(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


METADATA: dict[str, Any] = {
    "name climbing": {"recipe.name": "../../outside"},
    "name absolute": {"recipe.name": "/outside"},
    "name of dots": {"recipe.name": ".."},
    "name empty": {"recipe.name": ""},
    "name with NUL": {"recipe.name": "a\0b"},
    "name with backslash": {"recipe.name": "..\\outside"},
    "name with escapes": {"recipe.name": "\x1b]0;owned\x07"},
    "name too long": {"recipe.name": "n" * 300},
    "name no text": {"recipe.name": 5},
    "recipe null": {"recipe": None},
    "recipe a list": {"recipe": []},
    "recipe unknown key": {"recipe.model.layers": 5},
    "side 32768": {"recipe.data.image_size": [32768, 32768]},
    "side 2^20": {"recipe.data.image_size": [2**20, 32]},
    "area": {"recipe.data.image_size": [8192, 8192]},
    "size of three": {"recipe.data.image_size": [32, 32, 32]},
    "top_k": {"recipe.evaluation.top_k": 10**9},
    "batch": {"recipe.evaluation.batch_size": 1e30},
    "batch beyond floats": {"recipe.evaluation.batch_size": 10**400},
    "scale infinite": {"recipe.evaluation.scales": [float("inf")]},
    "scale NaN": {"recipe.evaluation.scales": [float("nan")]},
    "scale vast": {"recipe.evaluation.scales": [1e9]},
    "scales many": {"recipe.evaluation.scales": [1.0] * 10000},
    "test_scale": {"recipe.evaluation.test_scale": 1e9},
    "mean NaN": {"recipe.data.mean": [float("nan"), 0, 0]},
    "std zero": {"recipe.data.std": [0, 1, 1]},
    "wide heads": {"recipe.model.head_channels": 10**7},
    "wide neck": {"recipe.model.neck_channels": [10**6] * 3},
    "neck a word": {"recipe.model.neck_channels": "wide"},
    "categories null": {"categories": None},
    "categories none": {"categories": []},
    "categories a word": {"categories": "cat"},
    "category of one": {"categories": [[1]]},
    "category id negative": {"categories": [[-1, "a"]]},
    "category id vast": {"categories": [[2**70, "a"]]},
    "category id twice": {"categories": [[1, "a"], [1, "b"]]},
    "category name null": {"categories": [[1, None]]},
    "categories a million": {"categories": [[i, str(i)] for i in range(10**6)]},
    "schema newer": {"schema": "ctnet.weights/9", "ctnet": "99.0"},
    "schema null": {"schema": None},
    "info a list": {"info": [1]},
}
"""what is put into metadata, by dotted key"""


def forged_about(about: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the description of a file with other values under dotted keys."""
    about = json.loads(json.dumps(about))
    for dotted, value in changes.items():
        *path, last = dotted.split(".")
        node = about
        for key in path:
            node = node[key]
        node[last] = value
    return about


def forge_weights(source: Path, target: Path, about: object) -> Path:
    """Write a ctnet `.safetensors` anew with another description, which may also be text."""
    with safe_open(source, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    text = about if isinstance(about, str) else json.dumps(about)
    save_file(tensors, target, metadata={"ctnet": text})
    return target


def read_about(source: Path) -> dict[str, Any]:
    """Return the description in a ctnet `.safetensors`."""
    with safe_open(source, framework="pt") as file:
        return json.loads(file.metadata()["ctnet"])


def forged_weights(source: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield `.safetensors` files of ctnet whose description is forged."""
    about = read_about(source)
    for what, changes in METADATA.items():
        yield what, forge_weights(source, folder / "forged.safetensors", forged_about(about, changes))
    for what, text in (("no JSON", "{"), ("null", "null"), ("a list", "[]"), ("deep", "[" * 100_000)):
        yield what, forge_weights(source, folder / "forged.safetensors", text)
    for key in ("recipe", "categories", "schema"):
        rest = {name: value for name, value in about.items() if name != key}
        yield f"without {key}", forge_weights(source, folder / "forged.safetensors", rest)


def forged_states(source: Path, target: Path) -> Iterator[tuple[str, Path]]:
    """Yield `last.pt` files of ctnet in which one part is of another kind than resuming takes it for."""

    def vast_numpy_position(state):
        state["rng"]["numpy"][2] = 10**9

    def averages_of_another_shape(state):
        first = state["optimizer"]["state"][0]
        first["exp_avg"] = torch.zeros(3)

    def averages_missing(state):
        del state["optimizer"]["state"][0]["exp_avg"]

    def averages_no_tensors(state):
        state["optimizer"]["state"][0]["exp_avg"] = "abc"

    def groups_missing(state):
        state["optimizer"]["param_groups"] = []

    def group_without_weights(state):
        state["optimizer"]["param_groups"][0]["params"] = []

    def rates_of_words(state):
        state["optimizer"]["param_groups"][0].pop("params")

    def a_weight_missing(state):
        state["model"].popitem()

    def a_weight_no_tensor(state):
        state["model"][next(iter(state["model"]))] = [1.0]

    def a_weight_of_another_shape(state):
        state["model"][next(iter(state["model"]))] = torch.zeros(7)

    def average_missing(state):
        state["ema"] = {}

    def generator_cut(state):
        state["rng"]["torch"] = state["rng"]["torch"][:10]

    def generator_of_floats(state):
        state["rng"]["torch"] = state["rng"]["torch"].float()

    def numpy_keys_few(state):
        state["rng"]["numpy"][1] = [1, 2, 3]

    def python_generator(state):
        state["rng"]["python"] = [3, [1, 2], None]

    for edit in (
        vast_numpy_position, averages_of_another_shape, averages_missing, averages_no_tensors,
        groups_missing, group_without_weights, rates_of_words, a_weight_missing, a_weight_no_tensor,
        a_weight_of_another_shape, average_missing, generator_cut, generator_of_floats, numpy_keys_few,
        python_generator,
    ):  # fmt: skip
        state = torch.load(source, weights_only=True)
        edit(state)
        torch.save(state, target)
        yield edit.__name__, target
    values: dict[str, list[Any]] = {
        "step": ["five", -1, 1.5, None, HUGE], "evaluation_due": [None, "yes"], "best": [None, {"AP": "x"}, []],
        "ema_updates": [None, -1], "data": [None, 5, "a\0b"], "world_size": [0, -1, "two", HUGE], "rng": [None, {}],
        "optimizer": [None, {}, []], "scaler": [None, {"scale": "x"}], "recipe": [None, {}, {"name": "../x"}],
        "categories": [None, [[1]], [[-1, "a"]]], "schema": [None, "ctnet.state/9"], "model": [None, {}, []],
    }  # fmt: skip
    for key, replacements in values.items():
        for value in replacements:
            state = torch.load(source, weights_only=True)
            if (key, value) == ("recipe", {}):
                continue
            state[key] = value
            torch.save(state, target)
            yield f"{key} = {value!r}", target
        state = torch.load(source, weights_only=True)
        del state[key]
        torch.save(state, target)
        if key != "world_size":
            yield f"without {key}", target


def forged_onnx(source: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield ONNX files with operators of strangers, and with numbers in files elsewhere."""
    import onnx

    def operator(model):
        model.graph.node[0].domain = "stranger.operators"
        model.opset_import.append(onnx.helper.make_opsetid("stranger.operators", 1))

    def context(model):
        model.graph.node[0].domain, model.graph.node[0].op_type = "com.microsoft", "EPContext"
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))

    def external(model):
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../../../../../etc/passwd")

    def external_within_a_node(model):
        tensor = onnx.helper.make_tensor("t", onnx.TensorProto.FLOAT, [1], [0.0])
        tensor.ClearField("float_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="/etc/passwd")
        model.graph.node.append(onnx.helper.make_node("Constant", [], ["unused"], value=tensor))

    for edit in (operator, context, external, external_within_a_node):
        model = onnx.load(source)
        edit(model)
        path = folder / f"{edit.__name__}.onnx"
        path.write_bytes(model.SerializeToString())
        yield edit.__name__, path


def forged_openvino(source: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield OpenVINO files with layers of strangers, and with numbers beyond their `.bin`."""
    text, numbers = source.read_text(), source.with_suffix(".bin").read_bytes()
    for what, pattern, replacement in (
        ("unknown set", r'version="opset1"', 'version="stranger"'),
        ("offset", r'offset="\d+"', 'offset="99999999999"'),
        ("offset that wraps", r'offset="\d+"', 'offset="18446744073709551615"'),
        ("size that wraps", r' size="\d+"', ' size="18446744073709551600"'),
        ("vast shape", r'shape="[\d, ]+"', 'shape="1000000, 1000000, 64"'),
        ("cut numbers", "", ""),
    ):
        path = folder / "forged.xml"
        path.write_text(re.sub(pattern, replacement, text, count=3))
        path.with_suffix(".bin").write_bytes(numbers if pattern else numbers[:100])
        yield what, path
