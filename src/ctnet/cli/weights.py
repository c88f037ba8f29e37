"""ctnet weights: show what a checkpoint holds, convert it to the names of other projects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from ctnet.cli import options
from ctnet.cli.console import Terminal, say
from ctnet.errors import ConfigError, WeightsError
from ctnet.terminal import printable

app = typer.Typer(help="Inspect and convert checkpoints of ctnet and other projects.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", help="Checkpoint; the format is detected by content")]
To = Annotated[
    Literal["ctnet", "centernet", "mmdet", "detectron2"],
    options.OutputOption(help="Project whose code will read the file"),
]
Out = Annotated[Path | None, options.OutputOption(metavar="FILE", help="New file (default: the name of FILE, here)")]
AllNames = Annotated[bool, options.OutputOption("--all", help="Name every tensor that does not fit")]
SHOWN = 8  # names of a kind without --all


@app.command(epilog="Example: ctnet weights inspect ctdet_coco_dla_2x.pth")
def inspect(
    file: File,
    all_names: AllNames = False,
    as_json: options.AsJson = False,
) -> None:
    """Show what a checkpoint holds: format, network, classes, tensors, and which of them fit the network.

    Nothing in the file is executed. Exit codes: 0 every tensor fits, 3 unreadable, unknown or incomplete.
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
    to: To,
    out: Out = None,
    config: options.Config = None,
    allow_partial: options.AllowPartial = False,
    verify: options.Verify = True,
) -> None:
    """Write a checkpoint in the names and container of ctnet, CenterNet, mmdet or detectron2.

    The file must fit its network tensor by tensor; --allow-partial initialises missing tensors randomly and drops
    the others. The new file carries the recipe, so converting it back loses nothing.

    Exit codes: 0 done, 2 wrong option, 3 unusable weights, or the project has no such network.
    """
    from dataclasses import replace

    from ctnet.weights.convert import SUFFIXES, convert_weights
    from ctnet.weights.opening import load_network, open_weights

    target = out or Path(f"{file.stem}.{to}{SUFFIXES[to]}" if to != "ctnet" else f"{file.stem}{SUFFIXES[to]}")
    if target.exists():
        raise ConfigError("the file exists already", file=target, hint="--out names another")
    weights = open_weights(file, config, verify=verify)
    network, notes = load_network(weights, file, allow_partial=allow_partial)
    notes += convert_weights(replace(weights, tensors=network.state_dict()), to, target)
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
        images, classes = document["pictures"], document["classes"]
        names = ", ".join(classes[:SHOWN]) + (", ..." if len(classes) > SHOWN else "")
        height, width = images["image_size"]
        resolution = "kept resolution" if document["evaluation"]["keep_res"] else f"{height}x{width}"
        mean, std = (", ".join(f"{v:.3f}" for v in images[key]) for key in ("mean", "std"))
        facts["classes"] = f"{len(classes)}: {names}"
        facts["images"] = f"{images['color_order'].upper()}, {resolution}, mean {mean}, std {std}"
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
    from ctnet.config.families import DEFAULT, settings_of

    defaults = settings_of(model.get("family", DEFAULT)).model().model_dump(mode="json")
    known = {"family", "backbone"}
    changed = [f"{key}={value}" for key, value in model.items() if key not in known and value != defaults.get(key)]
    family = model.get("family", DEFAULT)
    changed = changed if family == DEFAULT else [*changed, f"family={family}"]
    return " ".join([model["backbone"], *changed])


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
    path = document["file"]
    use = {
        "detector": f"ctnet predict --weights {path} IMAGE",
        "backbone": f"ctnet train --data PATH --backbone-weights {path}",
    }
    console.print(f"next: {use[document['kind']]}" if document["fits"] else "the tensors do not all fit the network")
