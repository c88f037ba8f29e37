"""Many spoiled files through one reader: each must be read or refused by a CtnetError, soon and in little memory."""

import contextlib
import io
import os
import resource
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from ctnet.errors import CtnetError
from fuzz.choices import Choices
from fuzz.readers import Reader

LONGEST_SECONDS = 5  # of processor time, so that a busy machine fails no test
MOST_BYTES = 1 << 30
MOST_MUTATIONS = 5


class Fault(AssertionError):
    """A reader that raised another error, took too long or too much memory."""


class _TooLong(BaseException):
    """Raised in the reader; no `except Exception` swallows it."""


class Bench:
    """A folder in which one reader finds what it needs around its file."""

    def __init__(self, reader: Reader, folder: Path) -> None:
        self.reader, self.folder = reader, folder
        reader.around(folder)
        self.file = folder / reader.file
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.seeds = reader.seeds()
        self.cases = self.taken = 0

    def spoiled(self, program: bytes) -> bytes:
        """Return a valid file after the mutations that the program chooses."""
        choices = Choices(program)
        content = choices.pick(self.seeds)
        for _ in range(MOST_MUTATIONS):
            if not choices.left:
                break
            content = self.reader.mutate(content, choices)[: 1 << 20]
        return content

    def read(self, content: bytes) -> None:
        """Read the content, counting whether it was taken. Raises Fault."""
        self.file.write_bytes(content)
        self.cases += 1
        before = _peak_bytes()
        try:
            with _bounded(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                self.reader.read(self.file)
            self.taken += 1
        except CtnetError as error:
            str(error)
            if short := _memory_error(error):
                raise Fault(f"{self.reader.name}: {type(error).__name__} after {short!r}") from error
        except _TooLong:
            raise Fault(f"{self.reader.name}: more than {LONGEST_SECONDS} s") from None
        except Exception as error:
            raise Fault(f"{self.reader.name}: {type(error).__name__}: {str(error)[:300]}") from error
        finally:
            if _peak_bytes() - before > MOST_BYTES:
                raise Fault(f"{self.reader.name}: {(_peak_bytes() - before) >> 20} MB")


@contextlib.contextmanager
def bench_for(reader: Reader) -> Iterator[Bench]:
    """Give a bench in a folder of its own."""
    memory = "/dev/shm"  # files that live for one case
    folder = Path(tempfile.mkdtemp(prefix="ctnet-fuzz-", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        yield Bench(reader, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fuzz(bench: Bench, cases: int, number: int | None = None) -> None:
    """Run so many cases; they are the same each time, `number` makes others.

    Raises Fault for the first that fails, made as small as could be; it carries its `content`.
    """

    @settings(
        max_examples=cases,
        derandomize=number is None,
        database=None,
        deadline=None,
        # a fault in the test suite is reported as found: shrinking can take minutes
        phases=(Phase.generate,) if number is None else (Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        report_multiple_bugs=False,
    )
    @given(st.binary(max_size=40))
    def every_case(program: bytes) -> None:
        content = bench.spoiled(program)
        try:
            bench.read(content)
        except Fault as fault:
            fault.content = content
            raise

    (every_case if number is None else seed(number)(every_case))()


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Bound the processor time and the address space of the block."""

    def stop(*_: object) -> None:
        raise _TooLong

    limits = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = signal.signal(signal.SIGVTALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (size + 3 * MOST_BYTES, limits[1]))
    signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGVTALRM, before)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _memory_error(error: BaseException | None) -> str | None:
    """Return what was raised for want of memory before this error, which may stand for it."""
    while error is not None:
        if isinstance(error, MemoryError) or "allocate" in str(error):
            return str(error)[:200] or "MemoryError"
        error = error.__cause__ or error.__context__
    return None
