"""Speed-up and loss of AP of an int8 file, compared with its float32 file."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ctnet.bench.timing import Iterations, durations, latency, take_turns
from ctnet.data.image import Image
from ctnet.detect.detector import Detector
from ctnet.detect.opening import open_exported
from ctnet.eval.evaluate import score
from ctnet.eval.scorer import COCO
from ctnet.export.formats import format_of
from ctnet.export.runtime import RuntimeNetwork
from ctnet.export.verify import AgainstFloat32, image_input
from ctnet.types import AnnotationSet

ITERATIONS = Iterations(timed=20, rounds=5)


def compare_int8(plain: Path, quantized: Path, image: Image, annotations: AnnotationSet | None) -> AgainstFloat32:
    """Return the speed-up on one image, the two files taking turns in this process, and both APs on a set.

    Raises DataError for a set that cannot be scored.
    """
    format = format_of(plain)
    assert format is not None
    detectors = {name: open_exported(file, format) for name, file in (("plain", plain), ("int8", quantized))}
    network = detectors["int8"].model
    assert isinstance(network, RuntimeNetwork)
    batch = network.runtime.about.batch or 1
    images = image_input(image, network.runtime.about).repeat(batch, 1, 1, 1)
    found = take_turns(
        {name: partial(durations, partial(d.model, images)) for name, d in detectors.items()}, ITERATIONS
    )
    speedup = latency(found["plain"]).median / latency(found["int8"]).median
    if annotations is None:
        return AgainstFloat32(speedup, batch)
    return AgainstFloat32(speedup, batch, *(_score(detectors[name], annotations) for name in ("int8", "plain")))


def _score(detector: Detector, annotations: AnnotationSet) -> float | None:
    return score(detector, annotations, detector.recipe.evaluation)[0].numbers()[COCO.primary]
