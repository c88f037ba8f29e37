"""The options of `ctnet predict` that hide what is found, or cut it out."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from ctnet.cli.arguments import writable_file, writable_folder
from ctnet.cli.options import HidingOption, OutputOption
from ctnet.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctnet.predict.anonymize.run import Hiding
    from ctnet.types import Category


@dataclass(frozen=True)
class HidingOptions:
    """The options by their names, None where they are not given."""

    anonymize: Annotated[
        Literal["blur", "pixelate", "solid"] | None,
        HidingOption(help="Write copies in which the objects are hidden, in place of drawings"),
    ] = None
    classes: Annotated[
        str | None, HidingOption(metavar="LIST", help="Hide or cut out these classes alone, such as face,plate")
    ] = None
    lost: Annotated[
        Literal["keep", "blur-all"] | None,
        HidingOption(
            help="Where an object is lost in a video: keep its mask for a second, or hide whole frames [keep]"
        ),
    ] = None
    mask_scale: Annotated[float | None, HidingOption(min=0.1, max=10, help="Size of masks by that of boxes [1.3]")] = (
        None
    )
    mask_shape: Annotated[
        Literal["ellipse", "box"] | None,
        HidingOption(help="Shape of masks [ellipse for objects with key points, box for others]"),
    ] = None
    regions: Annotated[
        Path | None,
        HidingOption(metavar="FILE", help="Lines `always|only|never X1 Y1 X2 Y2 [START END]`, in pixels or per cent"),
    ] = None
    times: Annotated[
        Path | None, HidingOption(metavar="FILE", help="Lines `always|only|never START END`, such as only 0:30 end")
    ] = None
    detect_every: Annotated[
        int | None,
        HidingOption(
            min=1, max=30, metavar="N", help="Detect in every Nth frame of a video, and where frames differ [1]"
        ),
    ] = None
    keep_metadata: Annotated[
        bool | None, HidingOption("--keep-metadata", help="Copy place and time of recording, and other metadata")
    ] = None
    boxes_out: Annotated[
        Path | None, HidingOption(metavar="FILE", callback=writable_file, help="Write what was hidden where, as CSV")
    ] = None
    crops: Annotated[
        Path | None,
        OutputOption(
            metavar="DIR", callback=writable_folder,
            help="Write a crop of each object: faces with landmarks aligned, 112 x 112 pixels",
        ),
    ] = None  # fmt: skip
    keep: Annotated[list[Path] | None, HidingOption(metavar="FILE", hidden=True)] = None

    def require_sense(self) -> None:
        """Raise ConfigError for options that have no effect without another, and for one that cannot be had."""
        if self.keep:
            raise ConfigError("ctnet does not recognise persons, so --keep, which spares some, is not available")
        helped = {"classes": self.anonymize or self.crops}
        for option in fields(self):
            if option.name in ("anonymize", "crops", "keep") or getattr(self, option.name) is None:
                continue
            if not helped.get(option.name, self.anonymize):
                needed = "--anonymize or --crops" if option.name in helped else "--anonymize"
                raise ConfigError(f"--{option.name.replace('_', '-')} has an effect only with {needed}")

    def labels(self, categories: Sequence[Category]) -> frozenset[int] | None:
        """Return the labels of the classes that were named, None for all. Raises ConfigError for an unknown one."""
        if self.classes is None:
            return None
        known = [category.name for category in categories]
        wanted = [name.strip() for name in self.classes.split(",")]
        for name in wanted:
            if name not in known:
                raise ConfigError(f"the detector has no class {name!r}", nearest=nearest(name, known))
        return frozenset(label for label, name in enumerate(known) if name in wanted)

    def hiding(self, categories: Sequence[Category]) -> Hiding | None:
        """Return what is hidden and how, None without --anonymize. Raises ConfigError."""
        from ctnet.predict.anonymize.areas import read_areas
        from ctnet.predict.anonymize.run import Hiding

        if self.anonymize is None:
            return None
        return Hiding(
            self.anonymize, self.lost or "keep", self.mask_scale or 1.3, self.mask_shape, self.labels(categories),
            read_areas(self.regions, self.times), self.detect_every or 1, self.boxes_out, bool(self.keep_metadata),
        )  # fmt: skip
