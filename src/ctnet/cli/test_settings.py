"""The detector that `ctnet eval` and `ctnet predict` run, with the test settings of the command line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctnet.cli.arguments import parse_image_size
from ctnet.cli.console import say

if TYPE_CHECKING:
    from ctnet.config import Evaluation
    from ctnet.detect.detector import Detector
    from ctnet.precision import PrecisionName


_AS_THEY_ARE = ("batch_size", "flip", "keep_res", "nms", "tiles", "overlap", "top_k")


@dataclass(frozen=True)
class RequestedSettings:
    """Test settings by the names of their options; None where an option is not given."""

    batch_size: int | None
    flip: bool | None
    scales: str | None
    keep_res: bool | None
    nms: str | None
    image_size: str | None
    tiles: int | None = None
    overlap: float | None = None
    top_k: int | None = None

    def of_one_view(self) -> RequestedSettings:
        """Return these with one view of one size of each image, unless something else is asked for."""
        return replace(self, flip=self.flip or False, scales=self.scales or "1", keep_res=self.keep_res or False)


def open_for_test(
    weights: Path,
    device: str,
    precision: PrecisionName,
    requested: RequestedSettings,
    *,
    notes: bool = True,
    **loading: Any,
) -> tuple[Detector, Evaluation]:
    """Return the detector of a file and its test settings, in which the options replace those of the weights.

    `loading` holds further arguments of `load_detector`. With `notes`, those on the weights and on how they run go to
    stderr. Raises
    ConfigError, WeightsError, DeviceUnavailable.
    """
    from ctnet.detect.opening import load_detector

    detector = load_detector(weights, device, precision, **loading)
    for note in (*detector.notes, detector.how_it_runs()) if notes else ():
        say(note, err=True)
    return with_test_settings(detector, requested, notes=notes)


def with_test_settings(
    detector: Detector, requested: RequestedSettings, *, notes: bool = True
) -> tuple[Detector, Evaluation]:
    """Return the detector and its test settings after the options. Raises ConfigError."""
    from ctnet.config import recipe_from_dict

    flags = {name: getattr(requested, name) for name in _AS_THEY_ARE}
    content = detector.recipe.model_dump()
    content["evaluation"].update({key: value for key, value in flags.items() if value is not None})
    if requested.keep_res is not None:
        content["evaluation"]["stretch"] = False  # a third way to show an image
    if requested.scales is not None:
        content["evaluation"]["scales"] = requested.scales.split(",")
    size, multiple = parse_image_size(requested.image_size), detector.recipe.model.size_multiple
    if size is not None:
        content["evaluation"] |= {"test_scale": 1.0, "image_size": None}  # test at exactly this size
        if any(side % multiple for side in size):
            content["evaluation"]["image_size"] = size
            padded = " x ".join(str(side + -side % multiple) for side in size)
            if notes:
                say(f"test input {size[0]} x {size[1]}, padded to {padded}", err=True)
        else:
            content["data"]["image_size"] = size
    recipe = recipe_from_dict(content, "command line")
    if recipe.data.image_size != detector.recipe.data.image_size:
        detector = detector.with_image_size(recipe.data.image_size)
    return detector, recipe.evaluation
