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
from ctnet.devices import OpenDevice, open_device
from ctnet.errors import CtnetError

DEVICE = {"default": "cpu", "metavar": "NAME", "help": "cpu, cuda, ..."}
"""the option of scripts that run anywhere"""
_AT_ONCE = 20


def arguments(description: str | None, **options: dict[str, Any]) -> argparse.Namespace:
    """Return the command line's values: those given by `options`, and --json, --threads, --repeats.

    A device among them is opened.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures and ratios")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=15, help="timed calls, of which the median counts")
    for name, settings in options.items():
        parser.add_argument("--" + name.replace("_", "-"), **settings)
    values = parser.parse_args()
    torch.set_num_threads(values.threads)
    if "device" in options:
        try:
            values.device = open_device(values.device)
        except CtnetError as error:
            parser.error(str(error))
    return values


def milliseconds(
    calls: dict[str, Callable[[], object]], repeats: int, rounds: int = 3, *, device: OpenDevice | None = None
) -> dict[str, float]:
    """Return the median time of each call. They take turns in blocks.

    On a card a timed call is many, handed over one after the other as a network does, until the last is done: what
    counts is the card's work, or the handing over where that takes longer.
    """
    at_once = 1 if device is None or device.torch_device.type == "cpu" else _AT_ONCE

    def several(call: Callable[[], object]) -> None:
        for _ in range(at_once):
            call()
        if device is not None:
            device.plugin.synchronize()

    blocks = {name: partial(durations, partial(several, call)) for name, call in calls.items()}
    found = take_turns(blocks, Iterations(timed=repeats, rounds=rounds))
    return {name: latency(seconds).median / at_once for name, seconds in found.items()}


def matmul_rate(dtype: torch.dtype, device: OpenDevice) -> float:
    """Return the multiply-adds x 2 per second, in 10^9, of a square product: the limit for convolutions."""
    (name,) = (name for name, known in DTYPES.items() if known == dtype)
    return matmul_rates({name}, device)[name]


def copy_rate(device: OpenDevice) -> float:
    """Return the bytes per second, in 10^9, of a copy, read and written: the limit for what computes little."""
    size = 1 << (26 if device.torch_device.type == "cpu" else 30)
    source = torch.zeros(size, dtype=torch.uint8, device=device.torch_device)
    target = torch.empty_like(source)
    return 2 * size / milliseconds({"": lambda: target.copy_(source)}, 9, device=device)[""] / 1e6


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean."""
    return math.exp(statistics.fmean(math.log(value) for value in values))


def check(name: str, got: Tensor, expected: Tensor, bound: float) -> None:
    """Stop unless the largest deviation stays within `bound` of the largest value: a wrong kernel has no time."""
    got, expected = (tensor.detach().cpu().double() for tensor in (got, expected))
    deviation = float((got - expected).abs().max() / expected.abs().max())
    if not deviation <= bound:
        raise SystemExit(f"{name} is wrong: deviates by {deviation:.2e}, at most {bound:.0e} is right")


def finish(file: Path | None, figures: object, ratios: dict[str, float], device: OpenDevice | None = None) -> None:
    """Print the ratios (peer's time / ours: above 1 is ahead) and write all to `file`."""
    print()
    for name, ratio in ratios.items():
        print(f"{name:<48}{ratio:8.2f}x")
    if file is not None:
        machine = describe_machine(device or open_device("cpu"))
        content = {"machine": machine, "figures": figures, "ratios": {k: round(v, 4) for k, v in ratios.items()}}
        file.write_text(json.dumps(content, indent=1) + "\n")
