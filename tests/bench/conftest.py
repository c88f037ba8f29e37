"""Files of a small network, written once."""

import pytest

from ctnet.bench.subject import open_subject
from ctnet.export.export import ExportOptions, export
from ctnet.export.formats import format_named
from ctnet.weights.ctnet_file import save_weights


@pytest.fixture(scope="session")
def small_files(tmp_path_factory):
    """MobileNetV2 at 64 x 96 as weights and as an exported program that takes two images."""
    folder = tmp_path_factory.mktemp("network")
    subject = open_subject("centernet_mobilenetv2", None, (64, 96))
    save_weights(folder / "small.safetensors", subject.weights)
    options = ExportOptions("raw", (64, 96), batch=2)
    export(subject.network, subject.weights, format_named("pt2"), folder / "small.pt2", options, [])
    return folder


@pytest.fixture
def images(small_set):
    """Six little images."""
    return tuple(sorted((small_set / "images" / "val").iterdir()))
