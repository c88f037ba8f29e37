"""Every setting of a run, with its default, its range and what it means. All objects are frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from ctnet.config.families import DEFAULT, SETTINGS, Loss, Model, settings_of
from ctnet.config.ranges import (
    LARGEST_AREA,
    LARGEST_SIDE,
    Count,
    Detected,
    Fraction,
    ImageSize,
    Level,
    Name,
    NonNegative,
    Positive,
    Precision,
    Section,
    TestSide,
    Text,
    Value,
    pair,
)
from ctnet.errors import ConfigError

RENAMED = {"evaluation.enlarge": "evaluation.test_scale"}
"""settings by the names that recipes and weights of earlier versions have for them"""
EITHER_OR = {"train.batch_size": "train.global_batch", "train.global_batch": "train.batch_size",
             "schedule.warmup": "schedule.warmup_steps", "schedule.warmup_steps": "schedule.warmup"}  # fmt: skip
"""settings that say one thing in two ways: the one that is given later replaces the other"""


class Data(Section):
    """Where images come from and how they enter the network."""

    path: Text | None = None
    """folder in COCO, Pascal VOC, YOLO or WIDER FACE layout, or a YAML naming files; empty means the demo
    set of shapes, demo:faces and demo:pose those of faces and figures"""
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
    repeat_threshold: Fraction = 0.0
    """images with a class that fewer than this part of all images have are shown more often, up to the square root of
    how much rarer it is (repeat-factor sampling; Gupta et al., "LVIS", 2019, takes 0.001); 0 shows each once"""
    value_range: tuple[Value, Value] | None = None
    """values of images with more than eight bits that become black and white, others are clipped; empty means for each
    image the range of 8, 10, 12, 14 or 16 bits that holds its values, and for floating ones up to 1 the range 0 to 1"""
    max_objects: Count = 128
    """objects of one image that are trained on; of more, those that the view does not show are left out first, then the
    last in the file"""
    shuffle: bool = True
    """a new order of the images in each epoch; otherwise that of the annotations"""
    crowd: bool = False
    """train on crowd regions as if each were an object, as the original does"""
    empty_images: bool = True
    """train on images without objects too, as background; the original leaves them out"""
    on_bad_image: Literal["skip", "error"] = "skip"
    """an image that cannot be read: skip leaves it out, with a warning, and counts it; error stops"""
    allow_background: bool = False
    """train although no box can be learned, on images of the background alone"""
    workers: Annotated[int, Field(ge=0, le=1024)] | None = None
    """loader processes; empty means one per two cores, at most eight"""


class Augment(Section):
    """Random changes of the training images."""

    crop: Literal["random", "inside", "shift", "short_side", "none", "anchor", "centerface"] = "random"
    """random: scale from `scale`, centre anywhere; inside: scale from `scale`, within the image as far as it fits;
    shift: centre and scale jittered; short_side: whole image at a size from `short_sides`, at the top left of the
    input, over its mean colour (detectron2); none: whole image; anchor: an object drawn at random gets a side near
    one of `anchors`, anywhere in the view, for objects of very different sizes such as faces (data-anchor sampling,
    Tang et al., "PyramidBox", 2018); centerface: as CenterFace's published code samples, which undoes the object's
    new size by fitting the image's longer side into the input, and draws `data.max_objects` of more objects with
    replacement"""
    anchors: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=64)] = (16, 32, 48, 64, 96, 128, 256, 512)
    """crop=anchor, centerface: sides in pixels, rising; the object's side becomes 0.5 to 2 times one of the first five
    that is not above the anchor nearest to its side in the image"""
    scale: tuple[NonNegative, NonNegative] = (0.6, 1.3)
    """range of the crop's side relative to the image's longer side; for crop=random in steps of 0.1"""
    border: Positive = 128
    """the random centre keeps this many pixels from the image's edge (halved until it fits)"""
    shift: NonNegative = 0.1
    """crop=shift: standard deviation of the centre, relative to the image"""
    scale_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """crop=shift: standard deviation of the scale"""
    short_sides: Annotated[tuple[Count, ...], Field(min_length=1, max_length=100)] = (640, 672, 704, 736, 768, 800)
    """crop=short_side: pixels of the image's shorter side, one of these"""
    long_side: Count = 1333
    """crop=short_side: most pixels of the longer side; no image is larger than the input"""
    rotate: NonNegative = 0.0
    """standard deviation of the rotation in degrees (at most twice that); 0 never rotates"""
    rotate_probability: Fraction = 1.0
    """part of the images that are rotated, where `rotate` is above 0"""
    flip: Fraction = 0.5
    """probability of a horizontal mirror image"""
    flip_vertical: Fraction = 0.0
    """probability of a vertical mirror image; for images without an up, such as microscopy"""
    transpose: Fraction = 0.0
    """probability of swapping rows and columns; with both mirror images these are all quarter turns, for the same
    images"""
    photometric: NonNegative = 0.4
    """strength of random brightness, contrast and saturation"""
    jitter: Literal["bytes", "float"] = "bytes"
    """what `photometric` changes: bytes, which clip and round, or the numbers that the network sees, as the original"""
    lighting: NonNegative = 0.1
    """standard deviation of the PCA colour shift"""
    eigenvalues: tuple[Level, Level, Level] = (0.2141788, 0.01817699, 0.00341571)
    """variances along the principal colours, those of ImageNet (Krizhevsky et al., 2012)"""
    eigenvectors: tuple[tuple[Level, Level, Level], tuple[Level, Level, Level], tuple[Level, Level, Level]] = (
        (-0.58752847, -0.69563484, 0.41340352),
        (-0.5832747, 0.00994535, -0.81221408),
        (-0.56089297, 0.71832671, 0.41158938),
    )
    """the principal colours as columns; the original applies them to B, G, R in this order"""


