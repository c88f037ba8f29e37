"""Anonymise a video end to end: `ctnet predict --anonymize` and deface 1.5.0 over onnxruntime, in turns.

    python -m venv DEFACE && DEFACE/bin/pip install deface==1.5.0 onnx onnxruntime
    python benchmarks/anonymize.py --deface DEFACE/bin/deface --weights centerface.onnx --images DIR

The video pans over photos at 1280 x 720. Processes are timed from start to end, sound copied. What both hide is
compared frame by frame: `agreement` is the share of deface's faces that ctnet hides, at IoU 0.5, and that of the
faces that ctnet found which deface hides.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT, FPS = 1280, 720, 25
_FACES = """
import json, sys, cv2
from deface.centerface import CenterFace
network, capture, frames = CenterFace(), cv2.VideoCapture(sys.argv[1]), []
while True:
    read, image = capture.read()
    if not read:
        break
    frames.append(network(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), threshold=float(sys.argv[2]))[0][:, :4].tolist())
print(json.dumps(frames))
"""


def write_video(file: Path, images: list[Path], frames: int) -> None:
    """Write a video that pans over each image, and a tone."""
    command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{WIDTH}x{HEIGHT}"]
    command += ["-r", str(FPS), "-i", "pipe:0", "-f", "lavfi", "-i", f"sine=duration={frames / FPS}"]
    process = subprocess.Popen([*command, "-crf", "18", "-pix_fmt", "yuv420p", str(file)], stdin=subprocess.PIPE)
    each = -(-frames // len(images))
    for number in range(frames):
        if number % each == 0:
            photo = cv2.imread(str(images[number // each]))
            scale = 1.15 * max(WIDTH / photo.shape[1], HEIGHT / photo.shape[0])
            photo = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        part = (number % each) / each
        x, y = (int(part * (side - least)) for side, least in zip(photo.shape[1::-1], (WIDTH, HEIGHT), strict=True))
        process.stdin.write(np.ascontiguousarray(photo[y : y + HEIGHT, x : x + WIDTH]).tobytes())
    process.stdin.close()
    process.wait()


def seconds(command: list[str], **environment: str) -> float:
    """Return how long a process takes. Stops when it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - start


def hidden_by_ctnet(file: Path, score: float = 0.0) -> dict[int, list[list[float]]]:
    """Return the boxes of each frame in a CSV of `--boxes-out`, or those that were found with this score."""
    boxes = defaultdict(list)
    for row in csv.DictReader(file.open()):
        if float(row["score"] or 0) < score:
            continue
        boxes[int(row["frame"])].append([float(row[side]) for side in ("x1", "y1", "x2", "y2")])
    return boxes


def covered(ones: list, others: list) -> tuple[int, int]:
    """Return how many of the first boxes have one of the others at IoU 0.5, and how many there are."""
    hits = 0
    for x1, y1, x2, y2 in ones:
        for a1, b1, a2, b2 in others:
            shared = max(min(x2, a2) - max(x1, a1), 0) * max(min(y2, b2) - max(y1, b1), 0)
            if shared >= 0.5 * ((x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - shared):
                hits += 1
                break
    return hits, len(ones)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deface", required=True, type=Path, help="the command in an environment of its own")
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--images", required=True, type=Path, help="folder of photos")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--score", type=float, default=0.3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("options", nargs="*", help="further options of ctnet, after --")
    values = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video, boxes = folder / "v.mp4", folder / "boxes.csv"
        write_video(video, sorted(values.images.glob("*.jpg")), values.frames)
        ours = [
            sys.executable, "-m", "ctnet", "predict", str(video), "--weights", str(values.weights),
            "--anonymize", "blur", "--score", str(values.score), "--boxes-out", str(boxes),
            "--out", str(folder / "out"), *values.options,
        ]  # fmt: skip
        theirs = [str(values.deface), str(video), "--keep-audio", "--thresh", str(values.score)]
        theirs += ["--backend", "onnxrt", "--output", str(folder / "deface.mp4")]
        times = {"deface": seconds(theirs), "ctnet": seconds(ours)}
        python = values.deface.resolve().parent / "python"
        found = subprocess.run(
            [python, "-c", _FACES, video, str(values.score)], capture_output=True, text=True, check=True
        )
        reference = json.loads(found.stdout.splitlines()[-1])
        mine, sure = hidden_by_ctnet(boxes), hidden_by_ctnet(boxes, values.score)
        forth = np.sum([covered(faces, mine[i]) for i, faces in enumerate(reference)], 0)
        back = np.sum([covered(sure[i], faces) for i, faces in enumerate(reference)], 0)
    rates = {name: values.frames / taken for name, taken in times.items()}
    figures = {
        "frames": values.frames, "size": [WIDTH, HEIGHT], "seconds": times, "frames_per_second": rates,
        "ratio": times["deface"] / times["ctnet"],
        "agreement": [float(hits / max(number, 1)) for hits, number in (forth, back)],
        "faces": [int(forth[1]), int(back[1])], "options": values.options,
    }  # fmt: skip
    print(json.dumps(figures, indent=1))
    if values.json:
        values.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
