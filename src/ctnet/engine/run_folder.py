"""The folder of a run, new or resumed, and the facts written into it before the first step."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from ctnet._version import __version__
from ctnet.config.load import to_yaml
from ctnet.config.ranges import LONGEST_TEXT
from ctnet.config.schema import Recipe
from ctnet.devices import OpenDevice
from ctnet.devices.machine import processor
from ctnet.devices.survey import package_versions
from ctnet.errors import ConfigError, CtnetError, DataError
from ctnet.files import (
    cache_folder,
    is_file,
    new_numbered_folder,
    read_file,
    remove_leftovers,
    replacing,
    write_file,
    writing,
)
from ctnet.limits import TEXT_BYTES, parse_json
from ctnet.lock import only_writer
from ctnet.types import AnnotationSet

RUNS = Path("runs/train")
LAST = Path("checkpoints/last.pt")
_BEFORE_SAVING = {
    "config.yaml",
    "env.json",
    "index.html",
    "log.jsonl",
    "metrics.csv",
    "samples",
    "tensorboard",
    "profile",
    "nonfinite",
    "checkpoints",
}
_ENVIRONMENT = "ctnet.env/1"


@contextmanager
def new_run_folder(name: str, out: Path | None, *, reuse: bool = False) -> Iterator[Path]:
    """Give a new folder, `out` or the next free `runs/train/NAME-N`, which this process alone writes.

    Raises ConfigError when `out` is being written, or holds a run already, unless it may be used again, or files that
    no run has written. A run that ended before it saved anything is begun anew.
    """
    folder = new_numbered_folder(RUNS, name) if out is None else out
    try:
        with _held(folder):
            if not reuse:
                _require_free(folder)
            if out is not None:
                with suppress(CtnetError, OSError):
                    write_file(_note(), os.fsencode(folder.absolute()))
            yield folder
    except CtnetError:
        with suppress(OSError):  # leave no empty folder after an error
            folder.rmdir()
        raise


def _require_free(out: Path) -> None:
    if (out / LAST).is_file():
        raise ConfigError("the folder already holds a run", folder=out, hint=f"continue it with --resume {out}")
    inside = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    strangers = sorted(inside - _BEFORE_SAVING if _began_a_run(out) else inside)
    if strangers:
        raise ConfigError("--out must be a new or empty folder", got=out, holds=", ".join(strangers[:5]))


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Be the only writer of the folder, freed of what killed processes left."""
    _require_inside(folder)
    with only_writer(folder):
        remove_leftovers(folder)
        yield


def _require_inside(folder: Path) -> None:
    """Raise DataError for links that lead out of a folder that may come from elsewhere, and for pipes and devices.

    What is written, cut or removed in the folder would be done to something else.
    """
    inside = Path(os.path.realpath(folder))
    for path in (*folder.glob("*"), *folder.glob("*/*")):
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(inside):
            raise DataError(
                "a link in the run folder leads out of it", file=path, got=target,
                hint="put what it leads to into the folder; the folder itself may be a link",
            )  # fmt: skip
        if not (is_file(target) or target.is_dir()):
            raise DataError("the run folder holds something that is no file", file=path)


def _began_a_run(folder: Path) -> bool:
    """Return whether a run without checkpoints is in the folder, which may then be reused."""
    began = read_environment(folder).get("schema") == _ENVIRONMENT
    return began and not any(path.is_file() for path in (folder / "checkpoints").glob("[!.]*"))


@contextmanager
def run_to_resume(run: Path | None) -> Iterator[Path]:
    """Give the folder, or the one whose `last.pt` is newest, which this process alone writes.

    A run may be named by its `last.pt`, or by a numbered checkpoint, to which the run then goes back. Raises
    ConfigError when there is nothing to resume, or when another process writes it.
    """
    folder, numbered = _newest_run() if run is None else run, None
    if folder.parent.name == LAST.parent.name and folder.suffix == LAST.suffix:
        numbered = None if folder.name == LAST.name else folder
        folder = folder.parents[1]
    if numbered is not None and not is_file(numbered):
        raise ConfigError("there is no such checkpoint", looked_for=numbered, kept=_numbered(folder))
    if not (folder / LAST).is_file():
        raise ConfigError("the folder holds no run to resume", looked_for=folder / LAST)
    with _held(folder):
        if numbered is not None:
            _go_back(folder, numbered)
        yield folder


