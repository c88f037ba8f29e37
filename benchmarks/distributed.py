"""Are two processes of one thread as fast as one process of two threads?

python benchmarks/distributed.py [--processes 2] [--image-size 256] [--batch 8] [--steps 30] [--json FILE]

Both train the default network on the demo set through the command line, with the same batch over all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import arguments, finish

from ctnet.data.demo import demo_folder


def images_per_second(processes: int, threads: int, settings: list[str]) -> float:
    """Return the throughput that the summary of a run states: evaluation, saving and the first steps left out."""
    launcher = ["--nproc", str(processes)] if processes > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "ctnet", "train", "centernet_resdcn18", *launcher, "--device", "cpu",
             "--out", str(Path(folder) / "run"), "--json", *settings],
            env=os.environ | {"OMP_NUM_THREADS": str(threads)}, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
    return float(json.loads(done.stdout)["images_per_s"])


def main() -> None:
    """Print images a second of both, taking turns, and the ratio of the best of each."""
    values = arguments(
        __doc__,
        processes={"type": int, "default": 2},
        image_size={"type": int, "default": 256},
        batch={"type": int, "default": 8, "help": "pictures a step, over all processes"},
        steps={"type": int, "default": 30},
        rounds={"type": int, "default": 2},
    )
    common = [
        f"data.path={demo_folder()}", "data.val_split=none", f"data.image_size={values.image_size}", "data.workers=0",
        f"train.max_steps={values.steps}", "train.eval_every=0",
    ]  # fmt: skip
    rates: dict[str, list[float]] = {"one process": [], "processes": []}
    for _ in range(values.rounds):
        alone = [*common, f"train.batch_size={values.batch}"]
        shared = [*common, f"train.batch_size={values.batch // values.processes}"]
        rates["one process"].append(images_per_second(1, values.processes, alone))
        rates["processes"].append(images_per_second(values.processes, 1, shared))
    best = {name: max(found) for name, found in rates.items()}
    print(f"1 process x {values.processes} threads   {best['one process']:.1f} images/s")
    print(f"{values.processes} processes x 1 thread  {best['processes']:.1f} images/s")
    name = f"distributed/resdcn18/{values.image_size}x{values.batch}/{values.processes}"
    finish(values.json, rates, {name: best["processes"] / best["one process"]})


if __name__ == "__main__":
    main()
