"""Learning rates."""

import pytest

from ctnet.config import Optimizer, Schedule
from ctnet.engine.schedule import lr_factor, peak_lr


@pytest.mark.parametrize("name", ["onecycle", "cosine", "poly"])
def test_rates_rise_to_one_and_fall_to_the_end(name):
    schedule = Schedule(name=name, warmup=2, warmup_start=0.1, final=0.01)
    rates = [lr_factor(schedule, step, 10, 100) for step in range(100)]
    assert 0.1 <= rates[0] < 0.25
    assert rates[:20] == sorted(rates[:20])
    assert rates[20] == pytest.approx(1)
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[-1] < 0.06


def test_multistep_drops_at_its_milestones():
    schedule = Schedule(name="multistep", warmup=0, milestones=(2, 3), gamma=0.1)
    rates = [lr_factor(schedule, step, 5, 20) for step in (0, 9, 10, 14, 15, 19)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_constant_stays_and_short_runs_still_peak():
    assert lr_factor(Schedule(name="constant", warmup=0), 50, 10, 100) == 1
    short = Schedule(name="cosine", warmup=10)
    assert max(lr_factor(short, step, 3, 9) for step in range(9)) == pytest.approx(1)


@pytest.mark.parametrize(("rule", "factor"), [("none", 1), ("linear", 4), ("sqrt", 2)])
def test_the_rate_follows_the_effective_batch_and_says_so(rule, factor):
    lr, sentence = peak_lr(Optimizer(lr=1e-3, lr_batch=8, lr_scaling=rule), 32)
    assert lr == pytest.approx(1e-3 * factor)
    assert "32" in sentence
    assert (rule in sentence) == (factor != 1)
