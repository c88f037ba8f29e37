"""How the failure of one rank reaches the person at the launcher: once, first things first."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ctnet.engine.place import ERROR_FILE, Place, find_place
from ctnet.errors import ConfigError, CtnetError, Interrupted, LostRanks, RankCrashed, RankFailed, ToldElsewhere
from ctnet.parent import end_with_parent


@contextmanager
def reporting() -> Iterator[Place]:
    """Give this process's place; an error of the block goes to the launcher if there is one, and is told once.

    A rank that somebody else speaks for leaves by SystemExit with its exit code. A launched process ends with its
    launcher.
    """
    place = find_place()
    if place.launcher is not None:
        end_with_parent(place.launcher, at_once=True)
    try:
        yield place
    except Exception as error:
        if place.size == 1:
            raise
        path = os.environ.get(ERROR_FILE)
        # torch's launchers take the earliest report for the cause: only a cause may write one
        if path and not isinstance(error, (Interrupted, ToldElsewhere)):
            Path(path).write_text(json.dumps(_report(error, place.rank)), encoding="utf-8")
        if _told_by_another(error, place):
            raise SystemExit(_exit_code(error)) from None
        raise


def _told_by_another(error: Exception, place: Place) -> bool:
    if isinstance(error, ToldElsewhere):
        return True
    if isinstance(error, Interrupted):
        return False
    if place.launched and place.restart == place.restarts:
        return True  # the launcher reads the report; before a restart it does not
    return isinstance(error, ConfigError) and not place.leads  # one command line, one mistake


def _exit_code(error: Exception) -> int:
    return error.exit_code if isinstance(error, CtnetError) else 1


def _report(error: Exception, rank: int) -> dict[str, Any]:
    """Return the error as torch's launchers read it (`message`), and as ours does (`ctnet`)."""
    text = traceback.format_exc()
    mistake = error if isinstance(error, CtnetError) else None
    return {
        "message": {
            "message": f"{type(error).__name__}: {error}",
            "extraInfo": {"py_callstack": str(mistake) if mistake else text, "timestamp": str(int(time.time()))},
        },
        "ctnet": {
            "rank": rank,
            "time": time.time(),
            "lost": isinstance(error, LostRanks),
            "exit_code": _exit_code(error),
            "mistake": {"message": mistake.message, "hint": mistake.hint, "facts": mistake.facts} if mistake else None,
            "traceback": text,
        },
    }


def cause(failures: Mapping[int, Any]) -> BaseException:
    """Return the error to tell when ranks have failed, from torch's `ProcessFailure` of each.

    What a rank reports comes first, the earliest; then who was killed; then who merely lost the others. A rank that
    has told all by itself leaves nothing but its exit code: SystemExit.
    """
    reports = {rank: failure.error_file_data.get("ctnet") for rank, failure in failures.items()}
    told = sorted((report for report in reports.values() if report), key=lambda report: float(report["time"]))
    causes = [report for report in told if not report["lost"]]
    if causes:
        return _retold(causes[0])
    silent = sorted((failure.timestamp, rank) for rank, failure in failures.items() if not reports[rank])
    # SIGTERM is how a launcher ends the others
    killed = [rank for _, rank in silent if failures[rank].exitcode < 0 and failures[rank].signal_name() != "SIGTERM"]
    if killed:
        return RankFailed(
            f"rank {killed[0]} was killed by {failures[killed[0]].signal_name()}",
            process=failures[killed[0]].pid,
            hint="SIGKILL without a sender is the system out of memory: fewer loader processes or a smaller batch; "
            "continue with --resume",
        )
    if told:
        return _retold(told[0])
    code = failures[silent[0][1]].exitcode
    return SystemExit(128 - code if code < 0 else code)


def _retold(report: dict[str, Any]) -> Exception:
    mistake = report["mistake"]
    if mistake is None:
        return RankCrashed(report["rank"], report["traceback"])
    return RankFailed(
        mistake["message"], hint=mistake["hint"], exit_code=report["exit_code"], **mistake["facts"], rank=report["rank"]
    )
