"""`ctnet runs`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from typer import Argument

from ctnet.cli import options
from ctnet.cli.arguments import writable_file
from ctnet.cli.console import say

Folders = Annotated[
    list[Path] | None, Argument(metavar="[FOLDER]...", help="Run folders, or folders of them (default: runs/train)")
]
Html = Annotated[
    Path | None, options.OutputOption("--html", metavar="FILE", callback=writable_file, help="Write their curves too")
]


def runs(folders: Folders = None, html: Html = None, as_json: options.AsJson = False) -> None:
    """List run folders, the latest first: how far they are and how good.

    Example: ctnet runs --html runs.html
    """
    from ctnet.engine.runs import COLUMNS, find_runs, write_comparison

    found, warnings = find_runs(folders or [])
    for warning in warnings:
        say(f"warning: {warning}", err=True)
    rows = [run.cells() for run in found]
    if html is not None:
        write_comparison(html, found)
    if as_json:
        print(json.dumps({"schema": "ctnet.runs/1", "runs": rows}))
        return
    shown = COLUMNS[:-1]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) if rows else len(name) for name in shown}
    say("  ".join(f"{name:<{widths[name]}}" for name in shown).rstrip())
    say(*("  ".join(f"{row[name]:<{widths[name]}}" for name in shown).rstrip() for row in rows))
    if html is not None:
        say(f"curves  {html}")
