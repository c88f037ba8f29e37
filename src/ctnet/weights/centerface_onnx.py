"""CenterFace's published ONNX file (Star-Clouds/CenterFace) as a network that can be trained.

Its graph is MobileNetV2 with plain ReLU, an up path of dense transposed convolutions, and four heads: probability,
height and width (logarithms of cells), offset (y, x, from the middle of the cell) and landmarks (y, x, in sides of the
box). All norms but three are folded into the convolutions before them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ctnet.config import CenterFaceModel
from ctnet.errors import WeightsError
from ctnet.families import build_network
from ctnet.models.lateral_neck import EPS
from ctnet.models.mobilenet import ROWS, TAPS
from ctnet.nn import restate_norms
from ctnet.types import FACE
from ctnet.weights.containers import Container
from ctnet.weights.ctnet_file import FOLDED
from ctnet.weights.formats import Format

CENTERFACE_ONNX = Format(
    "centerface-onnx",
    "CenterFace (Star-Clouds, ONNX)",
    lambda names: None,  # it is known by its graph
    lambda model: (),
    recipe=lambda model, classes: "centerface_mobilenetv2_onnx",
    class_name=lambda model: "face",
    info={FOLDED: "true"},
)
NORMS_RESTORED = "its norms were folded into convolutions; training begins with statistics of its own images"
MODEL = CenterFaceModel(
    heads=("heatmap", "log_size", "offset", "box_landmarks"), neck_channels=(256, 128, 24), relu6=False, dense_up=True
)
# Rows of a head that are y, then x, in the file.
_SWAPPED = {
    name: [i ^ 1 for i in range(count)] for name, count in (("log_size", 2), ("offset", 2), ("box_landmarks", 10))
}

_WINDOW = (("strides", [1, 1]), ("pads", [0, 0, 0, 0]), ("group", 1), ("dilations", [1, 1]))

Node = tuple[str, tuple[int, ...]]
"""operator, and the places of the nodes that it takes its inputs from, -1 for the images"""


def centerface_tensors(
    container: Container, source: object
) -> tuple[CenterFaceModel, dict[str, Tensor], dict[str, str]]:
    """Return the `model` section, the tensors under our names, and the file's names of them.

    The network computes what the graph does. Raises WeightsError for another graph.
    """
    reason = differs(container.tensors, container.meta)
    if reason:
        raise WeightsError(
            "the ONNX file is no network that ctnet can train", file=source, got=reason,
            expected="CenterFace as published (Star-Clouds/CenterFace, centerface.onnx)",
            hint="ctnet export writes ONNX files from weights; train those weights instead",
        )  # fmt: skip
    network = build_network(MODEL, 1, FACE).eval()
    names = _load(network, container)
    restate_norms(network, _noise_images())
    return MODEL, dict(network.state_dict()), names


def differs(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> str | None:
    """Return what of a graph is not CenterFace's, None where all of it is."""
    nodes, made = meta["nodes"], {name: i for i, node in enumerate(meta["nodes"]) for name in node[2]}
    expected = _graph()
    for i, (operator, _, _, _) in enumerate(nodes[: len(expected)]):
        if operator != expected[i][0]:
            return f"{operator[:40]} where {expected[i][0]} belongs, node {i}"
    if len(nodes) != len(expected):
        return f"a graph of {len(nodes)} nodes, not {len(expected)}"
    for i, (operator, inputs, _, attributes) in enumerate(nodes):
        data = tuple(sorted(made.get(name, -1) for name in inputs if name not in tensors))
        if data != tuple(sorted(expected[i][1])):
            return f"other connections, node {i} ({operator})"
        epsilon = attributes.get("epsilon")
        if operator == "BatchNormalization" and not (isinstance(epsilon, float) and abs(epsilon - EPS) < 1e-6):
            return f"another epsilon, node {i}"
    if [made.get(name) for name in meta["outputs"]] != [len(nodes) - i for i in (4, 3, 2, 1)]:
        return "other outputs"
    with torch.device("meta"):
        layers = _layers(build_network(MODEL, 1, FACE))
    windows = {id(node): layer for (_, layer), node in zip(layers, _convolutions(nodes), strict=True)}
    for i, node in enumerate(nodes):
        layer = windows.get(id(node))
        shapes_differ = _numbers(node, tensors) != _expected_numbers(node[0], layer)
        if shapes_differ or (layer is not None and _window(node) != _window_of(layer)):
            return f"other numbers or another window, node {i} ({node[0]})"
    return None


def _numbers(node: Any, tensors: Mapping[str, Tensor]) -> list[tuple[int, ...] | None]:
    """Return the shapes of the numbers that a node takes behind its data, None for what is no float32."""
    found = [tensors.get(name) for name in (() if node[0] == "Add" else node[1][1:])]
    return [tuple(t.shape) if t is not None and t.dtype == torch.float32 else None for t in found]


