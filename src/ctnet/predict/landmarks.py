"""What the landmarks of a face say: its turn in the image, and the crop in which all faces are alike."""

from __future__ import annotations

import cv2
import numpy as np

from ctnet.data.image import Image
from ctnet.types import Float32, KeypointSchema

CROP_SIDE = 112
_TEMPLATE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)], np.float64
)
"""where eyes, nose and corners of the mouth lie in crops of 112 x 112 pixels, on which networks that recognise faces
are trained (Deng et al., ArcFace, 2019)"""
_EYES = ("left_eye", "right_eye")


def turns_of(keypoints: Float32 | None, schema: KeypointSchema | None) -> Float32 | None:
    """Return the angle in degrees, clockwise from upright, of each object (N,) with key points (N,P,2), from its eyes.

    An angle is from -90 to 90, for the order of the eyes is not the same in all data sets. None for objects without
    eyes; five points without names are those of a face.
    """
    if keypoints is None:
        return None
    if schema is not None and set(_EYES) <= set(schema.names):
        first, second = (schema.names.index(name) for name in _EYES)
    elif schema is None and keypoints.shape[1] == len(_TEMPLATE):
        first, second = 0, 1
    else:
        return None
    x, y = np.moveaxis(keypoints[:, second] - keypoints[:, first], -1, 0).astype(np.float64)
    angles = np.degrees(np.arctan2(y, x))
    return np.asarray(np.where(np.isfinite(angles), (angles + 90) % 180 - 90, 0), np.float32)


def has_face_landmarks(keypoints: Float32 | None, schema: KeypointSchema | None) -> bool:
    """Return whether objects have the five points of a face: eyes, nose and the corners of the mouth, in this order."""
    if keypoints is None or keypoints.shape[1] != len(_TEMPLATE):
        return False
    return schema is None or (schema.names[:2] == _EYES and "nose" in schema.names[2])


def aligned_crop(image_bgr: Image, landmarks: Float32) -> Image | None:
    """Return the face as (112,112,3), its landmarks (5,2) laid onto those of all crops; black where the image ends.

    The similarity (scale, rotation, shift) is that of the least squares (Umeyama, 1991). None for landmarks that fall
    into a point.
    """
    points = landmarks.astype(np.float64)
    centre, target = points.mean(0), _TEMPLATE.mean(0)
    from_points, to_points = points - centre, _TEMPLATE - target
    spread = float((from_points**2).sum())
    if not np.isfinite(spread) or spread < 1e-3:
        return None
    along = float((from_points * to_points).sum()) / spread
    across = float((from_points[:, 0] * to_points[:, 1] - from_points[:, 1] * to_points[:, 0]).sum()) / spread
    matrix = np.array([[along, -across], [across, along]])
    image, scale = image_bgr, float(np.hypot(along, across))
    if scale == 0:
        return None
    if scale < 0.5:  # a warp reads four pixels, so a large face is reduced first
        reach = np.ceil(CROP_SIDE / scale)
        low = np.maximum(np.floor(centre - reach), 0).astype(int)
        high = np.minimum(np.ceil(centre + reach), image.shape[1::-1]).astype(int)
        if (high - low < 1).any():
            return None
        image = image[low[1] : high[1], low[0] : high[0]]
        size = np.maximum(np.round((high - low) * 2 * scale), 1).astype(int)
        shrink = size / (high - low)
        image = np.asarray(cv2.resize(image, (int(size[0]), int(size[1])), interpolation=cv2.INTER_AREA), np.uint8)
        centre, matrix = (centre - low) * shrink, matrix / shrink
    affine = np.hstack([matrix, (target - matrix @ centre)[:, None]])
    return np.asarray(cv2.warpAffine(image, affine, (CROP_SIDE, CROP_SIDE), flags=cv2.INTER_LINEAR), np.uint8)
