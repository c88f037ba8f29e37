"""Rules about key points."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ctnet.data.box_form import MARGIN_PX
from ctnet.data.checks.entries import Tables
from ctnet.data.checks.findings import Finding, found
from ctnet.types import FACE

_FEW = 10  # objects that show left and right; fewer prove nothing


def check_keypoints(tables: Tables) -> Iterator[Finding]:
    """Yield findings about the key points of one split, none where it has none."""
    if tables.keypoints is None or tables.schema is None:
        return
    points, total = tables.keypoints, len(tables.keypoints)
    xy, seen = points[..., :2], points[..., 2]
    labelled = seen > 0
    beyond = ((xy < -MARGIN_PX) | (xy > tables.sizes_wh[:, None] + MARGIN_PX)).any(-1) & (tables.sizes_wh[:, :1] > 0)
    odd = ~np.isin(seen, (0, 1, 2))
    zero = labelled & (xy == 0).all(-1)
    yield from found("keypoints-visibility", tables.file, _words(tables, odd, seen), of=total)
    yield from found("keypoints-zero", tables.file, _words(tables, zero), of=total)
    yield from found("keypoints-outside", tables.file, _words(tables, labelled & beyond & ~zero), of=total)
    shows, swapped = _swapped(points, tables.schema.names)
    if shows.sum() >= _FEW and swapped.sum() * 2 > shows.sum():
        examples = [tables.where(int(i)) for i in np.flatnonzero(swapped)]
        yield from found("keypoints-mirrored", tables.file, examples, of=int(shows.sum()))


def _words(tables: Tables, flags: NDArray[np.bool_], values: NDArray[np.float32] | None = None) -> list[str]:
    """Return the words for each object with a flagged point, and the first such point's name and value."""
    assert tables.schema is not None
    words = []
    for index in np.flatnonzero(flags.any(1)):
        point = int(np.argmax(flags[index]))
        value = "" if values is None else f" has {values[index, point]:g}"
        words.append(f"{tables.where(int(index))}: {tables.schema.names[point]}{value}")
    return words


def _swapped(points: NDArray[np.float32], names: tuple[str, ...]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which objects (N,) show where left is, and which of them show it on the wrong side.

    A face's five landmarks are named by the sides of the image. The left eye of a person whose nose and eyes are
    visible, and who so faces the camera, is at the right of the other. Of other objects nothing is known.
    """
    face = set(names) == set(FACE.names)
    if not {"nose", "left_eye", "right_eye"} <= set(names):
        none = np.zeros(len(points), np.bool_)
        return none, none
    nose, left, right = (points[:, names.index(name)] for name in ("nose", "left_eye", "right_eye"))
    across, along = (left[:, :2] - right[:, :2]).T
    shows = (nose[:, 2] == 2) & (left[:, 2] == 2) & (right[:, 2] == 2) & (np.abs(across) > np.abs(along))
    return shows, shows & ((across > 0) if face else (across < 0))
