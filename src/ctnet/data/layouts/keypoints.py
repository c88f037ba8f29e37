"""Key points in annotation files: what they are called, which are left and right, and the numbers of one object."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ctnet.types import FACE, PERSON, AnnotationSet, Float32, KeypointSchema

_LARGEST = 1e9
_SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}


def schema_of(
    names: Sequence[str], skeleton: Iterable[Sequence[int]] = (), sigmas: Sequence[float] | None = None
) -> KeypointSchema:
    """Return the schema of points with these names; names that differ in left and right alone are pairs.

    Points that are all COCO's points of a person have COCO's sigmas unless others are given.
    """
    if sigmas is None and PERSON.sigmas and set(names) <= set(PERSON.names):
        sigmas = [PERSON.sigmas[PERSON.names.index(name)] for name in names]
    joined = tuple((int(a), int(b)) for a, b in skeleton)
    return KeypointSchema(
        tuple(names), flip_pairs(names), joined, None if sigmas is None else tuple(map(float, sigmas))
    )


def part_of_person(names: Sequence[str]) -> KeypointSchema:
    """Return the schema of those of COCO's points of a person that have these names, in that order."""
    places = {PERSON.names.index(name): place for place, name in enumerate(names)}
    joined = [(places[a], places[b]) for a, b in PERSON.skeleton if a in places and b in places]
    return schema_of(names, joined)


def unnamed_schema(count: int, category: str = "", mirrored: Sequence[int] | None = None) -> KeypointSchema:
    """Return the schema of so many points whose file gives no names.

    Those of a person or a face are known by the name of the category or by `mirrored`, which is for each point the
    index of the one that a mirror image puts in its place; else points are called `point 1`, `point 2`, ...
    """
    for known, word in ((PERSON, "person"), (FACE, "face")):
        fits = category.strip().casefold() == word or (mirrored is not None and list(mirrored) == known.mirrored())
        if len(known.names) == count and fits:
            return known
    return KeypointSchema(tuple(f"point {number}" for number in range(1, count + 1)))


def flip_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Return the indices of points whose names differ in left and right alone: left_eye, LeftEye, eye.L, l-eye, ..."""
    places = {_words(name): place for place, name in enumerate(names)}
    pairs = set()
    for words, place in places.items():
        for at, word in enumerate(words):
            other = places.get((*words[:at], _SIDES.get(word, ""), *words[at + 1 :]))
            if other is not None:
                pairs.add((place, other) if word in ("left", "l") else (other, place))
    return tuple(sorted(pairs))


def _words(name: str) -> tuple[str, ...]:
    """Return the words of a name in lower case; a left or right that begins or ends it is one of them."""
    apart = re.sub(r"(?i)^(left|right)|(left|right)$", lambda found: f" {found.group()} ", name)
    return tuple(word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+|\d+", apart))


def pairs_of(mirrored: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return the pairs of points that a mirror image swaps. Raises ValueError unless the list swaps points in pairs."""
    if sorted(mirrored) != list(range(len(mirrored))) or any(mirrored[j] != i for i, j in enumerate(mirrored)):
        raise ValueError("for each point the index of the one that takes its place in a mirror image")
    return tuple((i, j) for i, j in enumerate(mirrored) if i < j)


def read_points(value: object) -> Float32 | None:
    """Return the points (P,3) of COCO's `keypoints`, None when the value is not three finite numbers a point."""
    if not isinstance(value, list) or len(value) % 3:
        return None
    if not all(type(v) in (int, float) and -_LARGEST < v < _LARGEST for v in value):
        return None
    return np.array(value, np.float32).reshape(-1, 3)


def stacked_points(points: Sequence[Float32 | None], schema: KeypointSchema | None) -> Float32 | None:
    """Return the points (N,P,3) of objects, those of one without any not labelled; None without a schema."""
    if schema is None:
        return None
    without = np.zeros((len(schema.names), 3), np.float32)
    return np.array([without if rows is None else rows for rows in points], np.float32).reshape(-1, *without.shape)


def read_category(entry: Mapping[str, Any]) -> KeypointSchema | None:
    """Return the schema that a category of COCO describes, None without points. Raises ValueError.

    `skeleton` counts points from 1, as in COCO; so does `flip_pairs`, which like `sigmas`, one a point, is ctnet's own
    and may be absent.
    """
    names = entry.get("keypoints")
    if not names:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"keypoints: a list of names, got {names!r:.80}")
    if len(set(names)) < len(names):
        raise ValueError("keypoints: each name once")
    edges = {}
    for key in ("skeleton", "flip_pairs"):
        edges[key] = entry.get(key) or []
        if not isinstance(edges[key], list) or not all(_is_edge(edge, len(names)) for edge in edges[key]):
            raise ValueError(f"{key}: pairs of the numbers 1 to {len(names)}")
    swapped = [end for edge in edges["flip_pairs"] for end in edge]
    if len(set(swapped)) < len(swapped):
        raise ValueError("flip_pairs: each point at most once")
    sigmas = entry.get("sigmas")
    if sigmas is not None and not (
        isinstance(sigmas, list)
        and len(sigmas) == len(names)
        and all(type(v) in (int, float) and 0 < v < _LARGEST for v in sigmas)
    ):
        raise ValueError("sigmas: a positive number for each point")
    schema = schema_of(names, [(a - 1, b - 1) for a, b in edges["skeleton"]], sigmas)
    pairs = tuple((a - 1, b - 1) for a, b in edges["flip_pairs"])
    return replace(schema, flip_pairs=pairs) if pairs else schema


def _is_edge(edge: object, count: int) -> bool:
    return isinstance(edge, list) and len(edge) == 2 and all(type(end) is int and 1 <= end <= count for end in edge)


def category_fields(schema: KeypointSchema) -> dict[str, Any]:
    """Return what `read_category` reads."""
    sigmas = {} if schema.sigmas is None else {"sigmas": list(schema.sigmas)}
    named = flip_pairs(schema.names) == schema.flip_pairs
    pairs = {} if named else {"flip_pairs": [[a + 1, b + 1] for a, b in schema.flip_pairs]}
    skeleton = [[a + 1, b + 1] for a, b in schema.skeleton]
    return {"keypoints": list(schema.names), "skeleton": skeleton, **pairs, **sigmas}


def annotation_fields(points: Float32) -> dict[str, Any]:
    """Return the fields of COCO for the points (P,3) of one object; visibilities are whole numbers."""
    rows = points.astype(np.float64).round(3)
    flat = [number for x, y, v in rows.tolist() for number in (x, y, int(v) if v == int(v) else v)]
    return {"keypoints": flat, "num_keypoints": int((points[:, 2] > 0).sum())}


def keypoint_notes(schema: KeypointSchema | None) -> tuple[str, ...]:
    """Return what is doubtful about key points: those without names keep their places in a mirror image."""
    if schema is None or schema.flip_pairs or schema.names[0] != unnamed_schema(1).names[0]:
        return ()
    return (
        f"{len(schema.names)} key points without names, so each keeps its place in a mirror image: name left and right "
        "ones in the category (COCO), give flip_idx (YOLO), or train with augment.flip=0",
    )


def labels_with_points(annotation_set: AnnotationSet) -> set[int]:
    """Return the labels of objects with a labelled point; all of the set's where it has key points and labels none."""
    if annotation_set.keypoints is None:
        return set()
    found: set[int] = set()
    for image in annotation_set.images:
        if image.keypoints is not None:
            found.update(image.labels[(image.keypoints[..., 2] > 0).any(1)].tolist())
    return found or set(range(len(annotation_set.categories)))