class Optimizer(Section):
    """How weights follow gradients."""

    name: Literal["adam", "adamw", "muon", "sgd"] = "adamw"
    """algorithm; muon is AdamW with orthogonal steps for the kernels of hidden layers"""
    lr: Annotated[float, Field(gt=0, le=1e6)] = 1e-3
    """learning rate at `lr_batch` images a step"""
    lr_batch: Positive = 8
    """batch that `lr` is meant for"""
    lr_scaling: Literal["sqrt", "linear", "none"] = "sqrt"
    """how the rate follows another effective batch (sqrt suits Adam, linear SGD and upstream's recipes)"""
    offset_lr: NonNegative = 0.1
    """rate of the layers that say where deformable convolutions look, relative to `lr`; at the full rate Adam moves
    them by pixels a step, before there is anything to look at"""
    weight_decay: NonNegative = 0.05
    """decay of weights with two or more dimensions; norms and biases are left alone"""
    decay: tuple[Text, ...] | None = Field(default=None, max_length=1000)
    """names of weights that decay, as patterns (`*norm*`), ! before a pattern excludes, the last that fits counts;
    empty: all with two or more dimensions"""
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    """Adam's averages"""
    eps: Annotated[float, Field(gt=0, le=1)] = 1e-8
    """added to Adam's divisor"""
    momentum: Fraction = 0.9
    """SGD's and Muon's momentum"""
    decay_biases: bool = False
    """biases and other weights of one dimension decay as well, those of norms excepted (detectron2)"""
    clip_norm: NonNegative = 35.0
    """largest gradient norm; 0 never clips"""
    clip_value: NonNegative = 0.0
    """largest absolute value of each number of a gradient; 0 never clips"""


class Schedule(Section):
    """How long to train and how the learning rate moves."""

    epochs: Positive = 60
    """passes over the training images"""
    name: Literal["onecycle", "cosine", "multistep", "poly", "constant"] = "onecycle"
    """shape after the warm-up"""
    unit: Literal["epochs", "updates"] = "epochs"
    """what `warmup` and `milestones` count"""
    warmup: NonNegative = 3.0
    """length of the rising rate; for onecycle the rising part"""
    warmup_steps: Annotated[int, Field(ge=0, le=10**9)] | None = None
    """updates of rising rate, in the place of `warmup`"""
    warmup_start: Fraction = 0.04
    """rate at step 0 relative to the peak"""
    milestones: Annotated[tuple[Positive, ...], Field(max_length=1000)] = (90, 120)
    """multistep: where the rate drops"""
    gamma: Fraction = 0.1
    """multistep: factor of each drop"""
    power: NonNegative = 0.9
    """poly: exponent"""
    final: Fraction = 0.002
    """onecycle, cosine, poly: rate at the end relative to the peak"""


