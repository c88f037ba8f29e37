"""Exported files: other words about themselves, other programs, other places for their numbers."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from attacks import spoiling
from attacks.running import Case, Place
from attacks.spoiling import predict_with


def cases() -> Iterator[Case]:
    def onnx(about: Any, place: Place) -> list[object]:
        import onnx as library

        model = library.load(place.material / "a.onnx")
        for entry in model.metadata_props:
            if entry.key == "ctnet":
                entry.value = about if isinstance(about, str) else json.dumps(about)
        return predict_with(place, place.put("a.onnx", model.SerializeToString()))

    def exported(place: Place) -> dict[str, Any]:
        import onnx as library

        model = library.load(place.material / "a.onnx")
        return json.loads(next(entry.value for entry in model.metadata_props if entry.key == "ctnet"))

    example = {
        "schema": 1,
        "recipe": {
            "name": "x",
            "model": {"backbone": 1},
            "data": {"image_size": [1, 1], "mean": 1, "std": 1},
            "evaluation": {"top_k": 1, "scales": 1},
        },
        "categories": [[1, "a"]],
        "output": 1,
        "batch": 1,
        "size": [1, 1],
        "precision": 1,
        "info": {},
        "pixels": 1,
    }
    for number, (name, _) in enumerate(spoiling.spoiled(example, per_place=4)):

        def write(place: Place, number: int = number) -> list[object]:
            about = exported(place)
            changed = dict(_changes(example, about))
            return onnx(list(changed.values())[number % len(changed)], place)

        yield Case("exported", f"onnx: {name}", write)
    for text in ("", "null", "5", "[]", "{", "[" * 100_000, '{"schema": "ctnet.export/1"}'):
        yield Case("exported", f"onnx: {text[:30]}", partial(onnx, text))
    for text in (*spoiling.TRAVERSALS[:5], *spoiling.ESCAPES):
        for key in ("name", "class"):

            def named(place: Place, text: str = text, key: str = key) -> list[object]:
                about = exported(place)
                if key == "name":
                    about["recipe"]["name"] = spoiling.traversal(text, place)
                else:
                    about["categories"][0][1] = text
                return onnx(about, place)

            yield Case("paths" if text in spoiling.TRAVERSALS else "terminal", f"onnx {key}: {ascii(text)[:30]}", named)

    def program(find: str, put: str, place: Place) -> list[object]:
        import zipfile

        path = place.files / "a.pt2"
        with zipfile.ZipFile(place.material / "a.pt2") as old, zipfile.ZipFile(path, "w") as new:
            for entry in old.infolist():
                body = old.read(entry)
                if entry.filename.endswith("models/model.json"):
                    body = _evil_program(json.loads(body), find, put)
                elif entry.filename.endswith(find):
                    body = put.encode()
                new.writestr(entry.filename, body)
        return predict_with(place, path)

    code = "__import__('os').system('touch $CTNET_HOSTILE')"
    for find in (
        "expr_str",
        "guards_code",
        "range",
        "model.json",
        "_config.json",
        "sample_inputs/model.pt",
        "extra/ctnet",
        "archive_format",
        "archive_version",
        "byteorder",
        "version",
    ):
        for put in (code, f"Symbol('x') + {code}", "{}", "9" * 10_000, "(" * 10_000, "9**9**9**9", "\x1b[2J"):
            yield Case("exported", f"pt2 {find}: {put[:25]}", partial(program, find, put))

    def graph(change: Callable[[Any], None], place: Place) -> list[object]:
        import onnx as library

        model = library.load(place.material / "a.onnx")
        change(model)
        return predict_with(place, place.put("a.onnx", model.SerializeToString()))

    def external(location: str, model: Any) -> None:
        tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
        tensor.ClearField("raw_data")
        tensor.data_location = 1
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", location

    for location in ("/etc/passwd", "../../../../outside/x", "/dev/zero", "nothing", "\x1b[2J", "a" * 5000):
        yield Case("exported", f"onnx, numbers in {location[:20]!r}", partial(graph, partial(external, location)))
    shapes = {
        "opset": lambda m: m.opset_import[0].__setattr__("version", 999),
        "no outputs": lambda m: m.graph.ClearField("output"),
        "no inputs": lambda m: m.graph.ClearField("input"),
        "no nodes": lambda m: m.graph.ClearField("node"),
        "another operator": lambda m: m.graph.node[0].__setattr__("op_type", "Evil\x1b[2J"),
        "another domain": lambda m: m.graph.node[0].__setattr__("domain", "evil"),
        "loop": lambda m: m.graph.node[0].input.__setitem__(0, m.graph.node[-1].output[0]),
        "another name": lambda m: m.graph.input[0].__setattr__("name", "x"),
        "huge dims": lambda m: m.graph.initializer[0].dims.__setitem__(0, 2**40),
    }
    for name, change in shapes.items():
        yield Case("exported", f"onnx {name}", partial(graph, change))

    def openvino(old: str, new: str, place: Place) -> list[object]:
        text = (place.material / "a.xml").read_text()
        place.copy("a.bin")
        return predict_with(place, place.put("a.xml", text.replace(old, new)))

    for old, new in (
        ("<net", "<!DOCTYPE a [<!ENTITY b 'c'>]><net"),
        ('version="opset1"', 'version="evil"'),
        ('offset="', 'offset="9'),
        ('size="', 'size="9'),
        ("ctnet", "x"),
        ('type="', 'type="E'),
        ("</net>", ""),
        ('shape="', 'shape="999999999,'),
        ('element_type="f32"', 'element_type="\x1b"'),
        ("<layers>", "<a>" * 10_000),
    ):
        yield Case("exported", f"openvino {old} {new[:12]!r}", partial(openvino, old, new))


def _changes(example: Any, about: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the real words about a file, spoiled in the places that the example names."""
    merged = {**about, "recipe": {**about["recipe"], "name": "x"}}
    keep = {key: merged[key] for key in example if key != "recipe"}
    for name, tree in spoiling.spoiled(keep, per_place=4):
        yield name, {"recipe": merged["recipe"], **tree}
    for name, tree in spoiling.spoiled(merged["recipe"], per_place=1):
        yield f"recipe.{name}", {**merged, "recipe": tree}


def _evil_program(tree: Any, find: str, put: str) -> bytes:
    """Return a program in which each value of the key is replaced; one that has none gets a symbol with it."""
    if find == "model.json":
        return put.encode()

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            if key == find:
                node[key] = [put] if isinstance(node[key], list) else put
            else:
                walk(node[key])

    walk(tree)
    if find == "expr_str" and isinstance(tree.get("range_constraints"), dict):
        tree["graph_module"]["graph"].setdefault("sym_int_values", {})["s99"] = {
            "as_expr": {"expr_str": put, "hint": {"as_int": 1}}
        }
    if find == "guards_code":
        tree["guards_code"] = [put]
    return json.dumps(tree).encode()
