"""safetensors: a header in JSON and plain numbers (https://github.com/huggingface/safetensors)."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ctnet.weights.containers.refusals import damaged


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata. Raises WeightsError when the file is not whole."""
    try:
        with safe_open(path, framework="pt") as file:
            # `file` is no mapping, though it has keys
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise damaged(path, error) from None
