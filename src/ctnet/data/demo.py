"""Seeded sets of drawings with exact boxes, of shapes, faces or figures: training data for a first run."""

from __future__ import annotations

import colorsys
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ctnet.data import demo_faces, demo_figures
from ctnet.data.demo_figures import DEFAULT_JOINTS, JOINTS, render_figures
from ctnet.data.image import Image, write_image
from ctnet.data.layouts.coco import write_coco_json
from ctnet.data.layouts.keypoints import annotation_fields
from ctnet.data.scene import Drawn, Generator, background, finish
from ctnet.errors import ConfigError, StorageError, nearest
from ctnet.files import cache_folder

CATEGORIES = {1: "disc", 2: "square", 3: "triangle", 5: "star", 8: "ring", 13: "cross"}
"""ids have holes, as those of real sets do"""

_MOST_HIDDEN = 0.15
_OBJECTS = np.array([0.05, 0.05, 0.15, 0.25, 0.25, 0.15, 0.1])
"""probability of 0, 1, ... 6 objects in an image"""
_TURN = 0.3
"""largest angle by which a shape is turned, in radians; the box of a turned square is no measure of its side"""
_HUES = {category_id: 360 * i / len(CATEGORIES) for i, category_id in enumerate(CATEGORIES)}
"""degrees; colours of one kind stay within `_HUE_SPREAD` of it, so that minutes on a CPU suffice to learn the kinds"""
_HUE_SPREAD = 24

Mask = NDArray[np.bool_]


KINDS = ("shapes", "faces", "pose")
_DEMO = "demo:"  # before a kind, in place of a path
Render = Callable[[Generator, tuple[int, int]], tuple[Image, list[Drawn]]]


class Demo(NamedTuple):
    """A kind of demo set: COCO's categories, what draws an image of about a size, and the name of the cached folder."""

    categories: Sequence[Mapping[str, Any]]
    render: Render
    cached: str


def demo_of(kind: str = "shapes", joints: int | None = None) -> Demo:
    """Return the demo set `shapes`, `faces` or `pose`, the last with so many joints. Raises ConfigError."""
    if kind not in KINDS:
        raise ConfigError(f"no demo set is called {kind!r}", expected=" or ".join(KINDS), nearest=nearest(kind, KINDS))
    if joints is not None and (kind != "pose" or joints not in JOINTS):
        raise ConfigError(
            "joints are those of the demo set pose", got=joints, expected=f"{JOINTS.start} to {JOINTS.stop - 1}"
        )
    if kind == "faces":
        return Demo(demo_faces.CATEGORIES, demo_faces.render_faces, "demo-faces-v1")
    if kind == "pose":
        count = joints or DEFAULT_JOINTS
        return Demo(demo_figures.categories(count), partial(render_figures, joints=count), "demo-pose-v1")
    return Demo([{"id": i, "name": name} for i, name in CATEGORIES.items()], _render, "demo-v2")


def write_demo(
    folder: Path,
    images_train: int = 360,
    images_val: int = 80,
    seed: int = 0,
    size: tuple[int, int] = (288, 288),
    demo: Demo | None = None,
) -> Path:
    """Render train and val in COCO layout into `folder` and return it; the same seed gives the same images.

    `size` is the middle (height, width): sides vary by a tenth either way. A box covers its whole object, also
    what another one hides. Raises StorageError.
    """
    demo = demo or demo_of()
    next_annotation = 1
    for number, (split, count) in enumerate((("train", images_train), ("val", images_val))):
        images, annotations = [], []
        for index in range(count):
            generator = np.random.default_rng([seed, number, index])
            image, objects = demo.render(generator, size)
            name = f"{split}_{index:05d}.jpg"
            write_image(folder / "images" / split / name, image)
            image_id = number * images_train + index + 1
            height, width = image.shape[:2]
            images.append({"id": image_id, "file_name": name, "width": width, "height": height})
            for category_id, box, area, points in objects:
                annotations.append(
                    {
                        "id": next_annotation,
                        "image_id": image_id,
                        "category_id": category_id,
                        "bbox": list(box),
                        "area": area,
                        "iscrowd": 0,
                        **({} if points is None else annotation_fields(points.astype(np.float32))),
                    }
                )
                next_annotation += 1
        content = {"images": images, "annotations": annotations, "categories": demo.categories}
        write_coco_json(content, folder / "annotations" / f"instances_{split}.json")
    return folder


def data_or_demo(path: str | Path | None) -> Path:
    """Return the path of a data set: the one given, that of the demo set `demo:KIND`, or the shapes without any.

    A relative path that does not exist here is looked for in the folder that `DETECTRON2_DATASETS` names, as by
    detectron2. Raises StorageError, and ConfigError for a kind that there is none of.
    """
    kind = str(path)[len(_DEMO) :] if path and str(path).startswith(_DEMO) else None
    if not path or kind is not None:
        return demo_folder(kind or "shapes")
    here, elsewhere = Path(path).expanduser(), os.environ.get("DETECTRON2_DATASETS")
    if elsewhere and not here.is_absolute() and not here.exists():
        there = Path(elsewhere).expanduser() / here
        return there if there.exists() else here
    return here


