"""ctnet doctor: what this machine can run, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ctnet.cli import options
from ctnet.cli.console import say

_REPORT = """# ctnet bug report

## What I did, what I expected, what happened

(please fill in: the command, the last lines it printed, and what you hoped for)

## Machine

```text
{lines}
```

<details><summary>The same as JSON</summary>

```json
{document}
```

</details>
"""


def doctor(
    as_json: options.AsJson = False,
    bug_report: Annotated[
        Path | None,
        options.OutputOption(metavar="FILE", help="Write a Markdown file to complete and attach to a bug report"),
    ] = None,
) -> None:
    """Show devices, the kernel behind each operator and why, precision, versions, limits and variables.

    Exit codes: 0 done, 4 the report cannot be written.
    """
    from ctnet.devices.survey import survey
    from ctnet.files import write_file

    found = survey()
    lines = _lines(found)
    document = json.dumps(found, indent=2)
    if bug_report is not None:
        write_file(bug_report, _REPORT.format(lines="\n".join(lines), document=document).encode())
    if as_json:
        typer.echo(document)
    elif bug_report is None:
        say(*lines)
    else:
        say(f"{bug_report}: complete the first section and check the facts about your machine")


def _lines(found: dict[str, Any]) -> list[str]:
    cpu, torch = found["processor"], found["torch"]
    problems = [f"warning: {problem}" for problem in found["distribution"]["problems"]]
    with_libraries = [name for name in ("mkl", "onednn", "openmp") if torch[name]]
    build = f"CUDA {torch['cuda']}" if torch["cuda"] else "no CUDA"
    lines = [
        *problems,
        f"ctnet {found['ctnet']}, {_distribution(found['distribution'])}",
        f"Python {found['python']}, {found['platform']}",
        f"CPU {cpu['name']}, {cpu['cores']} cores, {' '.join(cpu['instructions']) or cpu['architecture']}",
        f"torch {torch['version']}, {build}, {', '.join(with_libraries)}, {torch['threads']} threads",
        "",
        "devices",
    ]
    for name, device in found["devices"].items():
        lines += _device_lines(name, device)
    lines += ["", "packages"]
    lines += [_row(name, number or "not installed") for name, number in found["packages"].items()]
    lines += ["", "extras"]
    lines += [
        _row(name, f"missing {', '.join(e['missing'])}: {e['install']}" if e["missing"] else "installed")
        for name, e in found["extras"].items()
    ]
    lines += ["", "limits of loader processes", *_limit_lines(found["limits"])]
    if found["variables"]:
        lines += ["", "environment variables"]
        for name, variable in found["variables"].items():
            changes = f"   ({variable['changes']})" if variable["changes"] else ""
            lines.append(f"  {name}={variable['value']}{changes}")
    return lines


def _distribution(facts: dict[str, Any]) -> str:
    """Return which distribution the package belongs to, and where it was imported from."""
    if facts["version"] is None:
        return f"not installed as {facts['name']}, imported from {facts['folder']}"
    return f"{facts['name']} in {facts['folder']}"


def _device_lines(name: str, device: dict[str, Any]) -> list[str]:
    state = f"{device['count']} found" if device["count"] else "none"
    reason, *more = device["reason"].split("\n")
    lines = [f"  {name:<8}{state}{', ' if reason else ''}{reason}", *(f"          {line}" for line in more)]
    lines += [_row(f"  {name}:{i}", model) for i, model in enumerate(device.get("device_names", []))]
    lines += [_row(f"  {package}", number) for package, number in device.get("versions", {}).items()]
    if device["count"]:
        lines.append(_row("  precision", f"{device['precision']} ({device['precision_reason']})"))
        lines.append(_row("  several processes", device["ddp_backend"]))
        lines += [_row(f"  {switch}", value) for switch, value in device["switches"].items()]
        lines += [_row(f"  {operator}", kernel) for operator, kernel in device["kernels"].items()]
    return lines


def _limit_lines(limits: dict[str, Any]) -> list[str]:
    memory, files = limits["shared_memory"], limits["open_files"]
    return [
        _row("/dev/shm", f"{memory['free'] / 2**20:.0f} of {memory['bytes'] / 2**20:.0f} MiB free" if memory else "-"),
        _row("open files", f"{files['limit']} (ulimit -n goes up to {files['highest']})" if files else "unknown"),
    ]


def _row(name: str, value: str) -> str:
    return f"  {name:<38}{value}"
