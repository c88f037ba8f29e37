"""Drawn figures of jointed limbs with 8 to 17 labelled joints, which face the viewer."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ctnet.data.layouts.keypoints import category_fields, part_of_person
from ctnet.data.scene import Drawn, Generator, apart, canvas, fill, finish, hidden_by, outline_box, soft_color
from ctnet.types import PERSON

JOINTS = range(8, 18)
"""how many joints a set may label; an odd number includes the nose"""
DEFAULT_JOINTS = 13
_PAIRS = ("shoulder", "wrist", "hip", "ankle", "elbow", "knee", "eye", "ear")
"""in the order in which more joints are labelled"""
_COUNTS = np.array([0.03, 0.45, 0.35, 0.17])
"""probability of 0, 1, 2, 3 figures in an image"""
_HEIGHTS = (0.42, 0.9)  # of a standing figure, relative to the image's shorter side
_LEAN = 0.3  # largest lean in radians
_UNLABELLED = 0.04  # share of joints without a label
_SKIN = ((170, 200, 235), (130, 170, 215), (80, 115, 165), (58, 78, 118))
_SHIRT = ((60, 60, 200), (190, 110, 40), (60, 150, 60), (40, 170, 230), (170, 60, 150), (220, 220, 220))
_TROUSERS = ((90, 60, 40), (50, 50, 55), (110, 130, 150), (60, 90, 60))


def joint_names(joints: int = DEFAULT_JOINTS) -> tuple[str, ...]:
    """Return the names of so many joints, in COCO's order."""
    chosen = {f"{side}_{name}" for name in _PAIRS[: joints // 2] for side in ("left", "right")}
    return tuple(name for name in PERSON.names if name in chosen or (name == "nose" and joints % 2))


def categories(joints: int = DEFAULT_JOINTS) -> list[dict[str, Any]]:
    """Return the category of a set that labels so many joints."""
    return [{"id": 1, "name": "person", **category_fields(part_of_person(joint_names(joints)))}]


class _Limb(NamedTuple):
    """A limb: its ends (pixels), its half width at each, and its kind."""

    start: str
    end: str
    wide: float
    narrow: float
    part: str


_LIMBS = (
    *(_Limb(f"{side}_hip", f"{side}_knee", 0.052, 0.042, "legs") for side in ("left", "right")),
    *(_Limb(f"{side}_knee", f"{side}_ankle", 0.042, 0.03, "shins") for side in ("left", "right")),
    *(_Limb(f"{side}_shoulder", f"{side}_elbow", 0.04, 0.033, "sleeves") for side in ("left", "right")),
    *(_Limb(f"{side}_elbow", f"{side}_wrist", 0.032, 0.024, "skin") for side in ("left", "right")),
)
"""half widths relative to the figure's height"""


def render_figures(
    generator: Generator, size: tuple[int, int], joints: int = DEFAULT_JOINTS
) -> tuple[NDArray[np.uint8], list[Drawn]]:
    """Return an image of about (height, width) and its figures, with so many joints labelled."""
    height, width = (round(side * generator.uniform(0.9, 1.1)) for side in size)
    image = canvas(generator, height, width)
    _clutter(generator, image)
    placed: list[tuple[NDArray[np.float64], float]] = []
    drawn: list[Drawn] = []
    for _ in range(int(generator.choice(len(_COUNTS), p=_COUNTS))):
        for _ in range(20):
            tall = min(size) * _HEIGHTS[0] * (_HEIGHTS[1] / _HEIGHTS[0]) ** generator.uniform()
            body = _body(generator, tall)
            low, high = np.array([*body.values()]).min(0), np.array([*body.values()]).max(0)
            room = np.array([width, height]) - (high - low)
            if (room < 0.12 * tall).any():
                continue
            shift = generator.uniform(0.06 * tall, room - 0.06 * tall) - low
            middle = (low + high) / 2 + shift
            if apart(middle, tall, placed, 0.55):
                placed.append((middle, tall))
                there = {name: point + shift for name, point in body.items()}
                mask, one = _draw(generator, image, there, tall, joint_names(joints))
                drawn = [*hidden_by(mask, drawn), one]
                break
    return finish(generator, image), drawn


def _body(generator: Generator, tall: float) -> dict[str, NDArray[np.float64]]:
    """Return the joints of a figure of that height in pixels, its hips' middle at the origin, y downwards."""
    lean = generator.uniform(-_LEAN, _LEAN)
    along = np.array([np.sin(lean), -np.cos(lean)])  # from the hips to the head
    across = np.array([-along[1], along[0]])  # to the figure's left, the right of the image
    joints = {"neck": 0.3 * along, "nose": 0.395 * along, "top": 0.5 * along}
    for sign, side in ((1, "left"), (-1, "right")):
        joints[f"{side}_shoulder"] = 0.285 * along + sign * 0.105 * across
        joints[f"{side}_hip"] = sign * 0.06 * across
        joints[f"{side}_eye"] = 0.42 * along + sign * 0.024 * across
        joints[f"{side}_ear"] = 0.405 * along + sign * 0.058 * across
        arm = generator.uniform(0.15, 2.5)  # from hanging to raised, away from the body
        fore = arm + generator.uniform(-0.3, 1.2)
        leg = generator.uniform(0.0, 0.55)
        shin = leg + generator.uniform(-0.75, 0.2)
        for start, end, angle, length in (
            ("shoulder", "elbow", arm, 0.165), ("elbow", "wrist", fore, 0.15),
            ("hip", "knee", leg, 0.24), ("knee", "ankle", shin, 0.24),
        ):  # fmt: skip
            outwards = np.sin(angle) * sign * across - np.cos(angle) * along
            joints[f"{side}_{end}"] = joints[f"{side}_{start}"] + length * outwards
    return {name: tall * point for name, point in joints.items()}


def _draw(
    generator: Generator,
    image: NDArray[np.uint8],
    at: dict[str, NDArray[np.float64]],
    tall: float,
    names: tuple[str, ...],
) -> tuple[NDArray[np.bool_], Drawn]:
    """Draw a figure; return its mask (H,W) and the object."""
    skin, shirt = soft_color(generator, _SKIN, 10), soft_color(generator, _SHIRT, 18)
    legs = soft_color(generator, _TROUSERS, 12)
    bare = generator.uniform(size=2) < 0.3
    colors = {
        "skin": skin,
        "legs": legs,
        "shins": skin if bare[0] else legs * 0.92,
        "sleeves": skin if bare[1] else shirt * 0.9,
    }
    mask = np.zeros(image.shape, np.uint8)
    shapes = [
        (_limb(at[limb.start], at[limb.end], tall * limb.wide, tall * limb.narrow), colors[limb.part])
        for limb in _LIMBS
    ]
    for side in ("left", "right"):
        shapes.append((_disc(at[f"{side}_ankle"] + [0, 0.012 * tall], 0.034 * tall), np.array([40.0, 40, 45])))
        shapes.append((_disc(at[f"{side}_wrist"], 0.028 * tall), skin))
    corners = ("left_shoulder", "right_shoulder", "right_hip", "left_hip")
    torso = np.array([at[name] for name in corners])
    wide = torso.mean(0) + (torso - torso.mean(0)) * [1.12, 1.06]
    head = _limb(
        at["nose"] + (at["top"] - at["nose"]) * 0.45,
        at["nose"] - (at["top"] - at["nose"]) * 0.3,
        0.064 * tall,
        0.05 * tall,
    )
    parts = [
        *shapes[:4],
        (wide, shirt),
        (_limb(at["neck"], at["nose"], 0.03 * tall, 0.03 * tall), skin * 0.85),
        *shapes[4:],
    ]
    parts += [(head, skin), *_face(generator, at, tall)]
    for outline, color in parts:
        fill(image, outline, color)
        fill(mask, outline, np.array([255.0, 255, 255]))
    seen = mask[..., 0] > 127
    points = np.array([[*at[name], 2.0] for name in names])
    points[generator.uniform(size=len(points)) < _UNLABELLED] = 0
    box = outline_box(np.argwhere(seen)[:, ::-1].astype(np.float64), image.shape)
    return seen, Drawn(1, box, float(seen.sum()), points)


def _face(
    generator: Generator, at: dict[str, NDArray[np.float64]], tall: float
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    up = (at["top"] - at["nose"]) / np.linalg.norm(at["top"] - at["nose"])
    hair = soft_color(generator, ((25, 25, 30), (50, 75, 110), (120, 180, 215)), 10)
    cap = _limb(at["top"] - up * 0.012 * tall, at["top"] - up * 0.035 * tall, 0.05 * tall, 0.062 * tall)
    dark = np.array([30.0, 25, 25])
    eyes = [(_disc(at[f"{side}_eye"], max(1.0, 0.011 * tall)), dark) for side in ("left", "right")]
    smile = (at["left_eye"] - at["right_eye"]) * 0.35
    chin = at["nose"] - up * 0.03 * tall
    mouth = _limb(chin - smile, chin + smile, 0.007 * tall, 0.007 * tall)
    return [
        (cap, hair),
        *eyes,
        (_disc(at["nose"], max(1.0, 0.012 * tall)), np.array([70.0, 90, 190])),
        (mouth, np.array([60.0, 50, 150])),
    ]


def _clutter(generator: Generator, image: NDArray[np.uint8]) -> None:
    """Draw bars and discs into the background, so that a limb alone is no figure."""
    height, width = image.shape[:2]
    for _ in range(int(generator.integers(2, 7))):
        start = generator.uniform([0, 0], [width, height])
        end = start + generator.uniform(-90, 90, 2)
        wide = generator.uniform(3, 14)
        fill(image, _limb(start, end, wide, wide), soft_color(generator, (*_SKIN, *_SHIRT, *_TROUSERS), 30))


def _limb(start: NDArray[np.float64], end: NDArray[np.float64], wide: float, narrow: float) -> NDArray[np.float64]:
    """Return the outline of a limb with round ends."""
    both = np.concatenate([_disc(start, wide), _disc(end, narrow)]).astype(np.float32)
    return np.asarray(cv2.convexHull(both)[:, 0], np.float64)


def _disc(middle: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    return np.asarray(middle + radius * np.stack([np.cos(angles), np.sin(angles)], 1))
