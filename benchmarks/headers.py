"""Time of the rules that go before every training and evaluation, on as many images as COCO trains on.

    python benchmarks/headers.py [--images 118000] [--folder DIR]

Images are JPEG files of 160 kB, most of it a hole, in one folder. Cold: no cache of ctnet's, files in the system's.
Warm: the second time. Reading the annotations is measured apart.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from ctnet.data.checks.usable import check_usable
from ctnet.data.dataset import open_dataset
from ctnet.data.image import write_image

BYTES, SIDES = 160_000, (48, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=118_000)
    parser.add_argument("--folder", type=Path, help="where the set is made and stays (default: a temporary folder)")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    os.environ["CTNET_HOME"] = str(folder / "home")
    shutil.rmtree(folder / "home", ignore_errors=True)
    try:
        if not (folder / "annotations").is_dir():
            make(folder, options.images)
        for name in ("cold", "warm"):
            began = time.perf_counter()
            annotations = open_dataset(folder, "train")
            read = time.perf_counter()
            check_usable(annotations)
            print(f"{name}: annotations {read - began:.1f} s, rules {time.perf_counter() - read:.1f} s", flush=True)
    finally:
        if options.folder is None:
            shutil.rmtree(folder)


def make(folder: Path, images: int) -> None:
    """Write a COCO set with seven boxes an image."""
    rng = np.random.default_rng(0)
    write_image(folder / "one.jpg", rng.integers(0, 256, (*SIDES, 3), np.uint8))
    content = (folder / "one.jpg").read_bytes()
    (folder / "images").mkdir()
    for i in range(images):
        with (folder / "images" / f"{i:012d}.jpg").open("wb") as file:
            file.write(content[:-2] + i.to_bytes(4, "big"))
            file.seek(BYTES)
            file.write(content[-2:])
    height, width = SIDES
    boxes = rng.integers(1, 20, (7 * images, 4)).tolist()
    coco = {
        "images": [
            {"id": i + 1, "file_name": f"{i:012d}.jpg", "height": height, "width": width} for i in range(images)
        ],
        "annotations": [
            {"id": n + 1, "image_id": n // 7 + 1, "category_id": n % 80 + 1, "bbox": box, "area": 9, "iscrowd": 0}
            for n, box in enumerate(boxes)
        ],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, 81)],
    }
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(coco))


if __name__ == "__main__":
    main()
