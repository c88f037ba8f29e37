"""The `ctnet` command."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ctnet._version import __version__
from ctnet.cli.bench import app as bench_app
from ctnet.cli.bench_align import align
from ctnet.cli.config import app as config_app
from ctnet.cli.console import Commands, Terminal, say
from ctnet.cli.data import app as data_app
from ctnet.cli.doctor import doctor
from ctnet.cli.eval import evaluate_command
from ctnet.cli.export import export_command
from ctnet.cli.predict import predict
from ctnet.cli.runs import runs
from ctnet.cli.train import train
from ctnet.cli.weights import app as weights_app
from ctnet.cli.welcome import next_commands
from ctnet.distribution import warning
from ctnet.errors import CtnetError, DataError, RankCrashed, StorageError
from ctnet.terminal import guarded

app = typer.Typer(
    name="ctnet",
    cls=Commands,
    help="Train, evaluate and use centre-point detectors on any accelerator.\n\n"
    "ctnet train                       a first detector on the built-in demo set\n\n"
    "ctnet train --data PATH           your own data, COCO, Pascal VOC or YOLO\n\n"
    "ctnet predict --weights FILE IMAGE...",
    epilog="Exit codes: 0 done, 1 bug, 2 wrong command or config, 3 data or weights unusable, "
    "4 missing device, package, memory or disk space, 5 training diverged, 6 a process of the run died or hung, "
    "130/143 interrupted after saving.",
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(train)
app.command("eval")(evaluate_command)
app.command()(predict)
app.command("export")(export_command)
app.command()(runs)
app.command()(doctor)
bench_app.command()(align)
app.add_typer(bench_app, name="bench")
app.add_typer(data_app, name="data")
app.add_typer(weights_app, name="weights")
app.add_typer(config_app, name="config")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit"),
    ] = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    if not sys.stdout.isatty():
        print(context.get_help())
        raise typer.Exit(2)
    commands = next_commands(Path.cwd())
    width = max(len(command) for command, _ in commands)
    say(*(f"{command:<{width}}  {purpose}" for command, purpose in commands), "", "ctnet --help lists all commands.")


def main() -> None:
    """Run the command line; every ending has its exit code."""
    # Plug-ins import the packages of devices and report what is wrong with them. Imported by torch, a package without
    # its driver would end every command.
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    with guarded():
        _run(Terminal(stderr=True))


def _run(errors: Terminal) -> None:
    def tell(text: str) -> None:
        errors.print(Text.assemble(("error: ", "bold red"), text))

    if (stranger := warning()) is not None:
        errors.print(f"warning: {stranger}", style="yellow")
    try:
        app()
    except CtnetError as error:
        tell(str(error))
        sys.exit(error.exit_code)
    except SystemExit as end:  # typer raises it for interrupts and for closed pipes
        if isinstance(end.__context__, BrokenPipeError):
            sys.exit(0)
        if end.code == 130:
            errors.print("interrupted")
        raise
    except PermissionError as error:
        tell(f"no rights to use {error.filename or error}")
        sys.exit(DataError.exit_code)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            tell("no space left where the output goes")
            sys.exit(StorageError.exit_code)
        text = f"rank {error.rank}\n{error.text}" if isinstance(error, RankCrashed) else traceback.format_exc()
        print(text, file=sys.stderr)
        errors.print(Text.assemble(("This is a bug in ctnet.", "bold red"), " Please report it with the lines above."))
        sys.exit(1)
