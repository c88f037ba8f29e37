"""safetensors: a header in JSON and plain numbers (https://github.com/huggingface/safetensors)."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ctnet.limits import HEADER_BYTES, TENSORS
from ctnet.weights.containers.refusals import damaged


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata. Raises WeightsError when the file is not whole."""
    try:
        with path.open("rb") as head:
            HEADER_BYTES.check(int.from_bytes(head.read(8), "little"))
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            TENSORS.check(len(names))
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise damaged(path, error) from None
