"""What commands print with. A str is one line without markup, whatever it holds; styles are given beside it.

Commands take rich's consoles and bars from nowhere else, so that no name out of a file is read as markup or steers the
terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text
from typer.core import TyperGroup

from ctnet.terminal import guarded, printable

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


def say(*lines: object, err: bool = False) -> None:
    """Print lines on standard output, or on standard error: each argument is one, even if a line break is in it."""
    for line in lines:
        print(printable(line), file=sys.stderr if err else sys.stdout)


class Terminal(Console):
    """A console on which nothing but its own styles has an effect. Text of several lines is given as `Text`."""

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = True) -> None:
        super().__init__(stderr=stderr, soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:  # type: ignore[override]
        """Return a str as text of one line: what tables and `print` make of each."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Yield what is to be written; the console's own control codes stay, those in text are written out."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text, keep="\n"))


@contextmanager
def progress(*columns: ProgressColumn) -> Iterator[Progress]:
    """Give bars on standard error, which go away at the end and show only on a terminal."""
    from rich.progress import Progress

    console = Terminal(stderr=True)
    bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    # while bars move, rich prints in the streams' place, and it would obey the sequences in what passes
    with bars, guarded():
        yield bars


class Commands(TyperGroup):
    """The command line, whose complaints quote the words that were typed."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Return the context of a command line."""
        with _written_out():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with _written_out():
            return super().invoke(ctx)


OTHER_NAMES = {
    "--threshold": "--score", "--conf": "--score", "--confidence": "--score", "--batch": "--batch-size",
    "--imgsz": "--image-size", "--img-size": "--image-size", "--size": "--image-size", "--model": "--weights",
    "--checkpoint": "--weights", "--gpu": "--device", "--gpus": "--nproc", "--output": "--out", "--project": "--out",
    "--dataset": "--data", "--learning-rate": "--lr", "--num-epochs": "--epochs", "--iters": "--max-steps",
    "--fp16": "--precision", "--half": "--precision", "--amp": "--precision", "--pictures": "--images",
}  # fmt: skip
"""options by the names that other tools have for them"""


@contextmanager
def _written_out() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message"):  # click's, of which typer has a copy under a private name
            _suggest(error)
            error.message = printable(error.message, keep="\n")  # type: ignore[attr-defined]
        raise


def _suggest(error: Any) -> None:
    """Name the option that was probably meant in a complaint about the command line."""
    context, name = getattr(error, "ctx", None), getattr(error, "option_name", None)
    known = {option for one in context.command.params for option in one.opts} if context else set()
    meant = OTHER_NAMES.get(name or "")
    if meant in known and not getattr(error, "possibilities", None):
        error.possibilities = [meant]
    missing = getattr(getattr(error, "param", None), "name", None) == "weights" and error.message == ""
    extra = "--weights" in known and "extra argument" in error.message
    if context is not None and (missing or (extra and not context.params.get("weights"))):
        given = next((word for word in sys.argv[2:] if not word.startswith("-") and Path(word).suffix), "FILE")
        error.message = f"Name the detector: --weights {given}"
