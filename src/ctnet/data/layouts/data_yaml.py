"""The YAML file that describes a data set, shared by the layouts that have one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctnet.config.load import read_yaml
from ctnet.errors import ConfigError, DataError

DATA_YAMLS = ("data.yaml", "data.yml", "dataset.yaml")


def find_data_yaml(path: Path) -> Path | None:
    """Return the YAML file: the path or the one in the folder; None when there is none."""
    if path.is_dir():
        return next((path / name for name in DATA_YAMLS if (path / name).is_file()), None)
    return path if path.suffix.lower() in (".yaml", ".yml") else None


def read_data_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping of a YAML that describes data. Raises DataError."""
    try:
        return read_yaml(path, as_written="names")
    except ConfigError as error:
        raise DataError(error.message, hint=error.hint, **error.facts) from None