class Train(Section):
    """The loop: batches, precision, state on disk."""

    batch_size: Count | None = 8
    """images per process and micro-step, whatever the number of processes; empty where `global_batch` is given"""
    global_batch: Count | None = None
    """images per update over all processes and micro-steps, which share them evenly; in the place of `batch_size`"""
    accumulate: Count = 1
    """micro-steps per update; the effective batch is batch_size x accumulate x processes, or global_batch"""
    sync_bn: bool = False
    """several processes: take the statistics of batch norms over all of them, as one process with the whole batch
    would; for small batches"""
    freeze: Literal["none", "backbone"] | Annotated[int, Field(ge=1, le=1000)] = "none"
    """weights that stay as they are, with the statistics of their norms: those of the whole backbone, or of its first N
    layers and blocks, which the run names; for small sets, with --weights or --backbone-weights"""
    amp: Precision = "auto"
    """precision of forward and backward passes; auto takes what the device runs fast, off is another word for fp32"""
    loss_scale: Literal["auto", "dynamic", "off"] | Annotated[float, Field(gt=0, le=2.0**24)] = "auto"
    """factor of the loss that keeps small gradients from vanishing in fp16: dynamic halves it after an overflow and
    doubles it later, a number stays; auto is dynamic in fp16 and off otherwise"""
    overflows: Positive = 50
    """updates in a row that may be skipped because a scaled loss or gradient overflows, before the run ends"""
    channels_last: bool = True
    """memory format of weights and images"""
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
    checkpoints: bool = True
    """write states and weights; without them a run leaves its log and report alone, and cannot be resumed"""
    sample_batches: Annotated[int, Field(ge=0, le=10**9)] = 2
    """first batches drawn with their targets into samples/"""

    @model_validator(mode="before")
    @classmethod
    def _one_batch(cls, content: Any) -> Any:
        """Leave `batch_size` empty where `global_batch` alone is given. Raises ValueError for both and for none."""
        if not isinstance(content, Mapping):
            return content
        whole, share = content.get("global_batch"), content.get("batch_size", cls.model_fields["batch_size"].default)
        if whole is not None and content.get("batch_size") is not None:
            raise ValueError("train.batch_size (per process) or train.global_batch (over all), not both")
        if whole is None and share is None:
            raise ValueError("train.batch_size or train.global_batch must be a number")
        return content if whole is None else {**content, "batch_size": None}

    def images_per_process(self, processes: int = 1) -> int:
        """Return the images of each micro-step in each of `processes`.

        Raises ConfigError when they cannot share `global_batch` evenly.
        """
        if self.batch_size is not None:
            return self.batch_size
        whole, parts = self.global_batch or 0, processes * self.accumulate
        if whole % parts:
            shared = whole // self.accumulate if whole % self.accumulate == 0 else 0
            divisors = [n for n in range(1, min(shared, 1024) + 1) if shared % n == 0]
            raise ConfigError(
                f"a global batch of {whole} images cannot be shared evenly",
                got=f"{processes} processes" + (f" x {self.accumulate} micro-steps" if self.accumulate > 1 else ""),
                processes=f"{', '.join(map(str, divisors))} can" if divisors else None,
                hint="another --nproc, --global-batch N, or --batch-size N for each process; the learning rate scales",
            )
        return whole // parts


