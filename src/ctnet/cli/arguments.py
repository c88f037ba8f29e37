"""Words of the command line become settings: recipe names, overrides, sizes, folders to write to."""

from __future__ import annotations

from pathlib import Path

from ctnet.errors import ConfigError
from ctnet.files import require_writable


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


def split_arguments(arguments: list[str] | None, default: str | None = None) -> tuple[str, list[str]]:
    """Return the recipe's name, without one `default` or else `DEFAULT_RECIPE`, and the overrides."""
    from ctnet.config import DEFAULT_RECIPE

    words = list(arguments or [])
    name = words.pop(0) if words and "=" not in words[0] else default
    return DEFAULT_RECIPE if name is None else name, words


def split_training_arguments(arguments: list[str] | None, data: str | Path | None) -> tuple[str, list[str]]:
    """Return what `split_arguments` does; without data, the default is the demo."""
    from ctnet.config import DEMO_RECIPE

    has_data = data is not None or any(word.startswith("data.path=") for word in arguments or [])
    return split_arguments(arguments, None if has_data else DEMO_RECIPE)


def parse_image_size(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) of `N` or `HxW`. Raises ConfigError for anything else."""
    if text is None:
        return None
    sides = text.lower().split("x")
    # Python converts no number of more than some thousand digits
    if len(sides) > 2 or not all(side.isdecimal() and len(side) < 10 and int(side) for side in sides):
        raise ConfigError("an image size is N or HEIGHTxWIDTH", got=text)
    return int(sides[0]), int(sides[-1])
