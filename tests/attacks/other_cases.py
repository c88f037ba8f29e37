"""Recipes, run folders, baselines, and things that are no ordinary file where one is expected."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from attacks import spoiling
from attacks.running import Case, Place
from attacks.spoiling import predict_with
from fuzz.readers import BASELINE, COCO, VOC, image


def cases() -> Iterator[Case]:
    yield from _recipes()
    yield from _runs()
    yield from _baselines()
    yield from _odd_files()


def _recipe_file(content: str, place: Place) -> list[object]:
    return ["config", "show", place.put("recipe.yaml", content)]


def _recipes() -> Iterator[Case]:
    from ctnet.config import Recipe

    for number, (name, tree) in enumerate(spoiling.spoiled(Recipe().model_dump(mode="json"), per_place=2)):
        command = ("validate", "show")[number % 2]
        text = yaml.safe_dump(tree) if "9999" not in name else json.dumps(tree)
        yield Case("recipes", f"{command}: {name}", lambda p, c=command, t=text: ["config", c, p.put("recipe.yaml", t)])
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
    )
    for number, text in enumerate(
        (
            "!!python/object/apply:os.system ['touch $CTNET_HOSTILE']",
            "name: !!python/object/apply:os.system ['touch $CTNET_HOSTILE']",
            "name: !!python/name:os.system",
            "extends: recipe.yaml",
            "extends: ../../../../../../etc/passwd",
            "extends: /dev/zero",
            "extends: .",
            "extends: [1]",
            "extends: " + "x" * 5000,
            'extends: "\\0"',
            "extends: 5",
            "name: &a [*a]",
            "schedule: &a {epochs: *a}",
            bomb,
            bomb + "name: *j",
            "a: &a {x: 1}\nb: {<<: *a}",
            "name: !!binary AA==",
            "name: !!timestamp x",
            "name: 2001-13-41",
            "name: !!float ''",
            "name: !!int ''",
            "name: !!bool x",
            "name: !!set {a}",
            "schedule: {epochs: " + "9" * 5000 + "}",
            "1: 2",
            "null: 2",
            "? [a]\n: b",
            "\x1b: 1",
            '"\\x1b[2J": 1',
            'name: "\\x1b[2J"',
            'data: {path: "\\x1b]0;x\\x07"}',
            "name: \ud800",
            "%YAML 9.9\n---\nname: x",
            "---\na\n---\nb",
            "name: 'x",
            "\t",
            "optimizer.lr: {a: b}",
            "optimizer.lr.x: 1",
            ".: 1",
            "..: 1",
        )
    ):
        yield Case("recipes", f"text {number}: {ascii(text)[:40]}", partial(_recipe_file, text))
        if "\0" not in text and "\ud800" not in text and number % 2:
            yield Case(
                "recipes", f"override {number}", lambda p, t=text: ["config", "show", f"name={t.partition(': ')[2]}"]
            )
    for depth in spoiling.DEPTHS:
        for opening, closing in (("[", "]"), ("{a: ", "}"), ("- ", "")):
            yield Case(
                "depth", f"recipe {opening} {depth}", partial(_recipe_file, spoiling.nested(opening, closing, depth))
            )
            if depth < 10**5:
                text = spoiling.nested(opening, closing, depth)
                yield Case("depth", f"override {opening} {depth}", lambda p, t=text: ["config", "show", f"name={t}"])

    def trained(text: str, place: Place) -> list[object]:
        file = place.put(
            "recipe.yaml", json.dumps({"extends": "centernet_mobilenetv2", "name": spoiling.traversal(text, place)})
        )
        return [
            "train",
            file,
            "--data",
            place.material / "set",
            "--max-steps",
            "1",
            "--image-size",
            "64",
            "--batch-size",
            "2",
            "data.workers=0",
        ]

    for text in (*spoiling.TRAVERSALS, *spoiling.ESCAPES):
        family = "paths" if text in spoiling.TRAVERSALS else "terminal"
        yield Case(family, f"recipe name, train: {ascii(text)[:30]}", partial(trained, text))


def _runs() -> Iterator[Case]:
    def resumed(change: Callable[[Path], None], place: Place) -> list[object]:
        run = place.copy("run")
        change(run)
        return ["train", "--resume", run, "--data", place.material / "set", "--max-steps", "3"]

    def state(change: Callable[[dict[str, Any]], dict[str, Any]], run: Path) -> None:
        import torch

        content = torch.load(run / "checkpoints/last.pt", weights_only=True)
        torch.save(change(content), run / "checkpoints/last.pt")

    def with_value(key: str, value: Any, content: dict[str, Any]) -> dict[str, Any]:
        if value == "absent":
            del content[key]
            return content
        return {**content, key: value}

    keys = (
        "schema",
        "recipe",
        "categories",
        "data",
        "world_size",
        "step",
        "evaluation_due",
        "best",
        "model",
        "ema",
        "ema_updates",
        "optimizer",
        "scaler",
        "rng",
    )
    for number, key in enumerate(keys):
        for value in (
            "absent",
            None,
            "text",
            -1,
            [1, 2],
            {},
            float("nan"),
            *((2**62, "\x1b[2J", 0) if number % 2 else ({"a": {"b": 1}}, 1e30, True)),
        ):
            change = partial(state, partial(with_value, key, value))
            yield Case("runs", f"last.pt {key}={ascii(value)[:20]}", partial(resumed, change))

    def inner(path: str, value: Any, content: dict[str, Any]) -> dict[str, Any]:
        tree, *between = content, *path.split(".")
        for part in between[:-1]:
            tree = tree[int(part) if part.isdigit() and not isinstance(tree, dict) else part]
        tree[between[-1]] = value
        return content

    for path in (
        "rng.torch",
        "rng.numpy",
        "rng.python",
        "rng.device",
        "recipe.name",
        "recipe.train",
        "recipe.data",
        "optimizer.state",
        "optimizer.param_groups",
        "best.AP",
    ):
        for value in (None, [], "x", -5, {"a": 1}, "../../../../outside/x"):
            yield Case(
                "runs",
                f"last.pt {path}={ascii(value)[:20]}",
                partial(resumed, partial(state, partial(inner, path, value))),
            )
    texts = (
        "",
        "\0",
        "x",
        "epoch,step\n",
        "epoch,step\nx,y\n",
        "step\n1\n",
        "epoch,step\n1,2,3,4\n1\n",
        'epoch,step\n"',
        "[1]",
        "{}",
        "null",
        '{"schema": 5}',
        "\x1b[2J",
        "{" * 5000,
        "[" * 100_000,
        "epoch,step\n1,nan\n",
        "epoch,step\n1,1e9\n" * 3,
        "é\ud800",
    )
    for name in ("metrics.csv", "env.json", "summary.json", "log.jsonl", "config.yaml"):
        for text in texts:

            def put(run: Path, name: str = name, text: str = text) -> None:
                (run / name).write_bytes(text.encode("utf-8", "surrogatepass"))

            yield Case("runs", f"{name}: {ascii(text)[:20]}", partial(resumed, put))
        for kind in spoiling.ODD:
            yield Case(
                "odd files",
                f"run's {name}: {kind}",
                partial(resumed, lambda run, n=name, k=kind: spoiling.make_odd(run / n, k) and None),
            )


def _baselines() -> Iterator[Case]:
    def write(content: Any, place: Place) -> list[object]:
        file = place.put("before.json", content if isinstance(content, str) else json.dumps(content))
        return ["bench", "data", "--data", place.material / "set", "--baseline", file, "--workers", "0", "--json"]

    for name, content in spoiling.spoiled({**BASELINE, "kind": "data"}, per_place=1):
        yield Case("baselines", name, partial(write, content))
    for depth in spoiling.DEPTHS:
        yield Case("depth", f"baseline {depth}", partial(write, spoiling.nested("[", "]", depth)))


def _odd_files() -> Iterator[Case]:
    def weights(kind: str, suffix: str, place: Place) -> list[object]:
        return predict_with(place, spoiling.make_odd(place.files / f"w{suffix}", kind))

    def odd_image(kind: str, place: Place) -> list[object]:
        return [
            "predict",
            spoiling.make_odd(place.files / "p.png", kind),
            "--weights",
            place.material / "best.safetensors",
        ]

    def data(name: str, kind: str, place: Place) -> list[object]:
        for path in ("images/a.png", "JPEGImages/a.png", "a.png", "b.png"):
            place.put(path, image(".png"))
        place.put("labels/a.txt", "0 .5 .5 .2 .2\n")
        place.put("list.txt", "images/a.png\n")
        place.put("Annotations/a.xml", VOC)
        place.put("ImageSets/Main/train.txt", "a\n")
        place.put("coco.json", json.dumps(COCO))
        place.put("data.yaml", "train: list.txt\nnames: [cat]\n")
        spoiling.make_odd(place.files / name, kind)
        source = place.files / name if name in ("coco.json", "data.yaml") else place.files / "data.yaml"
        if name.startswith(("Ann", "Image", "JPEG")):
            (place.files / "data.yaml").unlink()
            source = place.files
        return ["data", "check", source]

    def recipe(kind: str, place: Place) -> list[object]:
        return ["config", "show", spoiling.make_odd(place.files / "r.yaml", kind)]

    def baseline(kind: str, place: Place) -> list[object]:
        return [
            "bench",
            "data",
            "--data",
            place.material / "set",
            "--baseline",
            spoiling.make_odd(place.files / "b.json", kind),
            "--workers",
            "0",
        ]

    def state(kind: str, place: Place) -> list[object]:
        run = place.copy("run")
        spoiling.make_odd(run / "checkpoints/last.pt", kind)
        return ["train", "--resume", run]

    def backbone(kind: str, place: Place) -> list[object]:
        file = spoiling.make_odd(place.files / "b.pth", kind)
        return [
            "train",
            "centernet_mobilenetv2",
            "--data",
            place.material / "set",
            "--backbone-weights",
            file,
            "--max-steps",
            "1",
            "--image-size",
            "64",
        ]

    for kind in spoiling.ODD:
        for suffix in (".safetensors", ".onnx", ".pt2", ".xml", ".pte", ".om"):
            yield Case("odd files", f"weights{suffix}: {kind}", partial(weights, kind, suffix))
        for name in (
            "images/a.png",
            "labels/a.txt",
            "list.txt",
            "data.yaml",
            "coco.json",
            "Annotations/a.xml",
            "ImageSets/Main/train.txt",
            "JPEGImages/a.png",
        ):
            yield Case("odd files", f"{name}: {kind}", partial(data, name, kind))
        for name, write in (
            ("image", odd_image),
            ("recipe", recipe),
            ("baseline", baseline),
            ("last.pt", state),
            ("backbone", backbone),
        ):
            yield Case("odd files", f"{name}: {kind}", partial(write, kind))