def _expected_numbers(operator: str, layer: Any) -> list[tuple[int, ...] | None]:
    if layer is not None:
        shape = tuple(layer.weight.shape)
        return [shape] if operator == "ConvTranspose" else [shape, shape[:1]]
    return [(MODEL.neck_channels[-1],)] * 4 if operator == "BatchNormalization" else []


def _window(node: Any) -> list[Any]:
    return [node[3].get(key, otherwise) for key, otherwise in _WINDOW]


def _window_of(layer: Any) -> list[Any]:
    return [list(layer.stride), [layer.padding[0]] * 4, layer.groups, [1, 1]]


def _graph() -> list[Node]:
    """Return the nodes of the published graph."""
    nodes: list[Node] = []

    def add(last: int, *operators: str) -> int:
        for operator in operators:
            nodes.append((operator, (last,)))
            last = len(nodes) - 1
        return last

    def join(first: int, second: int) -> int:
        nodes.append(("Add", (first, second)))
        return len(nodes) - 1

    last = add(-1, "Conv", "Relu")
    taps, block, channels = [], 0, 32
    for expansion, width, repeats, stride in ROWS:
        for repeat in range(repeats):
            block, entering = block + 1, last
            last = add(last, *(("Conv", "Relu") if expansion > 1 else ()), "Conv", "Relu", "Conv")
            if channels == width and (repeat or stride == 1):
                last = join(entering, last)
            channels = width
            if block in TAPS:
                taps.append(last)
    last = add(last, "Conv", "Relu")
    for tap in reversed(taps[:-1]):
        enlarged = add(last, "ConvTranspose", "BatchNormalization", "Relu")
        last = join(enlarged, add(tap, "Conv", "Relu"))
    last = add(last, "Conv", "Relu")
    add(last, "Conv", "Sigmoid")
    for _ in range(3):
        add(last, "Conv")
    return nodes


def _convolutions(nodes: list[Any]) -> list[Any]:
    return [node for node in nodes if node[0] in ("Conv", "ConvTranspose")]


def _layers(network: nn.Module) -> list[tuple[str, Any]]:
    """Return the convolutions by name, in the order of the graph."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    return [(name, layer) for name, layer in network.named_modules() if isinstance(layer, kinds)]


@torch.no_grad()
def _load(network: nn.Module, container: Container) -> dict[str, str]:
    """Load the graph's numbers, norms as nothing but a shift where they are folded; return the file's names."""
    tensors, nodes = container.tensors, container.meta["nodes"]
    after = {node[1][0]: node for node in nodes if node[0] == "BatchNormalization"}
    norms = _norms(network)
    names: dict[str, str] = {}
    for (name, layer), node in zip(_layers(network), _convolutions(nodes), strict=True):
        names[f"{name}.weight"] = node[1][1]
        layer.weight.copy_(tensors[node[1][1]])
        if name in norms:
            of_norm, norm = norms[name]
            parts = ("weight", "bias", "running_mean", "running_var")
            if kept := after.get(node[2][0]):
                for part, theirs in zip(parts, kept[1][1:], strict=True):
                    getattr(norm, part).copy_(tensors[theirs])
                    names[f"{of_norm}.{part}"] = theirs
            else:
                norm.bias.copy_(tensors[node[1][2]])
                norm.running_var.fill_(1 - norm.eps)
                names[f"{of_norm}.bias"] = node[1][2]
            continue
        layer.bias.copy_(tensors[node[1][2]])
        names[f"{name}.bias"] = node[1][2]
        head = name.removeprefix("heads.")
        if head in _SWAPPED:
            layer.weight.copy_(layer.weight[_SWAPPED[head]])
            layer.bias.copy_(layer.bias[_SWAPPED[head]] + (0.5 if head == "offset" else 0.0))
    return names


def _norms(network: nn.Module) -> dict[str, tuple[str, Any]]:
    """Return the norm after each convolution that has one, by the convolution's name, with its own name."""
    found, before = {}, ""
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            before = name
        elif isinstance(module, nn.BatchNorm2d):
            found[before] = name, module
    return found


def _noise_images(count: int = 4, side: int = 256) -> Tensor:
    """Return (N,3,H,W) images of values 0..255 whose amplitudes fall as 1 / frequency, as those of images do.

    Source of the spectrum: Field, "Relations between the statistics of natural images ...", 1987.
    """
    generator = torch.Generator().manual_seed(0)
    frequency = torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None]).clamp(min=1 / side)
    phase = 2 * math.pi * torch.rand(count, 3, side, side // 2 + 1, generator=generator)
    noise = torch.fft.irfft2(torch.polar(1 / frequency.expand_as(phase), phase), s=(side, side))
    gray = noise[:, :1]
    mixed = 0.8 * gray + 0.2 * noise
    images: Tensor = (mixed / mixed.std() * 60 + 118).clamp(0, 255)
    return images
