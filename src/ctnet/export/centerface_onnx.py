"""CenterFace's published ONNX file, run and decoded as its reference program does.

Every cell above a threshold is a face (there is no test for peaks), corners are clipped to the input, and greedy NMS
follows: Star-Clouds/CenterFace, `centerface.py`, whose numbers these are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ctnet.config import changed, load_recipe
from ctnet.errors import WeightsError
from ctnet.export.about import About
from ctnet.ops import nms
from ctnet.types import FACE, Category
from ctnet.weights.centerface_onnx import CENTERFACE_ONNX, MODEL, differs
from ctnet.weights.containers.onnx_file import read_onnx

STRIDE = 4
LEAST_SCORE = 0.05  # fainter cells are noise, and there are thousands of them
OVERLAP = float(np.nextafter(0.3, 0))  # at 0.3 itself a box goes


def is_centerface(path: Path) -> bool:
    """Return whether the file holds the published graph."""
    try:
        return differs(*read_onnx(path)) is None
    except WeightsError:  # damaged, as onnxruntime will report
        return False


def centerface_about() -> About:
    """Return what the file does not say about itself."""
    assert CENTERFACE_ONNX.recipe is not None
    recipe = changed(load_recipe(CENTERFACE_ONNX.recipe(MODEL, 1)).recipe, {"evaluation.nms": "none"})  # done here
    return About(recipe, (Category(1, "face"),), keypoints=FACE)


def any_size(content: bytes) -> bytes:
    """Return the model for batches and images of any size; in the file both are fixed."""
    import onnx

    model = onnx.load_from_string(content)
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    for value in [value for value in graph.input if value.name in stored]:
        graph.input.remove(value)  # numbers, not inputs: they may be folded
    for value in (*graph.input, *graph.output):
        for axis in (0, 2, 3):
            value.type.tensor_type.shape.dim[axis].dim_param = f"{value.name}_{axis}"
    return bytes(model.SerializeToString())


class CenterFaceRuntime:
    """A session of the file, its faces found as the reference program finds them."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.about = centerface_about()

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """Return the fields of `Instances` of images (N,3,H,W), RGB with values 0 to 255."""
        pixels = np.ascontiguousarray(images.round().numpy())  # as they were before they were scaled to 0..1 and back
        maps = self.session.run(None, {self.session.get_inputs()[0].name: pixels})
        size = pixels.shape[3], pixels.shape[2]
        found = [_faces(size, *(of_image[i] for of_image in maps)) for i in range(len(pixels))]
        boxes, scores, points = (pad_sequence(list(part), batch_first=True) for part in zip(*found, strict=True))
        return {"boxes": boxes, "scores": scores, "labels": torch.zeros_like(scores, dtype=torch.long),
                "keypoints": points}  # fmt: skip


def _faces(
    size: tuple[int, int],
    heat: NDArray[np.float32],
    log_size: NDArray[np.float32],
    offset: NDArray[np.float32],
    landmarks: NDArray[np.float32],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes (N,4), scores (N,) and landmarks (N,5,2) of one image of `size` (width, height), strongest first."""
    row, column = np.nonzero(heat[0] > LEAST_SCORE)
    scores = torch.from_numpy(heat[0, row, column])
    # all maps have y first
    sides = np.exp(log_size[::-1, row, column]).T * STRIDE
    center = (np.stack([column, row], 1) + offset[::-1, row, column].T + np.float32(0.5)) * STRIDE
    corner = (center - sides / 2).clip(0, size)
    boxes = torch.from_numpy(np.concatenate([corner, np.minimum(corner + sides, size)], 1).astype(np.float32))
    kept = nms(boxes, scores, torch.zeros(len(scores), dtype=torch.long), OVERLAP)
    places = landmarks[:, row, column].T.reshape(len(scores), 5, 2)[..., ::-1]
    points = torch.from_numpy((places * sides[:, None] + corner[:, None]).astype(np.float32))
    return boxes[kept], scores[kept], points[kept]
