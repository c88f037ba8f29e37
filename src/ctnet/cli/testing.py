"""Options of how pictures are tested, and a detector that keeps to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ctnet.cli.arguments import parse_image_size

if TYPE_CHECKING:
    from ctnet.config import Evaluation
    from ctnet.detect.detector import Detector

BatchSize = Annotated[
    int | None, typer.Option(help="Pictures per forward pass (default: the recipe's); changes no result")
]
Flip = Annotated[bool | None, typer.Option("--flip/--no-flip", help="Average with the mirrored picture")]
Scales = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="Test scales, such as 0.5,1,1.5"),
]
KeepRes = Annotated[
    bool | None, typer.Option("--keep-res/--fixed-res", help="Pad each picture, or warp it to the image size")
]
Nms = Annotated[
    Literal["none", "soft", "hard"] | None,
    typer.Option(help="Suppression; several scales are merged by soft unless hard"),
]
ImageSize = Annotated[
    str | None, typer.Option(metavar="N|HxW", help="Network input in pixels, multiples of 32 (hourglass: 128)")
]


def tested(
    detector: Detector,
    *,
    batch_size: int | None,
    flip: bool | None,
    scales: str | None,
    keep_res: bool | None,
    nms: str | None,
    image_size: str | None,
) -> tuple[Detector, Evaluation]:
    """Return the detector and its settings with what was given on the command line. Raises ConfigError."""
    from ctnet.config import recipe_from_dict

    flags = {"batch_size": batch_size, "flip": flip, "keep_res": keep_res, "nms": nms}
    content = detector.recipe.model_dump()
    content["evaluation"].update({key: value for key, value in flags.items() if value is not None})
    if scales is not None:
        content["evaluation"]["scales"] = scales.split(",")
    if image_size is not None:
        content["data"]["image_size"] = parse_image_size(image_size)
        content["evaluation"]["enlarge"] = 1.0  # the size asked for is the size that is tested
    recipe = recipe_from_dict(content, "command line")
    if recipe.data.image_size != detector.recipe.data.image_size:
        detector = detector.with_image_size(recipe.data.image_size)
    return detector, recipe.evaluation
