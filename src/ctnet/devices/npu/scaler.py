"""torch_npu's loss scaler with a portable state_dict; its prints go to stderr."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stdout
from typing import Any

import torch


class _Log(io.TextIOBase):
    """Writes to the current sys.stderr."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)


TO_LOG = _Log()


def portable(vendor_scaler: type[torch.amp.GradScaler]) -> type[torch.amp.GradScaler]:
    """Return the vendor's class with the state of `torch.amp.GradScaler`.

    The vendor's state has one entry more, `dynamic`, without which it refuses to load; here the scale is always
    dynamic. The vendor prints when a step is skipped, and standard output is for results.
    """

    class PortableScaler(vendor_scaler):  # type: ignore[misc,valid-type]
        def state_dict(self) -> dict[str, Any]:
            return {key: value for key, value in super().state_dict().items() if key != "dynamic"}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            super().load_state_dict({"dynamic": True, **state_dict})

        def step(self, *arguments: Any, **options: Any) -> float | None:
            with redirect_stdout(TO_LOG):
                result: float | None = super().step(*arguments, **options)
                return result

        def update(self, *arguments: Any, **options: Any) -> None:
            with redirect_stdout(TO_LOG):
                super().update(*arguments, **options)

    return PortableScaler
