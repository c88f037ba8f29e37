"""Images as files of numbers for a machine that runs a graph and nothing else, and what it answers as detections.

`write_bins` leaves a file for each image and a list of them; `ais_bench --input FOLDER` of Ascend chips reads such
files and writes `NAME_0.bin`, `NAME_1.bin`, ... for the outputs of a graph, in their order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctnet.config import Evaluation, Recipe, changed
from ctnet.data.image import read_image
from ctnet.detect.detector import Detector
from ctnet.detect.stream import view_detections
from ctnet.detect.views import RenderedView, network_input, render_views
from ctnet.errors import ConfigError, DataError
from ctnet.files import is_file, read_file, write_file
from ctnet.limits import TEXT_BYTES, parse_json
from ctnet.types import AnnotationSet, Detections, Instances, Progress

LIST = "bins.json"
_SCHEMA = "ctnet.bins/1"


def write_bins(
    annotations: AnnotationSet, recipe: Recipe, folder: Path, *, pixels: bool, progress: Progress | None = None
) -> Path:
    """Return the list of the files written: `IMAGE_ID.bin` of each image, as the network of the recipe sees it.

    Numbers are float32 (3,H,W), normalised; with `pixels` bytes (H,W,3) in the recipe's order of colours, which a graph
    with AIPP normalises itself. Raises ConfigError for test settings with more than one view of an image, or of several
    sizes.
    """
    settings = recipe.evaluation
    _require_one_view(settings)
    entries = []
    for number, image in enumerate(annotations.images, 1):
        view = _render(read_image(image.path, value_range=recipe.data.value_range), recipe)
        if pixels:
            array = view.pixels[..., ::-1] if recipe.data.color_order == "rgb" else view.pixels
        else:
            array = network_input([view], recipe.data, torch.device("cpu"))[0].contiguous().numpy()
        name = f"{image.id:012d}.bin"
        write_file(folder / name, np.ascontiguousarray(array).tobytes())
        entries.append({"id": image.id, "file": image.path.name, "bin": name})
        if progress is not None:
            progress(number, len(annotations.images))
    height, width = view.pixels.shape[:2]
    document = {
        "schema": _SCHEMA, "type": "uint8" if pixels else "float32",
        "shape": [height, width, 3] if pixels else [3, height, width], "images": entries,
    }  # fmt: skip
    write_file(folder / LIST, json.dumps(document, indent=1).encode())
    return folder / LIST


def read_dumps(
    folder: Path, annotations: AnnotationSet, detector: Detector, settings: Evaluation
) -> dict[int, Detections]:
    """Return the detections of each image from the files of a graph's raw outputs, `IMAGE_ID_N.bin` in float32.

    The graph is that of the detector, its outputs are in the order in which exported files have them. Raises DataError
    for files that are missing or of another size than those of this network.
    """
    recipe, family = changed(detector.recipe, {"evaluation": settings}), detector.family
    _require_one_view(settings)
    _check_list(folder, annotations)
    side = recipe.model.size_multiple
    with torch.inference_mode():
        zeros = torch.zeros(1, 3, side, side, device=detector.device.torch_device)
        maps = family.detect(detector.model, zeros, settings.model_copy(update={"flip": False}))
    if isinstance(maps, Instances):
        raise ConfigError("--weights is an exported file that decodes", hint="name the weights that it was made of")
    outputs = {name: maps[name].shape[1] for name in family.output_names}
    found = {}
    for image in annotations.images:
        view = _render(np.zeros((image.height, image.width, 3), np.uint8), recipe)
        height, width = (side // family.strides[0] for side in view.pixels.shape[:2])
        maps = {}
        for number, (name, channels) in enumerate(outputs.items()):
            file = folder / f"{image.id:012d}_{number}.bin"
            maps[name] = _read(file, name, (1, channels, height, width))
        found[image.id] = view_detections(family, maps, [view], settings)[0]
    return found


def _render(image: Any, recipe: Recipe) -> RenderedView:
    return render_views(image, recipe.data.image_size, recipe.model.size_multiple, recipe.evaluation)[0]


def _require_one_view(settings: Evaluation) -> None:
    several = {
        "--keep-res": settings.keep_res, "--flip": settings.flip, "--scales": settings.scales != (1.0,),
        "--tiles": settings.tiles > 0,
    }  # fmt: skip
    wrong = [option for option, given in several.items() if given]
    if wrong:
        raise ConfigError(
            "a graph on another machine sees one view of one size of each image", got=" ".join(wrong),
            hint="--fixed-res --no-flip --scales 1",
        )  # fmt: skip


def _check_list(folder: Path, annotations: AnnotationSet) -> None:
    """Raise DataError where the folder holds a list of files that is of other images."""
    if not is_file(folder / LIST):
        return
    try:
        content = parse_json(read_file(folder / LIST, TEXT_BYTES))
        listed = {entry["id"] for entry in content["images"]}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError("the list of files cannot be read", file=folder / LIST, got=repr(error)[:200]) from None
    missing = [image.id for image in annotations.images if image.id not in listed]
    if missing:
        raise DataError("the files are of other images", file=folder / LIST, missing=f"image {missing[0]}")


def _read(file: Path, name: str, shape: Sequence[int]) -> Tensor:
    size = 4 * int(np.prod(shape))
    if not is_file(file):
        raise DataError(
            "an output of the graph is missing", file=file, expected=f"{name}, {size} bytes",
            hint="outputs are raw, in float32, one file for each image and output: IMAGE_ID_0.bin, IMAGE_ID_1.bin, ...",
        )  # fmt: skip
    content = read_file(file)
    if len(content) != size:
        raise DataError(
            "an output of the graph is of another network, size or type", file=file, got=f"{len(content)} bytes",
            expected=f"{name}, float32 of {'x'.join(map(str, shape))}: {size} bytes",
            hint="the order of the outputs is that of the graph; --output_type=FP32 of atc writes float32",
        )  # fmt: skip
    values = torch.from_numpy(np.frombuffer(content, np.float32).reshape(shape).copy())
    if not bool(values.isfinite().all()):
        raise DataError("an output of the graph holds numbers that are not finite", file=file, output=name)
    return values