class Evaluation(Section):
    """How predictions are decoded and scored."""

    top_k: Detected = 100
    """peaks taken from the heatmap of one image"""
    max_detections: Detected = 100
    """detections kept per image after merging scales"""
    score_floor: Fraction = 0.0
    """detections below are dropped before scoring; 0 for AP"""
    batch_size: Count = 8
    """images per forward pass; affects speed only"""
    keep_res: bool = False
    """keep resolution and pad; otherwise scale, keeping aspect, into image_size"""
    image_size: Annotated[tuple[TestSide, TestSide], BeforeValidator(pair)] | None = None
    """test input as (height, width), of any size: padded to what the network divides; empty means `data.image_size`"""
    stretch: bool = False
    """stretch the image to sides that are multiples, which changes its aspect by a little"""
    test_scale: Annotated[float, Field(gt=0, le=16)] = 1.0
    """test input relative to data.image_size, rounded to multiples as there: above 1 where training crops show objects
    larger than a whole image would (Touvron et al., "Fixing the train-test resolution discrepancy", 2019)"""
    short_side: Annotated[int, Field(ge=32, le=LARGEST_SIDE)] | None = None
    """instead of image_size: pixels of an image's shorter side, antialiased when that is less than it has, padded at
    the right and the bottom; every image keeps its shape (detectron2)"""
    long_side: Annotated[int, Field(ge=32, le=LARGEST_SIDE)] = 1333
    """short_side: most pixels of the longer side"""
    flip: bool = False
    """average with the mirrored image"""
    scales: tuple[Annotated[float, Field(ge=0.05, le=16)], ...] = Field(default=(1.0,), min_length=1, max_length=32)
    """test scales; several are merged by soft-NMS"""
    tiles: Annotated[int, Field(ge=0, le=LARGEST_SIDE)] = 0
    """side in image pixels of square tiles that large images are shown in, beside the whole; merged by hard NMS unless
    `nms` is soft; 0 shows the whole alone"""
    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.2
    """part of its side that a tile shares with the next one; objects of that size are whole in one of them"""
    nms: Literal["none", "soft", "hard"] = "none"
    """NMS after decoding; upstream uses soft with several scales"""


class Recipe(Section):
    """One run, whole."""

    name: Name = "unnamed"
    """name of the recipe: that of its file; run folders are called after it"""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """seed of weights, order and augmentation"""
    model: SerializeAsAny[Model] = Field(default_factory=dict, validate_default=True)
    data: Data = Data()
    augment: Augment = Augment()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    loss: SerializeAsAny[Loss] = Field(default_factory=dict, validate_default=True)
    train: Train = Train()
    evaluation: Evaluation = Evaluation()

    @field_validator("model", mode="plain")
    @classmethod
    def _model_of_family(cls, value: object) -> Model:
        """Return the settings of the family that `model.family` names; without it, of the default one."""
        if isinstance(value, Model):
            return value
        content: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
        return settings_of(content.get("family", DEFAULT)).model.model_validate(value)

    @field_validator("loss", mode="plain")
    @classmethod
    def _loss_of_family(cls, value: object, info: ValidationInfo) -> Loss:
        if isinstance(value, Loss) or "model" not in info.data:  # whose mistake comes first
            return value if isinstance(value, Loss) else Loss()
        return SETTINGS[info.data["model"].family].loss.model_validate(value)

    @model_validator(mode="after")
    def _agree(self) -> Recipe:
        multiple = self.model.size_multiple
        if any(side % multiple for side in self.data.image_size):
            raise ValueError(f"data.image_size must be in multiples of {multiple} for {self.model.backbone}")
        height, width = self.data.image_size
        if height * width > LARGEST_AREA:
            raise ValueError(f"data.image_size must be at most {LARGEST_AREA} pixels, height times width")
        test = self.evaluation
        if max(test.image_size or self.data.image_size) * test.test_scale * max(test.scales) > LARGEST_SIDE:
            raise ValueError(f"the test input x test_scale x scales must be at most {LARGEST_SIDE} pixels")
        if test.keep_res and test.stretch:
            raise ValueError("evaluation.keep_res and evaluation.stretch are two ways to show an image: choose one")
        if type(self.loss) is not SETTINGS[self.model.family].loss:
            raise ValueError(f"loss: {type(self.loss).__name__} is not for the family {self.model.family}")
        self.loss.check(self.model)
        if self.data.value_range and self.data.value_range[0] >= self.data.value_range[1]:
            raise ValueError("data.value_range must be two numbers, low < high")
        if any(s <= 0 for s in self.data.std):
            raise ValueError("data.std must be above 0")
        if list(self.augment.anchors) != sorted(set(self.augment.anchors)):
            raise ValueError("augment.anchors must rise")
        low, high = self.augment.scale
        if not 0 < low <= high:
            raise ValueError("augment.scale must be two numbers, 0 < low <= high")
        return self
