"""Every setting of a run, with its default, its range and what it means. All objects are frozen.

Upper limits lie far beyond what anyone trains with: recipes also come out of files that strangers wrote, and must not
ask for more memory or time than a machine has.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ctnet.files import path_component
from ctnet.precision import ALIASES, PrecisionName
from ctnet.types import TargetRules


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("text without NUL characters is expected")
    return value


LARGEST_SIDE = 8192
"""pixels of the side that a network sees, test scales included"""
LARGEST_AREA = 2**23
"""pixels of its input, a square of 2880"""
MOST_CATEGORIES = 2**15

Positive = Annotated[int, Field(ge=1, le=10**9)]
Count = Annotated[int, Field(ge=1, le=2**16)]
Detected = Annotated[int, Field(ge=1, le=10_000)]
Channels = Annotated[int, Field(ge=1, le=1024)]
Level = Annotated[float, Field(ge=-1000, le=1000)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, le=1e6)]
LONGEST_TEXT = 4096
Text = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(_without_nul)]


def _pair(value: object) -> object:
    return (value, value) if isinstance(value, int) else value


def _unalias(value: object) -> object:
    return ALIASES.get(value, value) if isinstance(value, str) else value


Precision = Annotated[PrecisionName, BeforeValidator(_unalias)]
Side = Annotated[int, Field(ge=32, le=LARGEST_SIDE, multiple_of=32)]
Name = Annotated[str, AfterValidator(path_component)]
ImageSize = Annotated[tuple[Side, Side], BeforeValidator(_pair)]


RENAMED = {"evaluation.enlarge": "evaluation.test_scale"}
"""settings by the names that recipes and weights of earlier versions have for them"""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Model(_Section):
    """The network. Numbers are those of "Objects as Points" unless a recipe says otherwise."""

    backbone: Literal[
        "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "dla34", "hourglass104", "mobilenetv2"
    ] = "resnet18"
    """trunk; all but ResNets bring their own up-sampling"""
    neck: Literal["deform", "conv", "plain", "lateral"] = "deform"
    """up-sampling: transposed convolutions after deformable ones, after ordinary ones (mmdet), or alone; lateral adds
    the trunk's finer maps (CenterFace's, the only one of mobilenetv2); dla34 takes deform, and plain for ordinary
    convolutions throughout (upstream's dlav0)"""
    neck_channels: tuple[Channels, Channels, Channels] = (256, 128, 64)
    """ResNet: channels after each of the three up-samplings (upstream's plain neck: 256, 256, 256); lateral: the last
    is the width of all"""
    deform_bias: bool = True
    """deformable convolutions have a bias (mmdet and MindSpore: none)"""
    stride_in_1x1: bool = False
    """bottlenecks halve the map in their first 1x1 convolution, not the 3x3 one (detectron2's MSRA weights)"""
    head_channels: Annotated[int, Field(ge=0, le=1024)] = 64
    """channels between the two convolutions of each head; 0 makes a head one 1x1 convolution"""
    heatmap_bias: Annotated[float, Field(ge=-100, le=100)] = -2.19
    """bias that the heatmap head starts with: sigmoid(-2.19) = 0.1 in every cell, so that the many background cells
    do not swamp the first steps"""
    class_specific_size: bool = False
    """predict one box size per class instead of one for all"""
    predict_offset: bool = True
    """predict the centre within its cell; without it the middle of the cell is used"""

    @property
    def size_multiple(self) -> int:
        """Number of pixels that both sides of an input are multiples of: the coarsest stride."""
        return 128 if self.backbone == "hourglass104" else 32

    @model_validator(mode="after")
    def _settings_apply(self) -> Model:
        for name, trunks in _APPLIES_TO.items():
            if getattr(self, name) != type(self).model_fields[name].default and not self.backbone.startswith(trunks):
                raise ValueError(f"model.{name} means nothing to {self.backbone}: leave it out")
        if self.backbone == "dla34" and self.neck in ("conv", "lateral"):
            raise ValueError("dla34 has two necks: model.neck=deform and model.neck=plain")
        return self


_APPLIES_TO = {
    "neck": ("resnet", "dla"),
    "neck_channels": ("resnet", "mobilenet"),
    "deform_bias": ("resnet", "dla"),
    "stride_in_1x1": ("resnet50", "resnet101", "resnet152"),
}


class Data(_Section):
    """Where pictures come from and how they enter the network."""

    path: Text | None = None
    """folder in COCO, Pascal VOC or YOLO layout, or a YAML naming files; empty means the built-in demo set"""
    train_split: Text = "train"
    """split to train on"""
    val_split: Text = "val"
    """split to evaluate on"""
    image_size: ImageSize = (512, 512)
    """network input as (height, width), one number for a square; multiples of 32, for hourglass104 of 128"""
    color_order: Literal["bgr", "rgb"] = "bgr"
    """channel order the network sees"""
    mean: tuple[Level, Level, Level] = (0.40789654, 0.44719302, 0.47026115)
    """per-channel mean, in color_order, of values in 0..1"""
    std: tuple[Level, Level, Level] = (0.28863828, 0.27408164, 0.27809835)
    """per-channel standard deviation, in color_order, of values in 0..1"""
    max_objects: Count = 128
    """objects of one picture that are trained on; further ones are left out, in file order"""
    workers: Annotated[int, Field(ge=0, le=1024)] | None = None
    """loader processes; empty means one per two cores, at most eight"""


class Augment(_Section):
    """Random changes of the training pictures."""

    crop: Literal["random", "inside", "shift", "none"] = "random"
    """random: scale from `scale`, centre anywhere; inside: scale from `scale`, within the picture as far as it fits;
    shift: centre and scale jittered; none: whole picture"""
    scale: tuple[NonNegative, NonNegative] = (0.6, 1.3)
    """range of the crop's side relative to the picture's longer side; for crop=random in steps of 0.1"""
    border: Positive = 128
    """the random centre keeps this many pixels from the picture's edge (halved until it fits)"""
    shift: NonNegative = 0.1
    """crop=shift: standard deviation of the centre, relative to the picture"""
    scale_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """crop=shift: standard deviation of the scale"""
    rotate: NonNegative = 0.0
    """standard deviation of the rotation in degrees (at most twice that); 0 never rotates"""
    flip: Fraction = 0.5
    """probability of a horizontal mirror image"""
    flip_vertical: Fraction = 0.0
    """probability of a vertical mirror image; for pictures without an up, such as microscopy"""
    transpose: Fraction = 0.0
    """probability of swapping rows and columns; with both mirror images these are all quarter turns, for the same
    pictures"""
    photometric: NonNegative = 0.4
    """strength of random brightness, contrast and saturation"""
    lighting: NonNegative = 0.1
    """standard deviation of the PCA colour shift"""


class Optimizer(_Section):
    """How weights follow gradients."""

    name: Literal["adam", "adamw", "muon", "sgd"] = "adamw"
    """algorithm; muon is AdamW with orthogonal steps for the kernels of hidden layers"""
    lr: Annotated[float, Field(gt=0, le=1e6)] = 1e-3
    """learning rate at `lr_batch` pictures a step"""
    lr_batch: Positive = 8
    """batch that `lr` is meant for"""
    lr_scaling: Literal["sqrt", "linear", "none"] = "sqrt"
    """how the rate follows another effective batch (sqrt suits Adam, linear SGD and upstream's recipes)"""
    offset_lr: NonNegative = 0.1
    """rate of the layers that say where deformable convolutions look, relative to `lr`; at the full rate Adam moves
    them by pixels a step, before there is anything to look at"""
    weight_decay: NonNegative = 0.05
    """decay of weights with two or more dimensions; norms and biases are left alone"""
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    """Adam's averages"""
    momentum: Fraction = 0.9
    """SGD's and Muon's momentum"""
    clip_norm: NonNegative = 35.0
    """largest gradient norm; 0 never clips"""


class Schedule(_Section):
    """How long to train and how the learning rate moves."""

    epochs: Positive = 60
    """passes over the training pictures"""
    name: Literal["onecycle", "cosine", "multistep", "poly", "constant"] = "onecycle"
    """shape after the warm-up"""
    warmup: NonNegative = 3.0
    """epochs of rising rate; for onecycle the rising part"""
    warmup_start: Fraction = 0.04
    """rate at step 0 relative to the peak"""
    milestones: Annotated[tuple[Positive, ...], Field(max_length=1000)] = (90, 120)
    """multistep: epochs at which the rate drops"""
    gamma: Fraction = 0.1
    """multistep: factor of each drop"""
    power: NonNegative = 0.9
    """poly: exponent"""
    final: Fraction = 0.002
    """onecycle, cosine, poly: rate at the end relative to the peak"""


class LossWeights(_Section):
    """Parts of the loss and their weights."""

    heatmap: NonNegative = 1.0
    """penalty-reduced focal loss of the centres"""
    size: NonNegative = 0.1
    """L1 of width and height in cells"""
    offset: NonNegative = 1.0
    """L1 of the centre within its cell"""
    giou: NonNegative = 0.0
    """1 - generalised IoU of the box at each centre (Rezatofighi et al., 2019): small objects count as much as large
    ones, while an L1 in cells is ruled by the large"""
    regression: Literal["l1", "smooth_l1"] = "l1"
    """form of the size and offset losses"""
    targets: TargetRules = "centernet"
    """whose rules turn boxes into targets and losses; mmdet's gaussians are smaller, in a cell the later object wins,
    and every part of the loss is divided by the number of centres in the heatmap"""
    size_targets: Literal["center", "dense"] = "center"
    """supervise size at the centre cell, or over the whole gaussian (upstream's dense_wh, whose rounding asks about
    half of those cells for a size of zero: to go on with such weights, not to start with)"""


class Train(_Section):
    """The loop: batches, precision, state on disk."""

    batch_size: Count = 8
    """pictures per process and micro-step"""
    accumulate: Count = 1
    """micro-steps per update; the effective batch is batch_size x accumulate x processes"""
    sync_bn: bool = False
    """several processes: take the statistics of batch norms over all of them, as one process with the whole batch
    would; for small batches"""
    amp: Precision = "auto"
    """precision of forward and backward passes; auto takes what the device runs fast, off is another word for fp32"""
    channels_last: bool = True
    """memory format of weights and pictures"""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.998
    """decay of the averaged weights that are evaluated and saved; 0 keeps the raw weights"""
    max_steps: Positive | None = None
    """stop after this many updates; the learning rate still follows the epochs"""
    log_every: Positive = 20
    """steps between lines of the log"""
    eval_every: Annotated[int, Field(ge=0, le=10**9)] = 5
    """epochs between evaluations; 0 evaluates only at the end"""
    save_every: Positive = 1
    """epochs between checkpoints"""
    save_every_steps: Positive | None = None
    """also save every so many steps"""
    keep: Annotated[int, Field(ge=0, le=10**9)] = 1
    """numbered checkpoints kept beside last.pt"""
    sample_batches: Annotated[int, Field(ge=0, le=10**9)] = 2
    """first batches drawn with their targets into samples/"""


class Evaluation(_Section):
    """How predictions are decoded and scored."""

    top_k: Detected = 100
    """peaks taken from the heatmap of one picture"""
    max_detections: Detected = 100
    """detections kept per picture after merging scales"""
    score_floor: Fraction = 0.0
    """detections below are dropped before scoring; 0 for AP"""
    batch_size: Count = 8
    """pictures per forward pass; changes no result"""
    keep_res: bool = False
    """keep each picture's resolution and pad it, instead of warping it to image_size"""
    test_scale: Annotated[float, Field(gt=0, le=16)] = 1.0
    """test input relative to data.image_size, rounded to multiples as there: above 1 where training crops show objects
    larger than a whole picture would (Touvron et al., "Fixing the train-test resolution discrepancy", 2019)"""
    flip: bool = False
    """average with the mirrored picture"""
    scales: tuple[Annotated[float, Field(ge=0.05, le=16)], ...] = Field(default=(1.0,), min_length=1, max_length=32)
    """test scales; several are merged by soft-NMS"""
    nms: Literal["none", "soft", "hard"] = "none"
    """suppression after decoding; upstream uses soft with several scales"""


class Recipe(_Section):
    """One run, whole."""

    name: Name = "unnamed"
    """name of the recipe: that of its file; run folders are called after it"""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """seed of weights, order and augmentation"""
    model: Model = Model()
    data: Data = Data()
    augment: Augment = Augment()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    loss: LossWeights = LossWeights()
    train: Train = Train()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _agree(self) -> Recipe:
        multiple = self.model.size_multiple
        if any(side % multiple for side in self.data.image_size):
            raise ValueError(f"data.image_size must be in multiples of {multiple} for {self.model.backbone}")
        height, width = self.data.image_size
        if height * width > LARGEST_AREA:
            raise ValueError(f"data.image_size must be at most {LARGEST_AREA} pixels, height times width")
        test = self.evaluation
        if max(self.data.image_size) * test.test_scale * max(test.scales) > LARGEST_SIDE:
            raise ValueError(f"image_size x test_scale x scales must be at most {LARGEST_SIDE} pixels")
        if self.model.class_specific_size and self.loss.size_targets == "dense":
            raise ValueError("loss.size_targets=dense needs model.class_specific_size=false")
        if self.loss.targets == "mmdet" and self.loss.size_targets == "dense":
            raise ValueError("loss.targets=mmdet needs loss.size_targets=center")
        if any(s <= 0 for s in self.data.std):
            raise ValueError("data.std must be above 0")
        low, high = self.augment.scale
        if not 0 < low <= high:
            raise ValueError("augment.scale must be two numbers, 0 < low <= high")
        return self
