"""Errors for files that cannot be read, worded alike for every kind of file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctnet.errors import WeightsError
from ctnet.weights.containers.pickle_machine import Foreign


def damaged(path: Path, reason: object) -> WeightsError:
    """Return the error for content that does not follow its own format; only the first line of `reason` is shown."""
    return WeightsError(
        "the file of weights is cut short or damaged",
        file=path,
        got=_line(str(reason) or type(reason).__name__),
        hint="fetch or copy it again",
    )


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Raise WeightsError, naming the file, where its content does not follow its format or asks for code."""
    try:
        yield
    except WeightsError:
        raise
    except Foreign as error:
        raise foreign_code(path, error.name) from None
    except Exception as error:  # broken files raise almost anything in zipfile and torch
        raise damaged(path, error) from None


def foreign_code(path: Path, name: str) -> WeightsError:
    """Return the error for a pickle that refers to code; `name` is its name."""
    return WeightsError(
        "the file asks for code that weights do not need; nothing in it was executed",
        file=path,
        got=_line(name),
        hint="if it holds a whole model object, save its state_dict() where it was made; else do not trust it",
    )


def no_weights(path: Path, got: str, hint: str | None = None) -> WeightsError:
    """Return the error for a file that is something else."""
    return WeightsError("this is no file of weights", file=path, got=got, hint=hint)


def _line(text: str) -> str:
    """Return the first line, of a length that can be read."""
    return next(iter(text.splitlines()), "")[:300]
