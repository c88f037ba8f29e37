"""Files of weights as others write them, read into named tensors."""

from ctnet.weights.containers.reading import Container, read_container
from ctnet.weights.containers.torch_file import write_torch

__all__ = ["Container", "read_container", "write_torch"]
