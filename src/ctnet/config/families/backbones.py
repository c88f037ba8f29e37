"""The backbones, as data. A new one is a file of `ctnet.models` and a row here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ctnet.types import FeatureSpec


@dataclass(frozen=True)
class Backbone:
    """A network that turns an image into maps.

    `build` is `module:function` below `ctnet.models`; it gets the `model` section and returns the network, whose
    maps are `specs`, finest first. `settings` are those of the `model` section
    that apply to it, `necks` the choices for `model.neck`, or none where there is no choice. `foreign` has,
    for each project whose detectors use it, `module:function` below `ctnet.weights`, the names of its tensors there.
    """

    build: str
    specs: tuple[FeatureSpec, ...]
    settings: frozenset[str]
    necks: tuple[str, ...] = ()
    size_multiple: int = 32
    foreign: Mapping[str, str] = field(default_factory=dict)


def _at_strides_4_to_32(*channels: int) -> tuple[FeatureSpec, ...]:
    return tuple(FeatureSpec(width, 4 << i) for i, width in enumerate(channels))


def _resnet(*channels: int, more: frozenset[str] = frozenset()) -> Backbone:
    return Backbone(
        "resnet:build_resnet",
        _at_strides_4_to_32(*channels),
        frozenset({"neck", "neck_channels", "deform_bias", "dense_up", "stride"}) | more,
        ("deform", "conv", "plain", "lateral"),
        foreign={"centernet": "centernet_names:resnet_pairs", "mmdet": "mmdet_names:mmdet_pairs"},
    )


_BOTTLENECKS = _resnet(256, 512, 1024, 2048, more=frozenset({"stride_in_1x1"}))

BACKBONES: dict[str, Backbone] = {
    "resnet18": _resnet(64, 128, 256, 512),
    "resnet34": _resnet(64, 128, 256, 512),
    "resnet50": _BOTTLENECKS,
    "resnet101": _BOTTLENECKS,
    "resnet152": _BOTTLENECKS,
    "dla34": Backbone(
        "dla:build_dla34",
        _at_strides_4_to_32(64, 128, 256, 512),
        frozenset({"neck", "deform_bias"}),
        ("deform", "plain"),
        foreign={"centernet": "centernet_names:dla34_pairs"},
    ),
    "hourglass104": Backbone(
        "hourglass:build_hourglass104",
        (FeatureSpec(256, 4),) * 2,  # one a stack, the last the best
        frozenset(),
        size_multiple=128,
        foreign={"centernet": "centernet_names:hourglass_pairs"},
    ),
    "mobilenetv2": Backbone(
        "mobilenet:build_mobilenetv2",
        _at_strides_4_to_32(24, 32, 96, 320),
        frozenset({"neck_channels", "relu6", "dense_up"}),
        foreign={"centerface": "mobilenet_names:centerface_pairs"},
    ),
}


def known_backbone(name: str) -> str:
    """Return the name. Raises ValueError when the table has no such row."""
    if name not in BACKBONES:
        raise ValueError(f"one of {', '.join(BACKBONES)}")
    return name
