"""What the benchmarks share: their command line, timing, the machine's matmul rate, results on disk."""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctnet.bench.machine import DTYPES, describe_machine, matmul_rates
from ctnet.bench.timing import Iterations, durations, latency, take_turns
from ctnet.devices import open_device


def arguments(description: str | None, **options: dict[str, Any]) -> argparse.Namespace:
    """Return the command line's values: those given by `options`, and --json, --threads, --repeats."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures and ratios")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=15, help="timed calls, of which the median counts")
    for name, settings in options.items():
        parser.add_argument("--" + name.replace("_", "-"), **settings)
    values = parser.parse_args()
    torch.set_num_threads(values.threads)
    return values


def milliseconds(calls: dict[str, Callable[[], object]], repeats: int, rounds: int = 3) -> dict[str, float]:
    """Return the median time of each call. They take turns in blocks."""
    blocks = {name: partial(durations, call) for name, call in calls.items()}
    found = take_turns(blocks, Iterations(timed=repeats, rounds=rounds))
    return {name: latency(seconds).median for name, seconds in found.items()}


def matmul_rate(dtype: torch.dtype) -> float:
    """Return the multiply-adds x 2 per second, in 10^9, of a square product: the limit for convolutions."""
    (name,) = (name for name, known in DTYPES.items() if known == dtype)
    return matmul_rates({name}, open_device("cpu"))[name]


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean."""
    return math.exp(statistics.fmean(math.log(value) for value in values))


def check(name: str, got: Tensor, expected: Tensor, bound: float) -> None:
    """Stop unless the largest deviation stays within `bound` of the largest value: a wrong kernel has no time."""
    deviation = float((got.double() - expected.double()).abs().max() / expected.abs().max())
    if not deviation <= bound:
        raise SystemExit(f"{name} is wrong: deviates by {deviation:.2e}, at most {bound:.0e} is right")


def finish(file: Path | None, figures: object, ratios: dict[str, float]) -> None:
    """Print the ratios (peer's time / ours: above 1 is ahead) and write all to `file`."""
    print()
    for name, ratio in ratios.items():
        print(f"{name:<48}{ratio:8.2f}x")
    if file is not None:
        machine = describe_machine(open_device("cpu"))
        content = {"machine": machine, "figures": figures, "ratios": {k: round(v, 4) for k, v in ratios.items()}}
        file.write_text(json.dumps(content, indent=1) + "\n")
