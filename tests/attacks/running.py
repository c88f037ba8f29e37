"""One hostile input through the real command line, in a forked child that is watched from outside."""

import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

LONGEST_SECONDS = 10
MOST_BYTES = 2 << 30
OURS = 70  # the exit code of a child that never came to run the command
FAULTS = ("executed", "outside", "traceback", "crash", "hang", "memory", "control")
# what moves a cursor, sets a title or turns the direction of text; only the ends of lines and tabs are harmless
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_TRACEBACK = re.compile(r"Traceback \(most recent call last\)|This is a bug in ctnet|[Ss]et `?weights_only`?")


@dataclass(frozen=True)
class Place:
    """Where one input lives: `files` holds it, `work` is the folder that the command runs in.

    `material` has valid files. Nothing but `work` and `files` may change, least of all `marker`.
    """

    material: Path
    root: Path

    @property
    def files(self) -> Path:
        return self.root / "a/b/c/d/files"

    @property
    def work(self) -> Path:
        return self.root / "a/b/c/d/work"

    @property
    def outside(self) -> Path:
        """An existing folder that only a path which leads out of `work` reaches."""
        return self.root / "outside"

    @property
    def marker(self) -> Path:
        """What code in a file makes if it is run."""
        return self.root / "marker"

    def put(self, name: str, content: bytes | str) -> Path:
        """Return a new file with this content."""
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return path

    def copy(self, name: str) -> Path:
        """Return a copy of a file or folder of the material."""
        target = self.files / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (self.material / name).is_dir():
            shutil.copytree(self.material / name, target)
        else:
            shutil.copy(self.material / name, target)
        return target


@dataclass(frozen=True)
class Case:
    """An input: `write` puts it in place and returns the arguments of the command that meets it.

    `seconds` is how long the command may take, more where it has honest work to do.
    """

    family: str
    name: str
    write: Callable[[Place], list[object]]
    seconds: int = LONGEST_SECONDS


@dataclass
class Outcome:
    """What the command did: its exit code (negative: the signal that ended it), its output, and what was wrong."""

    case: Case
    code: int
    text: str
    seconds: float
    bytes: int
    faults: list[str] = field(default_factory=list)


def run(case: Case, material: Path, root: Path) -> Outcome:
    """Return what the command did with the input; `root` is a folder that is there for this case alone."""
    place = Place(material, root)
    for folder in (place.files, place.work, place.outside):
        folder.mkdir(parents=True)
    try:
        arguments = [os.fsencode(str(argument)).decode("utf-8", "surrogateescape") for argument in case.write(place)]
        before = _seen(place)
        output = root / "a/output"
        began = time.monotonic()
        pid = os.fork()
        if not pid:
            _be_the_command(arguments, place, output)
        stopped, status, peak = _watch(pid, case.seconds)
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        text = output.read_bytes().decode("utf-8", "surrogateescape") if output.exists() else ""
        outcome = Outcome(case, code, text, time.monotonic() - began, peak)
        assert code != OURS, text
        outcome.faults = _faults(outcome, stopped, place, before)
        return outcome
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _faults(outcome: Outcome, stopped: str | None, place: Place, before: set[Path]) -> list[str]:
    found = {
        "executed": place.marker.exists(),
        "outside": bool(_seen(place) - before - {place.marker}),
        "traceback": outcome.code == 1 or bool(_TRACEBACK.search(outcome.text)),
        "crash": stopped is None and outcome.code < 0,
        "hang": stopped == "hang",
        "memory": stopped == "memory" or outcome.bytes > MOST_BYTES,
        "control": bool(_CONTROL.search(outcome.text)),
    }
    return [name for name in FAULTS if found[name]]


def _seen(place: Place) -> set[Path]:
    """Return all files of the root but those that the command may write."""
    own = {str(place.work), str(place.files), str(place.root / "a/output"), str(place.root / "a/home")}
    seen = set()
    for folder, inside, names in os.walk(place.root):
        inside[:] = [name for name in inside if f"{folder}/{name}" not in own]
        seen |= {Path(folder, name) for name in names if f"{folder}/{name}" not in own}
        seen |= {Path(folder, name) for name in inside}
    return seen


def _be_the_command(arguments: list[str], place: Place, output: Path) -> None:
    """Run the command line in this process and end it."""
    code = OURS
    try:
        os.setsid()
        os.chdir(place.work)
        os.environ |= {"CTNET_HOME": str(place.root / "a/home"), "COLUMNS": "200", "CTNET_HOSTILE": str(place.marker)}
        with output.open("wb") as stream, open(os.devnull, "rb") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 0)
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        sys.stdout = os.fdopen(os.dup(1), "w", 1, "utf-8", "strict")  # as Python opens them for a terminal
        sys.stderr = os.fdopen(os.dup(2), "w", 1, "utf-8", "backslashreplace")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
        sys.argv = ["ctnet", *arguments]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = _ran()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _ran() -> int:
    from ctnet.cli.app import main

    try:
        main()
        return 0
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


def _watch(pid: int, seconds: int) -> tuple[str | None, int, int]:
    """Wait for the child and return why it was stopped if it was, its status, and the most memory that it held.

    It is stopped beyond the limits: after so many seconds of its own processor time, or without any.
    """
    stopped, peak, idle_since, used = None, 0, time.monotonic(), 0.0
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            _end_group(pid)
            return stopped, status, max(peak, usage.ru_maxrss * 1024)
        held, now_used = _facts(pid)
        peak = max(peak, held)
        if now_used > used:
            idle_since, used = time.monotonic(), now_used
        if held > MOST_BYTES:
            stopped = "memory"
        elif used > seconds or time.monotonic() - idle_since > seconds:
            stopped = "hang"
        if stopped:
            _end_group(pid)
        time.sleep(0.004)


def _end_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _facts(pid: int) -> tuple[int, float]:
    """Return the bytes that a process holds and the seconds of processor time that it has used."""
    try:
        held = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
        numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, IndexError):
        return 0, 0.0
    return held, (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")
