"""Published figures, shown beside measured ones of the same network, size, batch and number of devices alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ctnet.errors import ConfigError, nearest


@dataclass(frozen=True)
class Reference:
    """Images a second of a published measurement, and what was measured.

    `rates` are by batch, where it is stated, for inference through a chip's runtime alone; for training, of all devices
    together by their number. `recipe` begins the names of ctnet's recipes of that network; `image_size` and `batch`,
    that of each device, are None where they are not stated: without a batch the figures are shown, but not compared.
    """

    name: str
    title: str
    kind: Literal["inference", "train"]
    recipe: str
    rates: Mapping[int, float]
    image_size: tuple[int, int] | None = None
    batch: int | None = None

    def why_not(self, kind: str, subject: Mapping[str, Any], processes: int = 1) -> str | None:
        """Return in a few words why the figures are of something else than the subject, None where they are not."""
        if kind != self.kind:
            return f"it is of {'training: ctnet bench train' if self.kind == 'train' else 'inference: ctnet bench'}"
        if not str(subject["recipe"]).startswith(self.recipe):
            return f"it is of {self.recipe}"
        if self.image_size is not None and tuple(subject["image_size"]) != self.image_size:
            return f"it is of {self.image_size[0]} x {self.image_size[1]} pixels"
        if self.kind == "train" and processes not in self.rates:
            return f"it is of {' or '.join(map(str, self.rates))} devices"
        return None

    def beside(self, batch: int, processes: int = 1) -> float | None:
        """Return the figure for a batch in each of the processes, None where there is none."""
        if self.kind == "inference":
            return self.rates.get(batch)
        return self.rates.get(processes) if batch == self.batch else None

    def to_dict(self, why_not: str | None, batches: Mapping[int, float | None]) -> dict[str, Any]:
        """Return the figures as JSON values, those `beside` the measured batches too."""
        return {
            "name": self.name,
            "title": self.title,
            "kind": self.kind,
            "recipe": self.recipe,
            "image_size": self.image_size,
            "batch": self.batch,
            "published": {str(number): rate for number, rate in self.rates.items()},
            "not_shown": why_not,
            "images_per_s": {str(batch): rate for batch, rate in batches.items() if rate and why_not is None},
        }


REFERENCES = (
    Reference(
        "310p",
        "CenterNet DLA-34 on an Ascend 310P3, inference through ACL alone",
        "inference",
        "centernet_dla34",
        {1: 32.14, 4: 34.15, 8: 33.03, 16: 33.63, 32: 31.88},
        (512, 512),
    ),
    Reference(
        "910",
        "CenterNet ResNet-18 of MindSpore's model zoo on eight Ascend 910, training with 16 images each",
        "train",
        "centernet_resdcn18_mindspore",
        {8: 590.0},
        (512, 512),
        16,
    ),
    Reference(
        "npu-centernet2", "CenterNet2 R50 1x on Ascend, training, batch not stated", "train", "centernet2",
        {1: 2.86, 8: 18.7},
    ),
    Reference(
        "gpu-centernet2", "CenterNet2 R50 1x on the GPUs of the same comparison, training, batch not stated", "train",
        "centernet2", {1: 12.3, 8: 90.5},
    ),
    Reference(
        "npu-centerface", "CenterFace on Ascend, training, batch not stated", "train", "centerface", {1: 34.5, 8: 41.5}
    ),
    Reference(
        "gpu-centerface", "CenterFace on the GPUs of the same comparison, training, batch not stated", "train",
        "centerface", {1: 28.0, 8: 235.0},
    ),
)  # fmt: skip


def reference_named(name: str) -> Reference:
    """Return the published figures of that name. Raises ConfigError for an unknown one."""
    for reference in REFERENCES:
        if reference.name == name:
            return reference
    names = [reference.name for reference in REFERENCES]
    raise ConfigError(f"no published figures named {name!r}", known=", ".join(names), nearest=nearest(name, names))