def demo_folder(kind: str = "shapes") -> Path:
    """Return the folder of a default demo set, rendered on first use. Raises StorageError.

    Processes may race for it: each renders aside, the first to finish wins.
    """
    demo = demo_of(kind)
    folder = cache_folder() / demo.cached
    if (folder / "annotations" / "instances_val.json").is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".demo-", dir=folder.parent))
    except OSError as error:
        raise StorageError(
            "cannot make the demo set", folder=folder.parent, got=error.strerror, hint="set CTNET_HOME"
        ) from None
    try:
        write_demo(aside / "demo", demo=demo)
        (aside / "demo").rename(folder)
    except OSError as error:
        if not folder.is_dir():
            raise StorageError("cannot make the demo set", folder=folder, got=error.strerror) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _render(generator: Generator, size: tuple[int, int]) -> tuple[Image, list[Drawn]]:
    """Return an image of shapes and its objects."""
    height, width = (round(side * generator.uniform(0.9, 1.1)) for side in size)
    image = background(generator, height, width)
    drawn: list[Drawn] = []
    shapes: list[Mask] = []
    visible: list[Mask] = []
    for _ in range(int(generator.choice(len(_OBJECTS), p=_OBJECTS))):
        placed = _place(generator, (height, width), shapes, visible)
        if placed is None:
            continue
        category_id, mask = placed
        visible = [earlier & ~mask for earlier in visible] + [mask]
        shapes.append(mask)
        _paint(generator, image, mask, _HUES[category_id])
        x, y, box_width, box_height = cv2.boundingRect(mask.astype(np.uint8))
        drawn.append(Drawn(category_id, (x, y, box_width, box_height), box_width * box_height))
    return finish(generator, image), drawn


def _place(
    generator: Generator, size: tuple[int, int], shapes: list[Mask], visible: list[Mask]
) -> tuple[int, Mask] | None:
    """Return (category id, mask) of one more shape that hides no earlier one too much, or None without room.

    Sizes are even on a logarithmic scale, so that small, medium and large ones are about as frequent.
    """
    height, width = size
    for _ in range(12):
        category_id = int(generator.choice(list(CATEGORIES)))
        side = min(size) * 0.3 * (0.56 / 0.3) ** generator.uniform()
        half = side / 2 + 1
        centre = generator.uniform(half, width - half), generator.uniform(half, height - half)
        mask = _shape(generator, CATEGORIES[category_id], size, centre, side)
        free = all(
            (seen & ~mask).sum() >= (1 - _MOST_HIDDEN) * whole.sum()
            for seen, whole in zip(visible, shapes, strict=True)
        )
        if free and _centres_apart(mask, shapes):
            return category_id, mask
    return None


def _centres_apart(mask: Mask, others: list[Mask]) -> bool:
    """Return whether the new shape's middle is clear of the others' by a quarter of the smaller one's side."""
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    for other in others:
        ox, oy, ow, oh = cv2.boundingRect(other.astype(np.uint8))
        distance = np.hypot(x + w / 2 - ox - ow / 2, y + h / 2 - oy - oh / 2)
        if distance < max(12, 0.25 * min(max(w, h), max(ow, oh))):
            return False
    return True


def _shape(generator: Generator, name: str, size: tuple[int, int], centre: tuple[float, float], side: float) -> Mask:
    """Return the (H,W) mask of a shape, turned a little and narrower in one direction."""
    turn = generator.uniform(-_TURN, _TURN)
    stretch = np.array([1.0, generator.uniform(0.75, 1.0)])[generator.permutation(2)]
    mask = np.zeros(size, np.uint8)

    def fill(outline: NDArray[np.float64], value: int) -> None:
        points = outline * stretch * side / 2 + centre
        cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], value, cv2.LINE_8, 4)

    fill(_outline(name, turn), 1)
    if name == "ring":
        fill(0.55 * _outline("disc", 0.0), 0)
    return mask.astype(bool)


def _outline(name: str, turn: float) -> NDArray[np.float64]:
    """Return the corners (P,2) of a shape within the unit circle, turned by an angle."""
    if name in ("disc", "ring"):
        return _on_circle(np.ones(48), 0.0)
    if name == "square":
        return _on_circle(np.ones(4), turn + np.pi / 4)
    if name == "triangle":
        return _on_circle(np.ones(3), turn - np.pi / 2)
    if name == "star":
        return _on_circle(np.tile([1.0, 0.42], 5), turn - np.pi / 2)
    arm, reach = 0.28, 0.96
    corner = np.array([[reach, -arm], [reach, arm], [arm, arm]])
    quarter = np.array([[0.0, 1.0], [-1.0, 0.0]])
    cross = np.concatenate([corner @ np.linalg.matrix_power(quarter, k) for k in range(4)])
    cosine, sine = np.cos(turn), np.sin(turn)
    return np.asarray(cross @ np.array([[cosine, sine], [-sine, cosine]]))


def _on_circle(radii: NDArray[np.float64], turn: float) -> NDArray[np.float64]:
    angles = turn + 2 * np.pi * np.arange(len(radii)) / len(radii)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _paint(generator: Generator, image: NDArray[np.float32], mask: Mask, hue: float) -> None:
    """Fill the mask in place with a colour of about that hue, unlike what lies below, shaded and sometimes striped."""
    below = image[mask].mean(axis=0)
    for _ in range(20):
        color = _color(hue + generator.uniform(-_HUE_SPREAD, _HUE_SPREAD), *generator.uniform(0.6, 1.0, 2))
        if np.abs(color - below).max() >= 90:
            break
    rows, columns = np.nonzero(mask)
    angle = generator.uniform(0, 2 * np.pi)
    along = (columns - columns.mean()) * np.cos(angle) + (rows - rows.mean()) * np.sin(angle)
    shade = generator.uniform(0, 22) * along / max(1.0, float(np.abs(along).max()))
    if generator.uniform() < 0.25:
        shade = shade + 16 * np.sin(along * 2 * np.pi / generator.uniform(6, 14))
    image[mask] = color + shade[:, None]


def _color(hue: float, saturation: float, value: float) -> NDArray[np.float64]:
    """Return BGR (3,) in 0..255 of a hue in degrees."""
    red, green, blue = colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value)
    return 255 * np.array([blue, green, red])
