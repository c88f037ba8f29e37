"""Backbones trained elsewhere, from a file or an address that the user names; nothing else is downloaded."""

from __future__ import annotations

import http.client
import re
import urllib.error
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import nn

from ctnet.config import Data, Model
from ctnet.errors import ConfigError, WeightsError
from ctnet.files import cache_folder, sha256_of
from ctnet.weights.containers import read_container
from ctnet.weights.ctnet_file import is_own, own_weights
from ctnet.weights.fit import load_exactly
from ctnet.weights.foreign import read_foreign

PREFIX = "backbone."


def load_backbone(network: nn.Module, source: str, model: Model, data: Data) -> list[str]:
    """Load the network's backbone from any file that holds one and return sentences about it.

    `source` is a path, or an address as `fetch` takes it. Raises WeightsError when the file holds another backbone.
    """
    path = fetch(source) if is_address(source) else Path(source)
    container = read_container(path)
    if is_own(container):
        own = own_weights(container, path)
        tensors, theirs, title = own.tensors, own.recipe.model, f"{own.recipe.name} of ctnet"
        names, settings = own.file_names, tuple[str, ...]()
    else:
        reading = read_foreign(container, path, backbone_only=True)
        tensors, theirs, title, names = reading.tensors, reading.model, reading.format.title, reading.file_names
        settings = reading.format.input_settings
    if theirs.backbone != model.backbone:
        raise WeightsError("the file holds another backbone", file=source, expected=model.backbone, got=theirs.backbone)
    if theirs.stride_in_1x1 != model.stride_in_1x1 and model.backbone in ("resnet50", "resnet101", "resnet152"):
        raise WeightsError(
            "the file's bottlenecks have their stride in the other convolution",
            file=source,
            hint=f"model.stride_in_1x1={str(theirs.stride_in_1x1).lower()} builds such a backbone",
        )
    backbone = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    names = {ours.removeprefix(PREFIX): name for ours, name in names.items()}
    load_exactly(network.get_submodule("backbone"), backbone, source, names)
    sentences = [f"backbone from {source}: {title}, {len(backbone)} tensors"]
    wanted = [setting for setting in settings if not _agrees(setting, data)]
    if wanted:
        sentences.append(f"it was trained on images with {' '.join(wanted)}; this run keeps the recipe's")
    return sentences


def _agrees(setting: str, data: Data) -> bool:
    key, _, value = setting.removeprefix("data.").partition("=")
    own = getattr(data, key)
    return own == value if isinstance(own, str) else str(list(own)).replace(" ", "") == value


def is_address(source: str) -> bool:
    """Return whether `source` is a URL, not a path."""
    return "://" in source


def fetch(address: str) -> Path:
    """Return the file at an http(s) address, kept in `CTNET_HOME/weights` and checked against its SHA-256.

    The hash is the address's fragment (`#sha256=HEX`) or the digits that torch's files carry (`NAME-HEX.pth`).
    Raises ConfigError without a hash, WeightsError when the download fails or has another hash.
    """
    parts = urlsplit(address)
    name = Path(parts.path).name
    stamped = re.search(r"-([0-9a-f]{8,64})\.\w+$", name)
    given = re.fullmatch(r"sha256=([0-9a-f]{8,64})", parts.fragment.lower())
    found = given or stamped
    if parts.scheme not in ("http", "https") or not name:
        raise ConfigError("not a URL of a file", got=address, expected="https://HOST/FILE")
    if found is None:
        raise ConfigError(
            "the URL has no SHA-256",
            got=address,
            expected="a name that ends in -HASH.pth",
            hint="add #sha256=HEX",
        )
    path = cache_folder() / "weights" / name
    if path.is_file() and sha256_of(path).startswith(found[1]):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(parts._replace(fragment="").geturl(), str(path), found[1])
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise WeightsError("the download failed", address=address, got=getattr(error, "reason", error)) from None
    except RuntimeError:
        raise WeightsError(
            "the file at the address is not the one asked for", address=address, expected=f"sha256 {found[1]}..."
        ) from None
    return path
