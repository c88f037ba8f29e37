"""Everything a user can get wrong, as one tree; each class carries the exit code of the command line.

CtnetError
├── ConfigError          2   a wrong flag, key or value
├── DataError            3   annotations or pictures that cannot be used
├── WeightsError         3   a file of weights that does not fit
├── BenchError           3   a speed below its baseline, or one that could not be measured or compared
├── ToolFailed           3   a vendor's tool refused what it was given
├── DeviceUnavailable    4   the device asked for is not here
├── MissingExtra         4   an optional package is not installed
├── StorageError         4   the disk refused a write
├── LoaderDied           4   a process that reads pictures was killed
├── Diverged             5   training produced a number that is not finite
├── LostRanks            6   other processes of the run are gone
├── SilentRanks          6   other processes of the run have been silent for too long
├── RankFailed           6   a process of the run died; or what it told, with its code
├── ToldElsewhere            what another process of the run tells, with its code
└── Interrupted    130/143   Ctrl-C or SIGTERM, after saving
"""

from __future__ import annotations

from collections.abc import Sequence

from ctnet.terminal import printable


class CtnetError(Exception):
    """A mistake or a condition outside the program, explained to the person who can mend it.

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


class ConfigError(CtnetError):
    """A wrong flag, key or value."""

    exit_code = 2


class DataError(CtnetError):
    """Annotations or pictures that cannot be used."""

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
    """A process that reads pictures was killed, most often for want of memory."""

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
    """A process of a run died, or left with an error that is told again here."""

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = 6, **facts: object) -> None:
        super().__init__(message, hint=hint, **facts)
        self.exit_code = exit_code


class ToldElsewhere(CtnetError):
    """An error that another process of the run tells; this one leaves without a word."""

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
    """Training was told to stop and has saved its state."""

    def __init__(self, message: str, *, signal_number: int, **facts: object) -> None:
        hint = f"continue with --resume {facts['run']}" if "run" in facts else None
        super().__init__(message, hint=hint, **facts)
        self.exit_code = 128 + signal_number
