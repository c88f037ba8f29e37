"""Reading foreign checkpoints: bytes to named tensors, from any project, without executing anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ctnet.terminal import printable
from ctnet.weights.containers.kind import Kind, find_kind
from ctnet.weights.containers.mindspore_file import read_mindspore
from ctnet.weights.containers.network_part import split
from ctnet.weights.containers.onnx_file import read_onnx
from ctnet.weights.containers.pickle_file import load_pickle
from ctnet.weights.containers.refusals import damaged, no_weights
from ctnet.weights.containers.safetensors_file import read_safetensors
from ctnet.weights.containers.torch_file import load_torch_legacy, load_torch_zip


@dataclass(frozen=True)
class Container:
    """What a file of weights holds.

    `tensors` are those of the network, on the cpu, under the names and in the types of the file; they may be
    memory-mapped. `part` is the key they were under: "state_dict", "model", "" for a
    bare dictionary. `meta` holds all other plain values: numbers, strings, lists, dictionaries, under their own keys.
    """

    kind: Kind
    tensors: Mapping[str, Tensor]
    part: str
    meta: Mapping[str, Any]


def read_container(path: Path) -> Container:
    """Return the content of a file of weights of any kind, found from its bytes.

    Raises WeightsError when it is missing, broken, holds no network, or refers to code.
    """
    kind = find_kind(path)
    read = {"safetensors": read_safetensors, "mindspore": read_mindspore, "onnx": read_onnx}.get(kind)
    if read is not None:
        part, (tensors, meta) = "", read(path)
    else:
        load = {"torch": load_torch_zip, "torch-legacy": load_torch_legacy, "pickle": load_pickle}[kind]
        part, tensors, meta = split(load(path), path)
    if not tensors and kind == "onnx":
        raise no_weights(path, "an ONNX model", "of ONNX files CenterFace's published centerface.onnx is read")
    if not tensors:
        raise no_weights(path, "a file without tensors")
    for name in tensors:
        if printable(name) != name:  # no program names a tensor so
            raise damaged(path, f"a tensor has the name {name!r}")
    return Container(kind, tensors, part, meta)
