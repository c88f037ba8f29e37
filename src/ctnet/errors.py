"""Everything a user can get wrong, as one tree; each class carries the exit code of the command line.

CtnetError
├── ConfigError          2   a wrong option, key or value
├── DataError            3   annotations or images that cannot be used
├── WeightsError         3   a file of weights that does not fit
├── BenchError           3   a speed below its baseline, or one that could not be measured or compared
├── ToolFailed           3   a vendor's tool refused what it was given
├── DeviceUnavailable    4   the device asked for is not here
├── MissingExtra         4   an optional package is not installed
├── StorageError         4   the disk refused a write
├── LoaderDied           4   a process that reads images was killed
├── Diverged             5   training produced a number that is not finite
├── LostRanks            6   other processes of the run are gone
├── SilentRanks          6   other processes of the run have been silent for too long
├── RankFailed           6   a process of the run died; or the error that it reported, with its code
├── ReportedByOtherRank      an error that another rank reports, with its code
└── Interrupted    130/143   Ctrl-C or SIGTERM, after saving
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ctnet.terminal import printable


class CtnetError(Exception):
    """A mistake or a condition outside the program, explained to the person who can fix it.

    `facts` are printed one a line below the message (`file`, `expected`, `got`, ...), the hint last. Whatever a name or
    a value holds, it stays on its line.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.facts = {name: str(value) for name, value in facts.items() if value is not None}

    def __str__(self) -> str:
        rows = [*self.facts.items(), *([("hint", self.hint)] if self.hint else [])]
        width = max((len(name) for name, _ in rows), default=0)
        return "\n".join(map(printable, [self.message, *(f"  {name:<{width}}  {value}" for name, value in rows)]))

    def in_a_line(self, *left_out: str) -> str:
        """Return the message and the facts except those of these names, to be quoted by another message."""
        facts = ", ".join(f"{name} {value}" for name, value in self.facts.items() if name not in left_out)
        return f"{self.message}: {facts}" if facts else self.message


class ConfigError(CtnetError):
    """A wrong option, key or value."""

    exit_code = 2


class DataError(CtnetError):
    """Annotations or images that cannot be used."""

    exit_code = 3


class WeightsError(CtnetError):
    """A file of weights that cannot be read or does not fit the network."""

    exit_code = 3


class BenchError(CtnetError):
    """A speed below its baseline, or one that could not be measured or compared."""

    exit_code = 3


class ToolFailed(CtnetError):
    """A tool of a vendor refused what it was given; its last lines of `output` are printed below the facts."""

    exit_code = 3

    def __init__(self, message: str, *, output: Sequence[str] = (), hint: str | None = None, **facts: object) -> None:
        super().__init__(message, hint=hint, **facts)
        self.output = output

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"    {printable(line)}" for line in self.output)])


class DeviceUnavailable(CtnetError):
    """The device asked for is not on this machine, or its packages are not."""

    exit_code = 4


class MissingExtra(CtnetError):
    """An optional package is needed and not installed."""

    exit_code = 4


class StorageError(CtnetError):
    """The disk refused a write: full, read-only or gone."""

    exit_code = 4


class LoaderDied(CtnetError):
    """A process that reads images was killed, most often for lack of memory."""

    exit_code = 4


class Diverged(CtnetError):
    """Training produced a loss or gradient that is not finite."""

    exit_code = 5


class LostRanks(CtnetError):
    """The other processes of a run are gone."""

    exit_code = 6


class SilentRanks(CtnetError):
    """Other processes of a run have been silent for too long."""

    exit_code = 6


class RankFailed(CtnetError):
    """A process of a run died, or ended with an error that is reported here."""

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = 6, **facts: object) -> None:
        super().__init__(message, hint=hint, **facts)
        self.exit_code = exit_code


class ReportedByOtherRank(CtnetError):
    """Another rank reports this error; this rank exits silently with the same code."""

    def __init__(self, error: CtnetError) -> None:
        super().__init__(error.message)
        self.exit_code = error.exit_code


class RankCrashed(Exception):
    """A bug in another process of the run, with its traceback."""

    def __init__(self, rank: int, text: str) -> None:
        super().__init__(f"rank {rank} crashed")
        self.rank = rank
        self.text = text


class Interrupted(CtnetError):
    """Training was interrupted and has saved its state."""

    def __init__(self, message: str, *, signal_number: int, **facts: object) -> None:
        hint = f"continue with --resume {facts['run']}" if "run" in facts else None
        super().__init__(message, hint=hint, **facts)
        self.exit_code = 128 + signal_number


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that is spelt most like `name`, for the fact of that name; None when none is close."""
    import difflib  # only a mistake needs it

    by_spelling = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name.casefold(), list(by_spelling), n=1, cutoff=cutoff)
    return by_spelling[close[0]] if close else None


def listed(names: Sequence[str], most: int = 8) -> str:
    """Return the names with commas between them; `a, b and 3 more` when there are more than `most`."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
