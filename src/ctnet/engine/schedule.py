"""Learning rates over time, relative to their peak. Pure functions of the step, so that resuming needs no state."""

from __future__ import annotations

import math

from ctnet.config import Optimizer, Schedule


def lr_factor(schedule: Schedule, step: int, steps_per_epoch: int, total_steps: int) -> float:
    """Return the rate of update `step` (from 0) relative to the peak, in 0..1.

    The warm-up takes at most a third of the run, so that short runs peak too; see `cut_warmup`. Counted in updates it
    begins at `warmup_start` exactly.
    """
    by_epochs = schedule.unit == "epochs"
    warmup = min(_warmup(schedule, steps_per_epoch), total_steps / 3)
    if step < warmup:
        part = (step + 1) / (warmup + 1) if by_epochs else step / warmup
        if schedule.name == "onecycle":
            part = (1 - math.cos(math.pi * part)) / 2
        return schedule.warmup_start + (1 - schedule.warmup_start) * part
    progress = min(1.0, (step - warmup) / max(1.0, total_steps - warmup))
    if schedule.name in ("onecycle", "cosine"):
        return schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * progress)) / 2
    if schedule.name == "poly":
        return schedule.final + (1 - schedule.final) * float((1 - progress) ** schedule.power)
    if schedule.name == "multistep":
        now = step // steps_per_epoch if by_epochs else step
        return float(schedule.gamma ** sum(now >= milestone for milestone in schedule.milestones))
    return 1.0


def _warmup(schedule: Schedule, steps_per_epoch: int) -> float:
    if schedule.warmup_steps is not None:
        return schedule.warmup_steps
    return schedule.warmup * (steps_per_epoch if schedule.unit == "epochs" else 1)


def cut_warmup(schedule: Schedule, steps_per_epoch: int, total_steps: int) -> str | None:
    """Return a sentence about a warm-up that is longer than a third of the run, None where it is not."""
    asked = _warmup(schedule, steps_per_epoch)
    if asked <= total_steps / 3:
        return None
    return f"the warm-up of {asked:g} steps is cut to {total_steps / 3:.0f}, a third of the run's {total_steps}"


def peak_lr(optimizer: Optimizer, effective_batch: int) -> tuple[float, str]:
    """Return the learning rate for this batch and a sentence that explains it."""
    ratio = effective_batch / optimizer.lr_batch
    factor = {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[optimizer.lr_scaling]
    lr = optimizer.lr * factor
    if factor == 1:
        return lr, f"learning rate {lr:.3g} for an effective batch of {effective_batch}"
    return lr, (
        f"learning rate {lr:.3g}: {optimizer.lr:g} is meant for a batch of {optimizer.lr_batch}, "
        f"the effective batch is {effective_batch} ({optimizer.lr_scaling} scaling)"
    )
