"""Class names for files that do not carry them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ctnet.types import Category

_COCO = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign parking_meter "
    "bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie suitcase frisbee "
    "skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle wine_glass "
    "cup fork knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch "
    "potted_plant bed dining_table toilet tv laptop mouse remote keyboard cell_phone microwave oven toaster sink "
    "refrigerator book clock vase scissors teddy_bear hair_drier toothbrush"
)
_VOC = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep "
    "sofa train tvmonitor"
)
_NO_COCO_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # numbers of 1..90 that COCO's boxes never use

COCO = tuple(
    Category(id_, name.replace("_", " "))
    for id_, name in zip((i for i in range(1, 91) if i not in _NO_COCO_IDS), _COCO.split(), strict=True)
)
VOC = tuple(Category(number, name) for number, name in enumerate(_VOC.split(), start=1))


def categories_of(num_classes: int, names: Sequence[str] | None = None) -> tuple[Category, ...]:
    """Return the categories of a file: by the names in it, else those of COCO (80) or VOC (20), else `class N`.

    COCO's names come with COCO's ids, all others are numbered from 1.
    """
    for known in (COCO, VOC):
        if len(known) == num_classes and (names is None or [c.name for c in known] == list(names)):
            return known
    if names is None or len(names) != num_classes:
        names = [f"class {number}" for number in range(1, num_classes + 1)]
    return tuple(Category(number, name) for number, name in enumerate(names, start=1))


def are_placeholders(categories: Sequence[Category]) -> bool:
    """Return whether these are the numbered names of a file that does not name its classes."""
    return all(re.fullmatch(r"class \d+", category.name) for category in categories)
