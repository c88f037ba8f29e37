"""Exported files as networks, for every runtime."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctnet.errors import ConfigError, CtnetError, WeightsError
from ctnet.export.formats import Runtime
from ctnet.types import Instances


class RuntimeNetwork(nn.Module):
    """A runtime that takes batches of any number, cut and filled up to what its graph takes."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self.runtime = runtime

    def forward(self, images: Tensor) -> list[dict[str, Tensor]] | Instances:
        """Return what a network of the family returns, or instances where the graph decodes."""
        outputs = self.named(images)
        return Instances.of(outputs) if self.runtime.about.output == "decoded" else [outputs]

    def named(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs of (N,3,H,W) images by name. Raises ConfigError for a size that the graph lacks."""
        about, (height, width) = self.runtime.about, images.shape[2:]
        if about.size is not None and about.size != (height, width):
            raise ConfigError(
                "the exported graph takes images of one size",
                expected="x".join(map(str, about.size)),
                got=f"{height}x{width}",
                hint="leave --image-size, --scales and --keep-res alone, or export with --image-size dynamic",
            )
        try:
            if about.batch is None:
                return dict(self.runtime(images))
            parts = [self._fixed(part, about.batch) for part in torch.split(images, about.batch)]
        except (CtnetError, MemoryError):
            raise
        except Exception as error:  # classes differ by runtime: the graph does not match the metadata
            raise WeightsError("the exported graph fails", got=str(error)[:300] or type(error).__name__) from None
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _fixed(self, images: Tensor, batch: int) -> dict[str, Tensor]:
        missing = batch - len(images)
        filled = torch.cat([images, images[:1].expand(missing, -1, -1, -1)]) if missing else images
        return {name: values[: len(images)] for name, values in self.runtime(filled).items()}