def _numbered(folder: Path) -> str | None:
    return ", ".join(path.name for path in sorted((folder / LAST).parent.glob("step_*.pt"))) or None


def _go_back(folder: Path, numbered: Path) -> None:
    """Make a numbered checkpoint the state of the run, and remove those of later steps, which will run again."""
    with replacing(folder / LAST) as temporary, writing(numbered):
        shutil.copyfile(numbered, temporary)
    for later in (folder / LAST).parent.glob("step_*.pt"):
        if later.name > numbered.name:
            later.unlink()


def _note() -> Path:
    """Return the file that names the run that was last given a folder of its own from the present folder."""
    return cache_folder() / "runs" / hashlib.sha256(os.fsencode(Path.cwd())).hexdigest()[:32]


def _newest_run() -> Path:
    states = list(RUNS.glob(f"*/{LAST}"))
    with suppress(OSError):
        states.append(Path(os.fsdecode(_note().read_bytes()[:LONGEST_TEXT])) / LAST)
    states = [path for path in states if is_file(path)]
    if not states:
        raise ConfigError("no run to resume", looked_in=RUNS, hint="--resume RUN names one that was started elsewhere")
    return max(states, key=lambda path: path.stat().st_mtime).parents[1]


def write_run_facts(folder: Path, recipe: Recipe, device: OpenDevice, sets: dict[str, AnnotationSet]) -> None:
    """Write `env.json` and `config.yaml`, the resolved recipe."""
    # env.json first: it marks the folder as a run, so that it can be reused if the run is killed now
    write_file(folder / "env.json", json.dumps(_environment(device, sets), indent=2).encode())
    write_recipe(folder, recipe)


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write `config.yaml`, the resolved recipe."""
    write_file(folder / "config.yaml", to_yaml(recipe).encode())


def _environment(device: OpenDevice, sets: dict[str, AnnotationSet]) -> dict[str, Any]:
    probe = device.plugin.probe()
    return {
        "schema": _ENVIRONMENT,
        "ctnet": __version__,
        "command": shlex.join(sys.argv),
        "folder": str(Path.cwd()),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "device": {
            "name": str(device.torch_device),
            "reason": device.reason,
            "device_names": list(probe.device_names),
            "versions": dict(probe.versions),
            "switches": device.plugin.switches(),
        },
        "packages": package_versions(),
        "data": {split: _facts(annotations) for split, annotations in sets.items()},
    }


def _facts(annotations: AnnotationSet) -> dict[str, Any]:
    return {
        "source": str(annotations.source),
        "annotations_sha256": annotations.digest(),
        "images": len(annotations.images),
        "boxes": annotations.num_boxes,
    }


def require_same_data(folder: Path, sets: dict[str, AnnotationSet], *, accept: bool) -> str | None:
    """Compare the data with those that the run in the folder began with, as `env.json` knows them.

    Raises DataError when they differ, unless that is accepted: then `env.json` is rewritten and the differences come
    back in words. Images are compared by name and size, not by content.
    """
    environment = read_environment(folder)
    data = environment.get("data")
    known = {
        split: facts
        for split, facts in (data.items() if isinstance(data, dict) else ())
        if isinstance(facts, dict) and "annotations_sha256" in facts
    }
    now = {split: _facts(annotations) for split, annotations in sets.items()}
    changed = {
        split: f"{_count(facts)} when the run began, now {_count(now[split])}"
        for split, facts in known.items()
        if split in now and facts["annotations_sha256"] != now[split]["annotations_sha256"]
    } | {split: f"{_count(facts)} when the run began, now none" for split, facts in known.items() if split not in now}
    if not changed:
        return None
    if not accept:
        raise DataError(
            "the data set has changed since the run began",
            run=folder,
            **changed,
            hint="--accept-changed-data continues with the changed data",
        )
    write_file(folder / "env.json", json.dumps({**environment, "data": now}, indent=2).encode())
    return "; ".join(f"{split}: {words}" for split, words in changed.items())


def read_environment(folder: Path) -> dict[str, Any]:
    """Return what the folder's `env.json` says, nothing where there is none that can be read."""
    with suppress(OSError, ValueError):
        environment = parse_json(read_file(folder / "env.json", TEXT_BYTES))
        if isinstance(environment, dict):
            return environment
    return {}


def _count(facts: dict[str, Any]) -> str:
    return f"{facts.get('images')} images with {facts.get('boxes')} boxes"
