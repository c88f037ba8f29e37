"""ctnet weights: what a checkpoint holds, and checkpoints in other projects' names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from ctnet.cli.arguments import AllowPartial, Config
from ctnet.cli.console import Terminal, say
from ctnet.errors import ConfigError, WeightsError
from ctnet.terminal import printable

app = typer.Typer(help="Inspect and convert checkpoints of ctnet and other projects.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", help="Checkpoint, told apart by its content")]
SHOWN = 8  # names of a kind without --all


@app.command(epilog="Example: ctnet weights inspect ctdet_coco_dla_2x.pth")
def inspect(
    file: File,
    all_names: Annotated[bool, typer.Option("--all", help="Name every tensor that does not fit")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document")] = False,
) -> None:
    """Say what a checkpoint holds: format, network, classes, tensors, and what fits what.

    Nothing in the file is executed. Exit codes: 0 all of it finds its place, 3 unreadable, unknown or not whole.
    """
    from ctnet.weights.inspect import inspect_file

    document = inspect_file(file)
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        _print_document(document, shown=10**9 if all_names else SHOWN)
    if not document["fits"]:
        raise typer.Exit(WeightsError.exit_code)


@app.command(epilog="Example: ctnet weights convert ctdet_coco_dla_2x.pth --to ctnet")
def convert(
    file: File,
    to: Annotated[Literal["ctnet", "centernet", "mmdet"], typer.Option(help="Whose code is to read it")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="New file (default: FILE's name here)")] = None,
    config: Config = None,
    allow_partial: AllowPartial = False,
) -> None:
    """Write a checkpoint in the names and container of ctnet, CenterNet or mmdet.

    The file must fit its network tensor by tensor; with --allow-partial what is missing is random and what is left
    over is dropped. The new file carries the recipe, so the way back loses nothing.

    Exit codes: 0 done, 2 wrong flag, 3 unusable weights or no such network there.
    """
    from dataclasses import replace

    from ctnet.weights.convert import SUFFIXES
    from ctnet.weights.convert import convert as write
    from ctnet.weights.opening import filled_network, open_weights

    target = out or Path(f"{file.stem}.{to}{SUFFIXES[to]}" if to != "ctnet" else f"{file.stem}{SUFFIXES[to]}")
    if target.exists():
        raise ConfigError("the file exists already", file=target, hint="--out names another")
    weights = open_weights(file, config)
    network, notes = filled_network(weights, file, allow_partial=allow_partial)
    notes += write(replace(weights, tensors=network.state_dict()), to, target)
    for note in notes:
        say(f"note: {note}", err=True)
    say(target)


def _print_document(document: Mapping[str, Any], shown: int) -> None:
    console = Terminal()
    part = f", its {document['part']}" if document["part"] else ""
    facts = {
        "file": f"{document['file']}, {document['bytes'] / 1e6:.1f} MB",
        "format": f"{document['title']} ({document['container']}{part})",
        "network": _network(document["model"]),
        "tensors": f"{document['tensors']}, {document['parameters'] / 1e6:.2f} M numbers, "
        + ", ".join(f"{count} {name}" for name, count in document["types"].items()),
    }
    if document["kind"] == "detector":
        pictures, classes = document["pictures"], document["classes"]
        names = ", ".join(classes[:SHOWN]) + (", ..." if len(classes) > SHOWN else "")
        height, width = pictures["image_size"]
        resolution = "kept resolution" if document["evaluation"]["keep_res"] else f"{height}x{width}"
        mean, std = (", ".join(f"{v:.3f}" for v in pictures[key]) for key in ("mean", "std"))
        facts["classes"] = f"{len(classes)}: {names}"
        facts["pictures"] = f"{pictures['color_order'].upper()}, {resolution}, mean {mean}, std {std}"
    for name, fact in facts.items():
        console.print(Text.assemble((f"{name:<9}", "bold"), f" {printable(fact)}"))
    table = Table("part", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("tensors", justify="right")
    table.add_column("numbers", justify="right")
    for group in document["groups"]:
        table.add_row(group["prefix"], str(group["tensors"]), f"{group['parameters']:,}")
    console.print(table)
    _print_fit(console, document, shown)


def _network(model: Mapping[str, Any]) -> str:
    """Return the settings of a recipe's `model` section that say which network it is."""
    from ctnet.config import Model

    defaults = Model().model_dump(mode="json")
    told = [f"{key}={value}" for key, value in model.items() if key != "backbone" and value != defaults[key]]
    return " ".join([model["backbone"], *told])


def _print_fit(console: Terminal, document: Mapping[str, Any], shown: int) -> None:
    fit = document["fit"]
    rows = [(f"left out ({reason})", names) for reason, names in fit["left_out"].items()]
    rows += [(kind.replace("_", " "), fit[kind]) for kind in ("other_shape", "missing", "unexpected")]
    console.print(f"{fit['loaded']} tensors fit")
    for kind, names in rows:
        if names:
            rest = ", ..." if len(names) > shown else ""
            console.print(f"{len(names)} {kind}: {', '.join(names[:shown])}{rest}")
    for note in document["notes"]:
        console.print(f"note: {note}")
    use = {"detector": "ctnet predict --weights FILE PICTURE", "backbone": "ctnet train CONFIG --backbone-weights FILE"}
    console.print(f"use it: {use[document['kind']]}" if document["fits"] else "it does not fit as it is")
