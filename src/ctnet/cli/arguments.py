"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ctnet.errors import ConfigError
from ctnet.files import require_writable

Arguments = Annotated[
    list[str] | None,
    typer.Argument(help="recipe name or .yaml file, then dotted.key=value", metavar="[CONFIG] [KEY=VALUE]..."),
]

PrecisionOption = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(help="What to compute in; auto takes what the device runs fast"),
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the network first (a minute, worth it for many pictures)")
]

Config = Annotated[
    str | None,
    typer.Option(metavar="CONFIG", help="Recipe whose pictures and test settings replace those of the weights"),
]
AllowPartial = Annotated[
    bool, typer.Option("--allow-partial", help="Take weights that do not fit as a whole; the rest is random")
]


DEFAULT_RECIPE = "centernet_res18_lateral"
"""what users' own data is trained with unless they say otherwise"""


def writable_folder(folder: Path | None) -> Path | None:
    """Return the folder of an option. Raises StorageError where it could not be written to."""
    if folder is not None:
        require_writable(folder)
    return folder


def writable_file(file: Path | None) -> Path | None:
    """Return the file of an option. Raises StorageError where it could not be written."""
    if file is not None:
        if file.is_dir():
            raise ConfigError("the option names a folder, not a file", got=file)
        require_writable(file.parent)
    return file


def split_arguments(arguments: list[str] | None, default: str = DEFAULT_RECIPE) -> tuple[str, list[str]]:
    """Return the recipe's name (the default if none is given) and the overrides."""
    words = list(arguments or [])
    name = words.pop(0) if words and "=" not in words[0] else default
    return name, words


def split_training_arguments(arguments: list[str] | None, data: str | Path | None) -> tuple[str, list[str]]:
    """Return what `split_arguments` does; without data, the default is the demo."""
    has_data = data is not None or any(word.startswith("data.path=") for word in arguments or [])
    return split_arguments(arguments, DEFAULT_RECIPE if has_data else "demo")


def parse_image_size(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) of `N` or `HxW`. Raises ConfigError for anything else."""
    if text is None:
        return None
    sides = text.lower().split("x")
    # Python converts no number of more than some thousand digits
    if len(sides) > 2 or not all(side.isdecimal() and len(side) < 10 and int(side) for side in sides):
        raise ConfigError("an image size is N or HEIGHTxWIDTH", got=text)
    return int(sides[0]), int(sides[-1])
