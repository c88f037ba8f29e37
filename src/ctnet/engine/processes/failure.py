"""Failures of ranks: each is reported once, by its cause."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ctnet.engine.processes.rank_info import ERROR_FILE, RankInfo, find_rank_info
from ctnet.errors import ConfigError, CtnetError, Interrupted, LostRanks, RankCrashed, RankFailed, ReportedByOtherRank
from ctnet.parent import end_with_parent


@contextmanager
def reporting() -> Iterator[RankInfo]:
    """Yield this process's rank; an error of the block goes to the launcher, if any, and is printed once.

    A rank whose error another rank reports exits silently with the same code. A launched process ends with its
    launcher.
    """
    rank_info = find_rank_info()
    if rank_info.launcher is not None:
        end_with_parent(rank_info.launcher, at_once=True)
    try:
        yield rank_info
    except Exception as error:
        if rank_info.size == 1:
            raise
        path = os.environ.get(ERROR_FILE)
        # torchelastic treats the earliest error file as the root cause, so secondary failures must not write one
        if path and not isinstance(error, (Interrupted, ReportedByOtherRank)):
            Path(path).write_text(json.dumps(_report(error, rank_info.rank)), encoding="utf-8")
        if _reported_by_other_rank(error, rank_info):
            raise SystemExit(_exit_code(error)) from None
        raise


def _reported_by_other_rank(error: Exception, rank_info: RankInfo) -> bool:
    if isinstance(error, ReportedByOtherRank):
        return True
    if isinstance(error, Interrupted):
        return False
    if rank_info.launched and rank_info.restart == rank_info.restarts:
        return True  # the launcher reads the report; before a restart it does not
    # every rank parses the same arguments; only rank 0 reports a ConfigError
    return isinstance(error, ConfigError) and not rank_info.leads


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
    """Return the error to report when ranks have failed, from torch's `ProcessFailure` of each.

    The earliest error that a rank reported comes first, then ranks that were killed, then ranks that lost contact to
    others. A rank that printed its own error leaves only its exit code: SystemExit.
    """
    reports = {rank: failure.error_file_data.get("ctnet") for rank, failure in failures.items()}
    reported = sorted((report for report in reports.values() if report), key=lambda report: float(report["time"]))
    causes = [report for report in reported if not report["lost"]]
    if causes:
        return _rebuilt(causes[0])
    silent = sorted((failure.timestamp, rank) for rank, failure in failures.items() if not reports[rank])
    # launchers end the other ranks by SIGTERM
    killed = [rank for _, rank in silent if failures[rank].exitcode < 0 and failures[rank].signal_name() != "SIGTERM"]
    if killed:
        return RankFailed(
            f"rank {killed[0]} was killed by {failures[killed[0]].signal_name()}",
            process=failures[killed[0]].pid,
            hint="SIGKILL is often the system out of memory: fewer loader processes or a smaller batch; "
            "continue with --resume",
        )
    if reported:
        return _rebuilt(reported[0])
    code = failures[silent[0][1]].exitcode
    return SystemExit(128 - code if code < 0 else code)


def _rebuilt(report: dict[str, Any]) -> Exception:
    mistake = report["mistake"]
    if mistake is None:
        return RankCrashed(report["rank"], report["traceback"])
    return RankFailed(
        mistake["message"], hint=mistake["hint"], exit_code=report["exit_code"], **mistake["facts"], rank=report["rank"]
    )
