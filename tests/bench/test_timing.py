"""Rounds, percentiles, chains of stages: what is counted, never how long it took."""

import numpy as np
import pytest

from ctnet.bench.timing import Iterations, durations, latency, stage_seconds, take_turns


@pytest.mark.parametrize(("timed", "rounds", "expected"), [(20, 4, [5, 5, 5, 5]), (7, 3, [3, 2, 2]), (2, 4, [1, 1])])
def test_timed_runs_are_dealt_out_over_the_rounds(timed, rounds, expected):
    assert Iterations(timed=timed, rounds=rounds).shares() == expected


def test_percentiles_are_in_milliseconds_and_do_not_depend_on_order():
    seconds = np.arange(1, 102) / 1000
    assert latency(np.random.default_rng(0).permutation(seconds)) == pytest.approx((51, 91, 100))


def test_all_take_turns_and_every_run_is_kept():
    order = []

    def block(name):
        def run(runs):
            order.append((name, runs))
            return [name] * runs

        return run

    found = take_turns({"a": block("a"), "b": block("b")}, Iterations(timed=3, rounds=2))
    assert order == [("a", 2), ("b", 2), ("a", 1), ("b", 1)]
    assert found == {"a": ["a"] * 3, "b": ["b"] * 3}


def test_a_call_runs_once_more_than_it_is_timed():
    calls = []
    assert len(durations(lambda: calls.append(None), 3)) == 3
    assert len(calls) == 4


def test_each_stage_takes_what_the_one_before_returned_and_the_device_is_waited_for():
    seen = []

    def stage(name):
        def run(value):
            seen.append((name, value))
            return name

        return run

    times = stage_seconds([stage("one"), stage("two")], lambda: seen.append("waited"))
    assert seen == [("one", None), "waited", ("two", "one"), "waited"]
    assert len(times) == 2
    assert all(time >= 0 for time in times)
