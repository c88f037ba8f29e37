"""What two runs left, compared without times and speeds."""

import csv
import json
from pathlib import Path

import torch

TIMINGS = {"time", "images_per_s", "data_wait", "wall_s", "files", "seconds_left", "memory_bytes"}


def assert_same(a: object, b: object, path: str = "state") -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a.keys() - TIMINGS:
            assert_same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}[{i}]")
    else:
        assert a == b, path


def records(folder: Path) -> dict[str, object]:
    """Return the rows that a run recorded, without times and speeds."""

    def plain(row: dict) -> dict:
        return {key: value for key, value in row.items() if key not in TIMINGS}

    lines = [plain(json.loads(line)) for line in (folder / "log.jsonl").read_text().splitlines()]
    with (folder / "metrics.csv").open(newline="") as file:
        return {"log": lines, "metrics": [plain(row) for row in csv.DictReader(file)]}
