"""Runs that are killed by SIGKILL, resumed, and compared with one that was never disturbed.

    python tests/kills/kill_program.py --operations 100 --times 100

A process that has imported all modules is forked for every start of `ctnet train`. In the children an audit hook sees
every open, rename, link, remove, truncate and mkdir of the run folder; fsync, the records of torch's zip writer and the
lines of the log are hooked beside it. The child kills itself before the operation that was chosen. Every second trial
is killed again while it resumes. Prints one JSON document; ends with 1 when anything differs.
"""

import argparse
import csv
import importlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}

SETTINGS = (
    "centernet_mobilenetv2", "model.head_channels=8", "train.ema=0",
    "data.image_size=64", "train.batch_size=4", "train.log_every=2", "train.save_every_steps=2", "train.eval_every=1",
    "train.keep=2", "evaluation.flip=false",
)  # fmt: skip
TIMINGS = {
    "time", "images_per_s", "data_wait", "wall_s", "ms_per_step", "peak_memory_bytes", "seconds_left",
    "memory_bytes", "run", "report", "weights", "files",
}  # fmt: skip
PAGES = {"env.json", "eval/index.html", "index.html", "checkpoints/MODEL.md"}  # with times, paths and command lines
EVENTS = {"open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate", "shutil.copyfile"}


class Operations:
    """Counts the operations of this process on a folder and kills it before a chosen one."""

    def __init__(self, folder: Path, kill_at: int | None) -> None:
        self.count = 0
        self._folder, self._kill_at = str(folder), kill_at
        self._lock = threading.RLock()

    def watch(self) -> None:
        """Hook the operations of this process."""
        import torch

        from ctnet.engine.report import RunLog

        sys.addaudithook(self._event)
        for owner, name in ((os, "fsync"), (RunLog, "event"), (RunLog, "scalars"), (RunLog, "sizes")):
            setattr(owner, name, self._counted(getattr(owner, name)))
        operations, records = self, itertools.count()

        class Writer(torch._C.PyTorchFileWriter):
            def write_record(self, *values: object) -> object:
                if next(records) % 100 == 0:  # a state has a thousand
                    operations.next()
                return super().write_record(*values)

        torch._C.PyTorchFileWriter = Writer

    def _counted(self, function: Callable) -> Callable:
        def counted(*values: object, **named: object) -> object:
            self.next()
            result = function(*values, **named)
            self.next()
            return result

        return counted

    def next(self) -> None:
        """Count an operation, and end here if it is the chosen one."""
        with self._lock:
            self.count += 1
            if self.count == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def _event(self, event: str, values: tuple) -> None:
        if event in EVENTS and any(self._folder in str(value) for value in values[:2]):
            self.next()


def start(words: list[str], folder: Path, kill_at: int | None = None, after_s: float | None = None) -> int | None:
    """Run `ctnet train WORDS` in a fork; return its operations, or None when it was killed."""
    report = folder.with_name(f"{folder.name}.report")
    report.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _child(words, folder, kill_at, report)
    deadline = None if after_s is None else time.monotonic() + after_s
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if deadline is not None and time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
            deadline = None
        time.sleep(0.002)
    if os.WIFSIGNALED(status):
        return None
    content = json.loads(report.read_text())
    if content["code"]:
        raise RuntimeError(f"ctnet train {' '.join(words)}: {content['text']}")
    loaded.update(content["modules"])
    return content["operations"]


loaded: set[str] = set()


def _child(words: list[str], folder: Path, kill_at: int | None, report: Path) -> None:
    code: object = 1
    try:
        output = report.with_suffix(".txt").open("w")
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        sys.argv = ["ctnet", "train", *words]
        operations = Operations(folder, kill_at)
        operations.watch()
        from ctnet.cli.app import main

        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        text = "" if not code else report.with_suffix(".txt").read_text()
        modules = [name for name in sys.modules if not name.startswith(("__main__", "_pytest"))]
        report.write_text(json.dumps({"code": code, "text": text, "operations": operations.count, "modules": modules}))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def import_everything() -> None:
    """Import what the children imported, so that the next ones need not."""
    for name in sorted(loaded - set(sys.modules)):
        try:
            importlib.import_module(name)
        except BaseException:
            continue


def new_or_resumed(arguments: list[str], folder: Path) -> list[str]:
    """Return what a user types after a kill."""
    if (folder / "checkpoints" / "last.pt").exists():
        return ["--resume", str(folder)]
    return [*arguments, "--out", str(folder)]


def plain(content: object) -> object:
    """Return the content without times and speeds, and with tensors as lists of bytes."""
    if isinstance(content, dict):
        return {key: plain(value) for key, value in content.items() if key not in TIMINGS}
    if isinstance(content, (list, tuple)):
        return [plain(value) for value in content]
    if hasattr(content, "untyped_storage"):
        import torch

        content = content.contiguous()
        return [str(content.dtype), list(content.shape), content.reshape(-1).view(torch.uint8).numpy().tobytes()]
    return repr(content)  # of floats as well: nan is nan


