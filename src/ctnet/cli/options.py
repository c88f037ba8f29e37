"""Options that several commands take, as annotated types, and the panels of `--help` that group them.

One style for all: a phrase that begins with a capital letter and ends without a period, the default in brackets where
Typer cannot show it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from ctnet.cli.arguments import writable_folder
from ctnet.precision import PrecisionName, parse_precision

WeightsOption = partial(Option, rich_help_panel="Weights")
DataOption = partial(Option, rich_help_panel="Data")
TestOption = partial(Option, rich_help_panel="Test settings")
OptimisationOption = partial(Option, rich_help_panel="Optimisation")
DeviceOption = partial(Option, rich_help_panel="Device")
ProcessOption = partial(Option, rich_help_panel="Several processes")
MeasureOption = partial(Option, rich_help_panel="Measurement")
HidingOption = partial(Option, rich_help_panel="Anonymise")
OutputOption = partial(Option, rich_help_panel="Output")

Arguments = Annotated[
    list[str] | None,
    Argument(metavar="[CONFIG] [KEY=VALUE]...", help="Recipe name or .yaml file, then settings as dotted.key=value"),
]
AsJson = Annotated[bool, OutputOption("--json", help="Print one JSON document")]
Weights = Annotated[Path, WeightsOption(metavar="FILE", help="Weights, checkpoint or exported file of a detector")]
Config = Annotated[
    str | None, WeightsOption(metavar="CONFIG", help="Take data and test settings from this recipe, not the weights")
]
AllowPartial = Annotated[bool, WeightsOption("--allow-partial", help="Load what fits; initialise the rest randomly")]
Trust = Annotated[
    bool, WeightsOption("--trust", help="Run an exported program (.pt2, .pte, .om) that ctnet did not write here")
]
Verify = Annotated[
    bool, WeightsOption("--verify/--no-verify", help="Compare the checksum of ctnet's weights; reads the whole file")
]

Device = Annotated[
    str, DeviceOption(metavar="NAME[:N]", help="auto, cpu, cuda, npu, sdaa or a plug-in; :N selects one, :0,1,4 some")
]
Precision = Annotated[
    PrecisionName,
    DeviceOption(
        metavar="auto|fp32|bf16|fp16",
        parser=parse_precision,
        help="auto (what the device runs fast), fp32 (or off), bf16 or fp16",
    ),
]
Compile = Annotated[bool, DeviceOption("--compile", help="Compile the network first: a minute, for many images")]

BatchSize = Annotated[int | None, TestOption(help="Images per forward pass (default: the recipe's); speed only")]
Flip = Annotated[bool | None, TestOption("--flip/--no-flip", help="Average with the mirrored image")]
Scales = Annotated[str | None, TestOption(metavar="LIST", help="Test scales, such as 0.5,1,1.5")]
KeepRes = Annotated[
    bool | None,
    TestOption("--keep-res/--fixed-res", help="Keep resolution and pad; or scale, keeping aspect, into the image size"),
]
Nms = Annotated[
    Literal["none", "soft", "hard"] | None,
    TestOption(help="Non-maximum suppression (several scales need soft or hard)"),
]
Tiles = Annotated[
    int | None,
    TestOption(min=0, metavar="PIXELS", help="Also show large images in tiles of this side; for small objects"),
]
Overlap = Annotated[float | None, TestOption(min=0, max=0.9, help="Part of a tile that the next one shares")]
TestImageSize = Annotated[
    str | None,
    TestOption("--image-size", metavar="N|HxW", help="Network input in pixels; padded to multiples of 32, or 128"),
]
TopK = Annotated[int | None, TestOption("--top-k", min=1, help="Peaks taken from the heatmap of an image")]

SubjectData = Annotated[Path | None, DataOption(metavar="PATH", help="Images or data set (default: the demo set)")]
ImageSize = Annotated[str | None, DataOption(metavar="N|HxW", help="Network input in pixels (default: the recipe's)")]
BatchSizes = Annotated[str, MeasureOption(metavar="LIST", help="Images in a batch")]
Warmup = Annotated[int, MeasureOption(min=0, help="Untimed runs before the first timed one")]
Timed = Annotated[int, MeasureOption("--iterations", min=1, help="Timed runs of each batch size")]
BaselineFile = Annotated[Path | None, OutputOption(metavar="FILE", help="Compare with the JSON of an earlier run")]
MaxRegress = Annotated[str | None, OutputOption(metavar="PART", help="Exit 3 if more than this slower (default: 5%)")]
BenchOut = Annotated[
    Path | None,
    OutputOption("--out", metavar="DIR", callback=writable_folder, help="Write bench.json, bench.csv, bench.png"),
]
