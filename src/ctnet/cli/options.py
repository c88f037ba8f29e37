"""Options that several commands take, as annotated types, and the panels of `--help` that group them.

One style for all: a phrase that begins with a capital letter and ends without a period, the default in brackets where
Typer cannot show it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from ctnet.cli.arguments import writable_folder
from ctnet.precision import PrecisionName, parse_precision

WEIGHTS, DATA, TEST, OPTIMISATION, DEVICE, PROCESSES, MEASURE, OUTPUT = (
    "Weights", "Data", "Test settings", "Optimisation", "Device", "Several processes", "Measurement", "Output",
)  # fmt: skip

Arguments = Annotated[
    list[str] | None,
    Argument(metavar="[CONFIG] [KEY=VALUE]...", help="Recipe name or .yaml file, then settings as dotted.key=value"),
]
AsJson = Annotated[bool, Option("--json", help="Print one JSON document", rich_help_panel=OUTPUT)]
Weights = Annotated[
    Path,
    Option(metavar="FILE", help="Weights, checkpoint or exported file of a detector", rich_help_panel=WEIGHTS),
]
Config = Annotated[
    str | None,
    Option(
        metavar="CONFIG", help="Take data and test settings from this recipe, not the weights", rich_help_panel=WEIGHTS
    ),
]
AllowPartial = Annotated[
    bool,
    Option("--allow-partial", help="Load what fits; initialise the rest randomly", rich_help_panel=WEIGHTS),
]

Device = Annotated[
    str,
    Option(
        metavar="NAME[:N]", help="auto, cpu, cuda, npu, sdaa or a plug-in; :N selects one of several",
        rich_help_panel=DEVICE,
    ),
]  # fmt: skip
Precision = Annotated[
    PrecisionName,
    Option(
        metavar="auto|fp32|bf16|fp16", parser=parse_precision, rich_help_panel=DEVICE,
        help="auto (what the device runs fast), fp32 (or off), bf16 or fp16",
    ),
]  # fmt: skip
Compile = Annotated[
    bool,
    Option("--compile", help="Compile the network first: a minute, for many images", rich_help_panel=DEVICE),
]

BatchSize = Annotated[
    int | None,
    Option(help="Images per forward pass (default: the recipe's); speed only", rich_help_panel=TEST),
]
Flip = Annotated[bool | None, Option("--flip/--no-flip", help="Average with the mirrored image", rich_help_panel=TEST)]
Scales = Annotated[str | None, Option(metavar="LIST", help="Test scales, such as 0.5,1,1.5", rich_help_panel=TEST)]
KeepRes = Annotated[
    bool | None,
    Option(
        "--keep-res/--fixed-res", rich_help_panel=TEST,
        help="Keep resolution and pad; or scale, keeping aspect, into the image size",
    ),
]  # fmt: skip
Nms = Annotated[
    Literal["none", "soft", "hard"] | None,
    Option(help="Non-maximum suppression (several scales need soft or hard)", rich_help_panel=TEST),
]
TestImageSize = Annotated[
    str | None,
    Option(
        "--image-size", metavar="N|HxW", rich_help_panel=TEST,
        help="Network input in pixels, multiples of 32 (hourglass: 128)",
    ),
]  # fmt: skip

SubjectData = Annotated[
    Path | None, Option(metavar="PATH", help="Images or data set (default: the demo set)", rich_help_panel=DATA)
]
ImageSize = Annotated[
    str | None,
    Option(metavar="N|HxW", help="Network input in pixels (default: the recipe's)", rich_help_panel=DATA),
]
BatchSizes = Annotated[str, Option(metavar="LIST", help="Images in a batch", rich_help_panel=MEASURE)]
Warmup = Annotated[int, Option(min=0, help="Untimed runs before the first timed one", rich_help_panel=MEASURE)]
Timed = Annotated[int, Option("--iterations", min=1, help="Timed runs of each batch size", rich_help_panel=MEASURE)]
BaselineFile = Annotated[
    Path | None, Option(metavar="FILE", help="Compare with the JSON of an earlier run", rich_help_panel=OUTPUT)
]
MaxRegress = Annotated[
    str | None,
    Option(metavar="PART", help="Exit 3 if more than this slower (default: 5%)", rich_help_panel=OUTPUT),
]
BenchOut = Annotated[
    Path | None,
    Option(
        "--out", metavar="DIR", callback=writable_folder, help="Write bench.json, bench.csv, bench.png",
        rich_help_panel=OUTPUT,
    ),
]  # fmt: skip
