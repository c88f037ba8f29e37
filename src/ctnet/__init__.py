"""ctnet: centre-point detectors, from data to deployed file, on any accelerator."""

from typing import TYPE_CHECKING, Any

from ctnet._version import __version__

if TYPE_CHECKING:
    from ctnet.detect.detector import Detector
    from ctnet.detect.opening import load_detector
    from ctnet.types import Detections

__all__ = ["Detections", "Detector", "__version__", "load_detector"]


def __getattr__(name: str) -> Any:
    """Import the heavy half of the public surface on first use, so that `ctnet --help` never waits for torch."""
    if name == "Detections":
        from ctnet.types import Detections

        return Detections
    if name == "Detector":
        from ctnet.detect.detector import Detector

        return Detector
    if name == "load_detector":
        from ctnet.detect.opening import load_detector

        return load_detector
    raise AttributeError(f"module 'ctnet' has no attribute {name!r}")