def curves(folder: Path) -> object:
    """Return TensorBoard's curves twice: as its own readers show them, and as they lie in the files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    shown = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    shown.Reload()
    tags = [tag for tag in shown.Tags()["scalars"] if "images_per_s" not in tag]
    raw = [
        (value.tag, event.step, value.simple_value)
        for file in sorted(folder.iterdir())
        for event in LegacyEventFileLoader(str(file)).Load()
        for value in event.summary.value
        if "images_per_s" not in value.tag
    ]
    return {tag: [(item.step, item.value) for item in shown.Scalars(tag)] for tag in tags}, raw


def remains(folder: Path) -> dict[str, object]:
    """Return all that a run left, by file, in a form that can be compared."""
    import torch
    from safetensors.torch import load_file

    found: dict[str, object] = {"tensorboard": curves(folder / "tensorboard")}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or name.startswith("tensorboard/") or name in PAGES:
            continue
        if path.suffix == ".pt":
            found[name] = plain(torch.load(path, weights_only=True))
        elif path.suffix == ".safetensors":
            found[name] = plain(load_file(path))
        elif path.name == "log.jsonl":
            found[name] = [plain(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.suffix == ".json":
            found[name] = plain(json.loads(path.read_text()))
        elif path.name == "metrics.csv":
            found[name] = [plain(row) for row in csv.DictReader(path.open(newline=""))]
        else:
            found[name] = path.read_bytes()
    return found


def differences(expected: object, got: object, where: str = "") -> list[str]:
    """Return where two of them differ."""
    if isinstance(expected, dict) and isinstance(got, dict):
        return [
            line
            for key in [*expected, *(got.keys() - expected.keys())]
            for line in (
                differences(expected[key], got[key], f"{where}/{key}")
                if key in expected and key in got
                else [f"{where}/{key}: {'missing' if key in expected else 'too much'}"]
            )
        ]
    if isinstance(expected, (list, tuple)) and isinstance(got, (list, tuple)) and len(expected) == len(got):
        pairs = enumerate(zip(expected, got, strict=True))
        return [line for i, pair in pairs for line in differences(*pair, f"{where}[{i}]")]
    return [] if expected == got else [f"{where}: {str(expected)[:80]} became {str(got)[:80]}"]


def trial(arguments: list[str], folder: Path, kills: list[dict]) -> None:
    """Start, kill and resume until the kills are used up and the run is at its end."""
    for kill in [*kills, {}]:
        start(new_or_resumed(arguments, folder), folder, **kill)


def measure(work: Path, operations: int, times: int, seed: int, workers: int) -> dict[str, object]:
    """Make the trials and return the figures."""
    from ctnet.data.demo import write_demo

    data = write_demo(work / "set", images_train=10, images_val=4, seed=3, size=(64, 80))
    os.environ["CTNET_HOME"] = str(work / "home")
    arguments = [*SETTINGS, f"data.workers={workers}", "--data", str(data), "--epochs", "2", "--device", "cpu"]
    straight = work / "straight"
    start([*arguments, "--out", str(work / "first")], work / "first")
    import_everything()
    begin = time.monotonic()
    total = start([*arguments, "--out", str(straight)], straight) or 0
    seconds = time.monotonic() - begin
    expected, draw = remains(straight), random.Random(seed)
    points = [1 + (i * total) // operations for i in range(operations)]
    kills: list[list[dict]] = [[{"kill_at": point}] for point in points]
    kills += [[{"after_s": draw.uniform(0, seconds)}] for _ in range(times)]
    for number, kill in enumerate(kills):
        if number % 2:
            kill.append({"kill_at": draw.randrange(1, total)})
    draw.shuffle(kills)
    wrong: dict[str, list[str]] = {}
    for number, kill in enumerate(kills):
        folder = work / f"trial_{number}"
        try:
            trial(arguments, folder, kill)
            lines = differences(expected, remains(folder))
        except Exception as error:
            lines = [repr(error)[:2000]]
        if lines:
            wrong[f"{number} {kill}"] = lines[:10]
            print(f"{number} {kill}: {lines[:3]}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        if number % 20 == 19:
            print(f"{number + 1} of {len(kills)} trials, {len(wrong)} different", file=sys.stderr, flush=True)
    return {
        "operations_in_a_run": total,
        "seconds_of_a_run": round(seconds, 2),
        "trials": len(kills),
        "kills": sum(map(len, kills)),
        "files_compared": len(expected),
        "rows_compared": len(expected["metrics.csv"]) + len(expected["log.jsonl"]),
        "different": wrong,
        "seconds": round(time.monotonic() - begin, 1),
    }


def main() -> None:
    """Read the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--operations", type=int, default=100, help="kills at file operations")
    parser.add_argument("--times", type=int, default=100, help="kills at random times")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="loader processes of the runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ctnet-kills-") as work:
        found = measure(Path(work), options.operations, options.times, options.seed, options.workers)
    print(json.dumps(found, indent=2))
    sys.exit(1 if found["different"] else 0)


if __name__ == "__main__":
    main()
