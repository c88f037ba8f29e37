"""A training of seconds: its settings, and its annotation files to change."""

import json
from pathlib import Path

# A narrow neck and small images: the code is that of any run, in seconds.
TINY = (
    "model.neck=deform", "optimizer.lr=2e-3",
    "model.neck_channels=[16,16,16]", "model.head_channels=16", "data.image_size=64", "data.workers=0",
    "train.batch_size=4", "augment.photometric=0", "train.log_every=1",
)  # fmt: skip


def edit(annotation_file: Path, change) -> None:
    content = json.loads(annotation_file.read_text())
    change(content)
    annotation_file.write_text(json.dumps(content))


def file_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def train_file(data: Path) -> Path:
    return next((data / "annotations").glob("*train*.json"))


def val_file(data: Path) -> Path:
    return next((data / "annotations").glob("*val*.json"))
