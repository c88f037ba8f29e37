"""Which of several failures is told."""

import json
import os
import subprocess
import sys

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from ctnet.engine.processes.failure import cause
from ctnet.engine.processes.rank_info import RankInfo, find_rank_info
from ctnet.errors import ConfigError, RankCrashed, RankFailed

RAISING = """
from ctnet.engine.processes.failure import reporting
from ctnet.errors import *
with reporting():
    raise {}
"""


@pytest.fixture
def fail(tmp_path):
    """Run a rank that raises, and return its failure as torch's launcher sees it; an int is a bare exit code."""

    def run(rank: int, raised: str | int) -> ProcessFailure:
        file = tmp_path / f"error_{rank}.json"
        if isinstance(raised, int):
            return ProcessFailure(rank, 100 + rank, raised, str(file))
        place = {"WORLD_SIZE": "4", "RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "x", "MASTER_PORT": "1"}
        done = subprocess.run(
            [sys.executable, "-c", RAISING.format(raised)],
            env=os.environ | place | {"ROLE_NAME": "ctnet", "TORCHELASTIC_ERROR_FILE": str(file)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""  # the launcher tells
        return ProcessFailure(rank, 100 + rank, done.returncode, str(file))

    return run


def test_a_mistake_goes_before_those_who_lost_contact(fail):
    lost = fail(0, "LostRanks('lost')")
    error = cause({0: lost, 1: fail(1, "DataError('broken', hint='mend it', file='x.jpg')"), 2: fail(2, -9)})
    assert isinstance(error, RankFailed)
    assert (error.message, error.hint, error.exit_code) == ("broken", "mend it", 3)
    assert error.facts == {"file": "x.jpg", "rank": "1"}


def test_a_bug_comes_with_its_own_traceback(fail):
    error = cause({0: fail(0, -15), 2: fail(2, "ZeroDivisionError('of a rank')")})
    assert isinstance(error, RankCrashed)
    assert error.rank == 2
    assert "ZeroDivisionError: of a rank" in error.text


def test_who_was_killed_goes_before_those_who_lost_contact_and_those_who_were_ended(fail):
    error = cause({0: fail(0, "LostRanks('lost')"), 1: fail(1, -15), 3: fail(3, -9)})
    assert str(error).startswith("rank 3 was killed by SIGKILL")
    assert error.exit_code == 6


def test_lost_contact_is_told_when_nothing_else_is_known(fail):
    assert cause({0: fail(0, "LostRanks('rank 0 lost contact')"), 1: fail(1, -15)}).message == "rank 0 lost contact"


def test_a_rank_that_hung_is_told_by_those_who_waited_not_by_how_it_was_ended(fail):
    assert cause({0: fail(0, "SilentRanks('rank 0 waited')"), 1: fail(1, -9)}).message == "rank 0 waited"


@pytest.mark.parametrize(("codes", "expected"), [((143, 143), 143), ((-15, -15), 143), ((1, -15), 1)])
def test_a_rank_that_told_by_itself_leaves_its_code(fail, codes, expected):
    error = cause({rank: fail(rank, code) for rank, code in enumerate(codes)})
    assert isinstance(error, SystemExit)
    assert error.code == expected


def test_torchs_own_launcher_can_read_a_report(fail, tmp_path):
    failure = fail(1, "DataError('broken')")
    assert failure.message["message"] == "DataError: broken"
    assert json.loads((tmp_path / "error_1.json").read_text())["ctnet"]["exit_code"] == 3


def test_a_process_alone_has_the_only_place():
    assert find_rank_info({}) == find_rank_info({"WORLD_SIZE": "1", "RANK": "0"}) == RankInfo()


TORCHRUN = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "a",
            "MASTER_PORT": "1"}  # fmt: skip


def test_torchrun_says_where_a_process_stands():
    place = find_rank_info(TORCHRUN)
    assert (place.rank, place.size, place.local_rank, place.local_size) == (3, 4, 1, 2)
    assert not place.leads
    assert not place.launched


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"RANK": "4"}, "from 0 to WORLD_SIZE - 1"),
        ({"RANK": "x"}, "not a number"),
        ({"WORLD_SIZE": "two"}, "not a number"),
    ],
)
def test_wrong_variables_are_named(change, words):
    with pytest.raises(ConfigError, match=words):
        find_rank_info(TORCHRUN | change)


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_missing_variables_are_named(name):
    with pytest.raises(ConfigError, match=f"but {name} is not set"):
        find_rank_info({key: value for key, value in TORCHRUN.items() if key != name})
