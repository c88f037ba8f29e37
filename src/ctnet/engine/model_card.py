"""`MODEL.md` beside the best weights: what they were trained on, how good they are, and how that was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctnet._version import __version__
from ctnet.config import Recipe
from ctnet.engine.run_folder import read_environment
from ctnet.eval.coco import percent
from ctnet.eval.protocol import sentence
from ctnet.files import write_file
from ctnet.terminal import printable
from ctnet.types import Category

MOST_CLASSES = 200


def write_model_card(
    folder: Path, recipe: Recipe, categories: Sequence[Category], protocol: Mapping[str, Any],
    best: Mapping[str, Any], per_class: Mapping[str, Mapping[str, Any]],
) -> None:  # fmt: skip
    """Write `checkpoints/MODEL.md` of a run folder: data, classes, numbers, protocol and command."""
    environment = read_environment(folder)
    lines = [
        f"# {recipe.name}",
        "",
        f"A detector of the family {recipe.model.family} with the backbone {recipe.model.backbone}, trained by ctnet "
        f"{__version__}: `best.safetensors` beside this file.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {_cell(value)} |" for name, value in _facts(recipe, environment, best)),
        "",
        "## Numbers",
        "",
        _numbers(best),
        "",
        f"Protocol: {sentence(dict(protocol))}." if best else "",
        "",
        "## Classes",
        "",
        *_classes(categories, per_class),
        "",
        "## Licence",
        "",
        "State the licence of the weights here. It may depend on those of the images and of the weights that training "
        "began with.",
        "",
        "## Use",
        "",
        "```bash",
        "ctnet predict --weights best.safetensors IMAGE...",
        "ctnet eval --weights best.safetensors --data PATH",
        "ctnet export onnx --weights best.safetensors",
        "```",
        "",
    ]
    write_file(folder / "checkpoints" / "MODEL.md", "\n".join(lines).encode())


def _facts(recipe: Recipe, environment: Mapping[str, Any], best: Mapping[str, Any]) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = []
    data = environment.get("data")
    for split, about in data.items() if isinstance(data, dict) else ():
        if isinstance(about, dict):
            words = f"{about.get('source')}: {about.get('images')} images, {about.get('boxes')} boxes"
            facts.append((f"data, split {split}", words))
    height, width = recipe.data.image_size
    facts += [
        ("trained at", f"{height} x {width} pixels, {recipe.data.color_order}"),
        ("step", best.get("step")),
        ("command", f"`{environment.get('command', '')}`"),
    ]
    return facts


def _cell(value: object) -> str:
    return printable(str(value)).replace("|", "\\|")


def _numbers(best: Mapping[str, Any]) -> str:
    numbers = {name: value for name, value in best.items() if name not in ("step", "epoch")}
    if not numbers:
        return "There was no set to evaluate on."
    rows = "".join(f"| {name} | {percent(value)} |\n" for name, value in numbers.items())
    return f"| number | x100 |\n|---|---|\n{rows}".rstrip()


def _classes(categories: Sequence[Category], per_class: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for category in categories[:MOST_CLASSES]:
        row = per_class.get(category.name)
        number = f": AP {percent(row.get('AP'))}" if row else ""
        lines.append(f"- {printable(category.name)}{number}")
    if len(categories) > MOST_CLASSES:
        lines.append(f"- and {len(categories) - MOST_CLASSES} more")
    return lines
