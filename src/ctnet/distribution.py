"""The distribution that brings ctnet, and whether another one claims the same files.

The package and the command are called `ctnet`. On PyPI that name belongs to another project, so the distribution has a
name of its own, and all commands that start with `pip install` are made here.
"""

from __future__ import annotations

import json
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctnet._version import __version__

if TYPE_CHECKING:
    from importlib.metadata import Distribution

NAME = "ctnet-toolkit"
_PACKAGE = "ctnet"
_OTHERS_FACTS = re.compile(rf"{_PACKAGE}-(?P<version>[^-]+)(-[^-]+)?\.(dist|egg)-info", re.IGNORECASE)
_REMEDY = f"pip uninstall {_PACKAGE} {NAME}, then install {NAME} again"


def install_command(extra: str | None) -> str:
    """Return the command that installs ctnet with an extra."""
    return f'pip install "{NAME}[{extra}]"' if extra else f"pip install {NAME}"


def warning() -> str | None:
    """Return a line about another project's files where ctnet's should be, None where there are none.

    It runs at every start: it lists the folders that modules are imported from and reads no file.
    """
    for folder in dict.fromkeys(sys.path):
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - a path for each name would take most of the time
        except OSError:
            continue
        found = next(filter(None, map(_OTHERS_FACTS.fullmatch, names)), None)
        if found is not None:
            where = f"{_PACKAGE} {found['version']} in {folder or '.'}"
            return f"another distribution, {where}, writes into the same folder as {NAME}: {_REMEDY}"
    if getattr(import_module(_PACKAGE), "__version__", None) != __version__:
        return f"{_folder() / '__init__.py'} is not that of {NAME}: {_REMEDY}"
    return None


def describe() -> dict[str, Any]:
    """Return where the package was imported from, the distribution that brings it, and problems with the two.

    The keys are `folder`, `name`, `version` (None where the package runs from a folder of sources) and `problems`.
    """
    from importlib.metadata import PackageNotFoundError, distribution, packages_distributions

    problems = [] if (line := warning()) is None else [line]
    others = sorted(set(packages_distributions().get(_PACKAGE, ())) - {NAME, _PACKAGE})
    if others:
        problems.append(f"{', '.join(others)} claims files of the package {_PACKAGE}: uninstall it, then {_REMEDY}")
    try:
        ours = distribution(NAME)
    except PackageNotFoundError:
        return {"folder": str(_folder()), "name": NAME, "version": None, "problems": problems}
    home = _home(ours)
    if not _folder().is_relative_to(home):
        problems.append(f"{NAME} is installed in {home}, but {_PACKAGE} was imported from {_folder()}")
    elif ours.version != __version__:
        problems.append(f"{NAME} was installed as {ours.version}, its files are {__version__}: install it again")
    return {"folder": str(_folder()), "name": NAME, "version": ours.version, "problems": problems}


def _folder() -> Path:
    return Path(__file__).resolve().parent


def _home(ours: Distribution) -> Path:
    """Return the folder that the distribution's files lie in: of the sources, when it was installed with `pip -e`."""
    facts = json.loads(ours.read_text("direct_url.json") or "{}")
    if facts.get("dir_info", {}).get("editable"):
        from urllib.parse import urlsplit
        from urllib.request import url2pathname

        return Path(url2pathname(urlsplit(facts["url"]).path)).resolve()
    return Path(str(ours.locate_file(_PACKAGE))).resolve()
