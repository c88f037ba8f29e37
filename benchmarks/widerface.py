"""How fast is the WIDER FACE protocol on the whole validation set, against the same protocol as plain loops?

python benchmarks/widerface.py --truth DIR [--json FILE]

The loops follow the published code: one pass over images, detections and the thousand scores for each setting.
DIR is the folder of wider_face_val.mat. Detections are made from the faces, 200 an image with false ones.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from measure import arguments, finish

from ctnet.eval.widerface import THRESHOLDS, WiderFaces, overlaps, read_ground_truth, widerface_ap
from ctnet.eval.widerface import _area as area_under

IOU = 0.5


def detections(faces: WiderFaces, most: int = 200) -> dict[tuple[str, str], np.ndarray]:
    """Return shifted faces with high scores and others with low ones, by image, strongest first."""
    generator = np.random.default_rng(0)
    found = {}
    for image, boxes in zip(faces.images, faces.boxes_xywh, strict=True):
        near = boxes[: most // 2]
        near = near + generator.normal(0, 0.08, near.shape) * near[:, [2, 3, 2, 3]]
        far = generator.uniform(0, 900, (most - len(near), 4)) * [1, 1, 0.2, 0.2]
        scores = np.concatenate([generator.uniform(0.2, 1, len(near)), generator.uniform(0, 0.3, len(far))])
        rows = np.column_stack([np.concatenate([near, far]), scores])
        found[image] = rows[np.argsort(-rows[:, 4], kind="stable")]
    return found


def plain_ap(faces: WiderFaces, found: dict[tuple[str, str], np.ndarray], setting: str) -> float:
    """Return the AP of a setting by loops."""
    low = min(rows[:, 4].min() for rows in found.values())
    high = max(rows[:, 4].max() for rows in found.values())
    totals, faces_counted = np.zeros((THRESHOLDS, 2)), 0
    for i, image in enumerate(faces.images):
        rows, boxes, counted = found[image], faces.boxes_xywh[i], faces.counted[setting][i]
        faces_counted += int(counted.sum())
        if not len(boxes):
            continue
        scores = (rows[:, 4] - low) / (high - low)
        overlap = overlaps(rows[:, :4], boxes)
        taken = np.zeros(len(boxes))
        proposal = np.ones(len(rows))
        recalled = np.zeros(len(rows))
        for row in range(len(rows)):
            best = overlap[row].argmax()
            if overlap[row, best] >= IOU:
                if not counted[best]:
                    taken[best] = proposal[row] = -1
                elif taken[best] == 0:
                    taken[best] = 1
            recalled[row] = (taken == 1).sum()
        for step in range(THRESHOLDS):
            above = np.where(scores >= 1 - (step + 1) / THRESHOLDS)[0]
            if len(above):
                totals[step, 0] += (proposal[: above[-1] + 1] == 1).sum()
                totals[step, 1] += recalled[above[-1]]
    some = totals[:, 0] > 0
    return area_under(totals[some, 1] / faces_counted, totals[some, 1] / totals[some, 0])


def main() -> None:
    """Print times and the ratio."""
    values = arguments(__doc__, truth={"required": True, "type": Path, "metavar": "DIR", "help": "ground truth"})
    started = time.perf_counter()
    faces = read_ground_truth(values.truth)
    reading = time.perf_counter() - started
    found = detections(faces)
    started = time.perf_counter()
    ours = widerface_ap(faces, found, IOU).ap
    own = time.perf_counter() - started
    started = time.perf_counter()
    theirs = {setting: plain_ap(faces, found, setting) for setting in ours}
    plain = time.perf_counter() - started
    for setting, value in ours.items():
        print(f"{setting:<8}{value:.6f}  loops {theirs[setting]:.6f}")
        if abs(value - theirs[setting]) > 1e-9:
            raise SystemExit("the numbers differ")
    rows = sum(map(len, found.values()))
    print(f"ground truth read in {reading:.2f} s; {rows} detections scored in {own:.2f} s, by loops in {plain:.1f} s")
    finish(values.json, {"read_s": reading, "ours_s": own, "loops_s": plain}, {"widerface/loops": plain / own})


if __name__ == "__main__":
    main()
