"""Drawn faces with five landmarks: tilted, turned, half hidden, small, and some without labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ctnet.data.layouts.keypoints import category_fields
from ctnet.data.scene import Drawn, Generator, apart, canvas, fill, finish, hidden_by, outline_box, soft_color
from ctnet.types import FACE

CATEGORIES = [{"id": 1, "name": "face", **category_fields(replace(FACE, sigmas=(0.05,) * 5))}]

_COUNTS = np.array([0.04, 0.2, 0.26, 0.22, 0.14, 0.14])
"""probability of 0, 1, ... 5 faces in an image"""
_SIDES = (0.075, 0.42)  # of a face's height, relative to the image's shorter side
_TILT, _TURN = 0.5, 0.42  # largest tilt in radians; largest sideways shift of features, in half widths
_UNLABELLED_BELOW = 24  # pixels of height; as in real sets, landmarks of small faces are not labelled
_UNLABELLED, _COVERED = 0.08, 0.25  # shares of other faces without labels, and of faces with something before them
_SKIN = ((196, 214, 243), (168, 196, 232), (120, 160, 210), (90, 125, 180), (62, 88, 135), (48, 66, 102))
_HAIR = ((24, 22, 26), (38, 52, 84), (60, 96, 150), (120, 185, 220), (150, 150, 152), (28, 44, 130))
_LANDMARKS = np.array([(-0.40, -0.16), (0.40, -0.16), (0.0, 0.16), (-0.28, 0.48), (0.28, 0.48)])
"""in half widths and half heights of the face"""


@dataclass(frozen=True)
class _Pose:
    """Where a face is: its middle, half width and half height in pixels, tilt in radians and sideways turn."""

    middle: NDArray[np.float64]
    half: NDArray[np.float64]
    tilt: float
    turn: float

    def place(self, points: NDArray[np.float64], depth: float = 1.0) -> NDArray[np.float64]:
        """Return points (N,2), in half sides of the face, in pixels; what is nearer to the viewer turns more."""
        narrowed = points * [1 - 0.25 * abs(self.turn), 1] + [depth * self.turn * 0.55, 0]
        cosine, sine = np.cos(self.tilt), np.sin(self.tilt)
        return np.asarray((narrowed * self.half) @ np.array([[cosine, sine], [-sine, cosine]]) + self.middle)


def render_faces(generator: Generator, size: tuple[int, int]) -> tuple[NDArray[np.uint8], list[Drawn]]:
    """Return an image of about (height, width) and its faces."""
    height, width = (round(side * generator.uniform(0.9, 1.1)) for side in size)
    image = canvas(generator, height, width)
    _clutter(generator, image)
    poses: list[_Pose] = []
    for _ in range(int(generator.choice(len(_COUNTS), p=_COUNTS))):
        for _ in range(12):
            tall = min(size) * _SIDES[0] * (_SIDES[1] / _SIDES[0]) ** generator.uniform()
            half = np.array([tall * generator.uniform(0.36, 0.43), tall / 2])
            middle = generator.uniform(half * 1.1, [width, height] - half * 1.1)
            pose = _Pose(middle, half, generator.uniform(-_TILT, _TILT), generator.uniform(-_TURN, _TURN))
            if apart(pose.middle, tall, [(p.middle, 2 * p.half[1]) for p in poses]):
                poses.append(pose)
                break
    drawn: list[Drawn] = []
    for pose in sorted(poses, key=lambda pose: pose.half[1]):
        before = image.copy()
        face = _draw_face(generator, image, pose)
        drawn = [*hidden_by((image != before).any(-1), drawn), face]
    return finish(generator, image), drawn


def _clutter(generator: Generator, image: NDArray[np.uint8]) -> None:
    """Draw soft discs and bars into the background, some of the colour of skin, so that a blob is no face."""
    height, width = image.shape[:2]
    for _ in range(int(generator.integers(2, 7))):
        middle = generator.uniform([0, 0], [width, height])
        radii = generator.uniform(8, 46, 2)
        color = soft_color(generator, _SKIN, 24) if generator.uniform() < 0.4 else generator.uniform(40, 220, 3)
        fill(image, _ellipse(middle, radii, generator.uniform(0, np.pi)), color)


def _draw_face(generator: Generator, image: NDArray[np.uint8], pose: _Pose) -> Drawn:
    skin, hair = soft_color(generator, _SKIN, 10), soft_color(generator, _HAIR, 8)
    fill(image, pose.place(_ellipse((0, 1.5), (1.15, 0.62)), 0.2), generator.uniform(30, 220, 3))  # shoulders
    fill(image, pose.place(_ellipse((0, 0.95), (0.42, 0.42)), 0.3), skin * 0.82)  # neck
    long = generator.uniform() < 0.45
    fill(image, pose.place(_ellipse((0, 0.1 if long else -0.22), (1.13, 1.22 if long else 0.92)), 0), hair)
    head = pose.place(_ellipse((0, 0), (1, 1)), 0.15)
    fill(image, head, skin)
    fill(image, pose.place(_fringe(generator), 0.35), hair)
    eyes, nose, mouth = _features(generator, image, pose, skin)
    points = np.column_stack([np.concatenate([eyes, nose, mouth]), np.full(5, 2.0)])
    if generator.uniform() < _COVERED:
        _cover(generator, image, pose, points)
    box = outline_box(head, image.shape)
    tall = 2 * pose.half[1]
    if tall < _UNLABELLED_BELOW or generator.uniform() < _UNLABELLED:
        points[:] = 0
    return Drawn(1, box, float(box[2] * box[3]), points)


def _features(
    generator: Generator, image: NDArray[np.uint8], pose: _Pose, skin: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Draw eyes, brows, nose and mouth; return the eyes (2,2), the tip of the nose (1,2), the mouth's corners (2,2)."""
    marks = _LANDMARKS + generator.uniform(-0.03, 0.03, (1, 2))
    iris = soft_color(generator, ((90, 60, 40), (40, 60, 90), (70, 110, 70), (140, 110, 60)), 12)
    open_ = generator.uniform(0.6, 1.0)
    for x, y in marks[:2]:
        fill(image, pose.place(_ellipse((x, y), (0.2, 0.11 * open_)), 0.9), np.array([245.0, 245, 245]))
        fill(image, pose.place(_ellipse((x, y), (0.09, 0.105 * open_)), 0.9), iris * 0.5)
        brow = _ellipse((x, y - 0.22), (0.24, 0.05))
        fill(image, pose.place(brow, 0.8), skin * 0.35)
    nose = np.array([(-0.02, -0.1), (0.13, 0.17), (0.0, 0.23), (-0.13, 0.17)]) + np.array([0, marks[2, 1] - 0.16])
    fill(image, pose.place(nose, 1.25), skin * 0.78)
    lip = generator.uniform(0.05, 0.15)
    (left, y), (right, _) = marks[3:]
    fill(
        image, pose.place(_ellipse(((left + right) / 2, y), ((right - left) / 2, lip)), 0.9), np.array([70.0, 60, 165])
    )
    if lip > 0.11:
        white = _ellipse(((left + right) / 2, y - 0.02), ((right - left) / 2.6, lip * 0.4))
        fill(image, pose.place(white, 0.9), np.array([240.0, 240, 240]))
    return pose.place(marks[:2], 0.9), pose.place(marks[2:3], 1.25), pose.place(marks[3:], 0.9)


