"""What `ctnet` alone prints on a terminal: the next commands that suit the present folder."""

from __future__ import annotations

from pathlib import Path

_DATA = (
    "annotations/*.json", "data.yaml", "dataset.yaml", "Annotations/*.xml", "VOCdevkit", "images/train",
    "labels/train", "_annotations.coco.json", "train/_annotations.coco.json",
)  # fmt: skip


def next_commands(folder: Path) -> list[tuple[str, str]]:
    """Return (command, what it does), three of them: for a run, a data set, or an empty folder."""
    best = sorted(folder.glob("runs/train/*/checkpoints/best.safetensors"), key=lambda path: path.stat().st_mtime)
    if best:
        weights = best[-1].relative_to(folder)
        return [
            (f"ctnet predict --weights {weights} IMAGE...", "find objects in images, folders or videos"),
            (f"ctnet export onnx --weights {weights}", "write a file for another runtime"),
            ("ctnet runs", "list what was trained here"),
        ]
    if any(next(folder.glob(pattern), None) for pattern in _DATA):
        return [
            ("ctnet data check .", "look for mistakes in the data set of this folder"),
            ("ctnet data view .", "draw some of its images with their boxes"),
            ("ctnet train --data .", "train a detector on it"),
        ]
    return [
        ("ctnet train", "train a first detector on rendered shapes, in minutes"),
        ("ctnet train --data PATH", "your own images: COCO, Pascal VOC or YOLO"),
        ("ctnet doctor", "which devices and packages there are"),
    ]
