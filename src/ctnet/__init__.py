"""ctnet: centre-point detectors, from data to deployed file, on any accelerator."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from ctnet._version import __version__

if _TYPE_CHECKING:
    from ctnet.data.image import read_image
    from ctnet.detect.detector import Detector
    from ctnet.detect.opening import load_detector
    from ctnet.errors import CtnetError
    from ctnet.types import Detections

__all__ = ["CtnetError", "Detections", "Detector", "__version__", "load_detector", "read_image"]

_ROOMS = {
    "CtnetError": "errors",
    "Detections": "types",
    "Detector": "detect.detector",
    "load_detector": "detect.opening",
    "read_image": "data.image",
}


def __getattr__(name: str) -> object:
    """Import what is public on first use, so that `ctnet --help` never waits for torch."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'ctnet' has no attribute {name!r}")
    return getattr(_import_module(f"ctnet.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
