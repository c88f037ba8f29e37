"""Parts of the backbone that training leaves as they are."""

from __future__ import annotations

from typing import Literal

from torch import nn

from ctnet.errors import ConfigError

Freeze = Literal["none", "backbone"] | int


def backbone_parts(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the backbone's layers and blocks with weights by name, in the order in which an image passes them."""
    place, module = "backbone", network.get_submodule("backbone")
    while True:
        inside = [(f"{place}.{name}", child) for name, child in module.named_children() if [*child.parameters()]]
        if len(inside) != 1:
            return inside
        ((place, module),) = inside


def freeze(network: nn.Module, setting: Freeze) -> str:
    """Freeze what the setting names, in place, and return a sentence about it, empty for nothing.

    Frozen weights get no gradient and frozen batch norms keep their statistics; call it after `network.train()`.
    Raises ConfigError for more parts than the backbone has.
    """
    if setting == "none":
        return ""
    parts = backbone_parts(network)
    if isinstance(setting, int):
        if setting > len(parts):
            raise ConfigError(
                "the backbone has fewer parts", setting="train.freeze", got=setting,
                expected=f"backbone, or 1 to {len(parts)}: {', '.join(name for name, _ in parts)}",
            )  # fmt: skip
        frozen = parts[:setting]
    else:
        frozen = [("backbone", network.get_submodule("backbone"))]
    for _, module in frozen:
        module.requires_grad_(False).eval()
    count = sum(p.numel() for _, module in frozen for p in module.parameters())
    whole = sum(p.numel() for p in network.parameters())
    names = ", ".join(name for name, _ in frozen)
    return f"frozen: {names} ({count / 1e6:.1f} of {whole / 1e6:.1f} M parameters)"
