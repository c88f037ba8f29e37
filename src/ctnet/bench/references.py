"""Published figures, shown beside measured ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ctnet.errors import ConfigError, nearest


@dataclass(frozen=True)
class Reference:
    """Images a second by batch size, forward pass alone, and their machine."""

    name: str
    title: str
    recipe: str
    image_size: tuple[int, int]
    images_per_s: Mapping[int, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return {
            "name": self.name,
            "title": self.title,
            "recipe": self.recipe,
            "image_size": self.image_size,
            "images_per_s": {str(batch): rate for batch, rate in self.images_per_s.items()},
        }


REFERENCES = (
    Reference(
        "310p",
        "CenterNet DLA-34 on an Ascend 310P3, inference through ACL alone",
        "centernet_dla34",
        (512, 512),
        {1: 32.14, 4: 34.15, 8: 33.03, 16: 33.63, 32: 31.88},
    ),
)


def reference_named(name: str) -> Reference:
    """Return the published figures of that name. Raises ConfigError for an unknown one."""
    for reference in REFERENCES:
        if reference.name == name:
            return reference
    names = [reference.name for reference in REFERENCES]
    raise ConfigError(f"no published figures named {name!r}", known=", ".join(names), nearest=nearest(name, names))
