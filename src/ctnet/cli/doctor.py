"""ctnet doctor: what this machine can run, and why."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document")] = False) -> None:
    """Show devices, the kernel behind each operator and why, precision, versions and variables.

    Exit codes: 0 done.
    """
    from ctnet.devices.survey import survey

    found = survey()
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(_lines(found)))


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [f"ctnet {found['ctnet']}, Python {found['python']}, {found['platform']}", "", "devices"]
    for name, device in found["devices"].items():
        state = f"{device['count']} found" if device["count"] else "none"
        lines.append(f"  {name:<8}{state}{', ' if device['reason'] else ''}{device['reason']}")
        if device["count"]:
            lines.append(f"    {'precision':<28}{device['precision']} ({device['precision_reason']})")
            lines += [f"    {operator:<28}{kernel}" for operator, kernel in device["kernels"].items()]
    lines += ["", "packages"]
    lines += [f"  {name:<28}{number or 'not installed'}" for name, number in found["packages"].items()]
    if found["variables"]:
        lines += ["", "environment variables"]
        lines += [f"  {name}={value}" for name, value in found["variables"].items()]
    return lines
