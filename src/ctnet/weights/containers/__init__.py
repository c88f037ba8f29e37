"""Files of tensors: bytes become named tensors and plain facts; nothing in a file is ever executed."""

from ctnet.weights.containers.container import Container
from ctnet.weights.containers.reading import read_container
from ctnet.weights.containers.torch_file import load_plain, write_torch

__all__ = ["Container", "load_plain", "read_container", "write_torch"]
