"""What the benchmarks share: timing, the machine's matmul rate, peers that run one operator, results on disk."""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


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
    """Return the median time of each call.

    They take turns in blocks, so that a slow moment of the machine hits all alike, with a pause before each block: the
    threads of other runtimes go on spinning for a while after their last call.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(0.1)
            call()
            for _ in range(-(-repeats // rounds)):
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def matmul_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """Return the multiply-adds x 2 per second, in 10^9, of a square product: the limit for convolutions."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    return 2 * size**3 / milliseconds({"": lambda: a @ b}, 7)[""] / 1e6


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean."""
    return math.exp(statistics.fmean(math.log(value) for value in values))


def check(name: str, got: Tensor, expected: Tensor, bound: float) -> None:
    """Stop unless the largest deviation stays within `bound` of the largest value: a wrong kernel has no time."""
    deviation = float((got.double() - expected.double()).abs().max() / expected.abs().max())
    if not deviation <= bound:
        raise SystemExit(f"{name} is wrong: deviates by {deviation:.2e}, at most {bound:.0e} is right")


def machine() -> dict[str, Any]:
    """Return what the figures were made on."""
    name = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = names[0] if names else name
    return {
        "processor": name,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bf16": torch.cpu._is_avx512_bf16_supported(),
        "amx": torch.cpu._is_amx_tile_supported(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def finish(file: Path | None, figures: object, ratios: dict[str, float]) -> None:
    """Print the ratios (peer's time / ours: above 1 is ahead) and write all to `file`."""
    print()
    for name, ratio in ratios.items():
        print(f"{name:<48}{ratio:8.2f}x")
    if file is not None:
        content = {"machine": machine(), "figures": figures, "ratios": {k: round(v, 4) for k, v in ratios.items()}}
        file.write_text(json.dumps(content, indent=1) + "\n")
