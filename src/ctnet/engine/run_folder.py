"""The folder of a run: a fresh one, or one to go on with; what ran and where, written before the first step."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from ctnet._version import __version__
from ctnet.config.load import to_yaml
from ctnet.config.schema import Recipe
from ctnet.devices import OpenDevice
from ctnet.devices.machine import processor
from ctnet.devices.survey import package_versions
from ctnet.errors import ConfigError
from ctnet.files import new_numbered_folder, write_file
from ctnet.types import AnnotationSet

RUNS = Path("runs/train")
LAST = Path("checkpoints/last.pt")
_BEFORE_SAVING = {
    "config.yaml",
    "env.json",
    "log.jsonl",
    "metrics.csv",
    "samples",
    "tensorboard",
    "profile",
    "nonfinite",
    "checkpoints",
}
_ENVIRONMENT = "ctnet.env/1"


def new_run_folder(name: str, out: Path | None, *, reuse: bool = False) -> Path:
    """Return a new folder: `out`, or the next free `runs/train/NAME-N`.

    Raises ConfigError when `out` holds a run already, unless it may be used again, or files that no run has written. A
    run that ended before it saved anything is begun anew.
    """
    if out is None:
        return new_numbered_folder(RUNS, name)
    if not reuse and (out / LAST).is_file():
        raise ConfigError("the folder already holds a run", folder=out, hint=f"continue it with --resume {out}")
    inside = {path.name for path in out.iterdir() if not path.name.startswith(".")} if out.is_dir() else set()
    strangers = sorted(inside - _BEFORE_SAVING if _began_a_run(out) else inside)
    if not reuse and strangers:
        raise ConfigError("--out must be a new or empty folder", got=out, holds=", ".join(strangers[:5]))
    return out


def _began_a_run(folder: Path) -> bool:
    """Say whether a run began there that has saved nothing: all but its checkpoints can be written again."""
    try:
        began = json.loads((folder / "env.json").read_text(encoding="utf-8"))["schema"] == _ENVIRONMENT
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return began and not any(path.is_file() for path in (folder / "checkpoints").glob("[!.]*"))


def run_to_resume(run: Path | None) -> Path:
    """Return the folder, or the one whose `last.pt` is newest. Raises ConfigError when there is nothing to resume."""
    if run is None:
        return _newest_run()
    if not (run / LAST).is_file():
        raise ConfigError("the folder holds no run to resume", looked_for=run / LAST)
    return run


def _newest_run() -> Path:
    states = list(RUNS.glob(f"*/{LAST}"))
    if not states:
        raise ConfigError("no run to resume", looked_in=RUNS)
    return max(states, key=lambda path: path.stat().st_mtime).parents[1]


def write_run_facts(folder: Path, recipe: Recipe, device: OpenDevice, sets: dict[str, AnnotationSet]) -> None:
    """Write `config.yaml`, the resolved recipe, and `env.json`."""
    write_file(folder / "config.yaml", to_yaml(recipe).encode())
    write_file(folder / "env.json", json.dumps(_environment(device, sets), indent=2).encode())


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
            "cards": list(probe.cards),
            "versions": dict(probe.versions),
            "switches": device.plugin.switches(),
        },
        "packages": package_versions(),
        "data": {
            split: {
                "source": str(annotations.source),
                "sha256": _digest(annotations.source),
                "images": len(annotations.images),
                "boxes": annotations.num_boxes,
            }
            for split, annotations in sets.items()
        },
    }


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