def _fringe(generator: Generator) -> NDArray[np.float64]:
    """Return the outline of hair on the forehead."""
    angles = np.linspace(np.pi * 1.06, np.pi * 1.94, 16)
    low = generator.uniform(-0.62, -0.42)
    rim = np.stack([np.cos(angles) * 1.02, np.sin(angles) * 1.02], 1)
    return np.concatenate([rim, [[0.55, low - 0.1], [generator.uniform(-0.3, 0.3), low], [-0.55, low - 0.1]]])


def _cover(generator: Generator, image: NDArray[np.uint8], pose: _Pose, points: NDArray[np.float64]) -> None:
    """Draw glasses, a mask, or a bar from one side before the face; landmarks under it become hidden."""
    kind = generator.choice(3)
    if kind == 0:
        dark = generator.uniform(10, 60, 3)
        for x in (-0.4, 0.4):
            fill(image, pose.place(_ellipse((x, -0.15), (0.3, 0.2)), 0.95), dark)
        fill(image, pose.place(np.array([(-0.2, -0.2), (0.2, -0.2), (0.2, -0.13), (-0.2, -0.13)]), 0.95), dark)
        hidden = [0, 1]
    elif kind == 1:
        mask = np.array([(-0.82, 0.1), (0, 0.02), (0.82, 0.1), (0.62, 0.75), (0, 0.98), (-0.62, 0.75)])
        fill(image, pose.place(mask, 0.6), soft_color(generator, ((230, 220, 170), (235, 235, 235), (60, 60, 60)), 10))
        hidden = [2, 3, 4]
    else:
        side = generator.choice((-1.0, 1.0))
        bar = np.array([(0.18, -1.3), (1.5, -1.3), (1.5, 1.6), (0.18, 1.6)]) * [side, 1]
        fill(image, pose.place(bar, 0.5), generator.uniform(30, 220, 3))
        hidden = [0, 3] if side < 0 else [1, 4]
    points[hidden, 2] = 1


def _ellipse(
    middle: tuple[float, float] | NDArray[np.float64],
    radii: tuple[float, float] | NDArray[np.float64],
    turn: float = 0.0,
) -> NDArray[np.float64]:
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    points = np.stack([radii[0] * np.cos(angles), radii[1] * np.sin(angles)], 1)
    cosine, sine = np.cos(turn), np.sin(turn)
    return np.asarray(points @ np.array([[cosine, sine], [-sine, cosine]]) + middle)
