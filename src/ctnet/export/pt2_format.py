"""torch's own exported programs; a deformable network needs ctnet's operators where it is run."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ctnet.devices import open_device
from ctnet.errors import WeightsError
from ctnet.export.about import KEY, About, read_about
from ctnet.export.options import ExportOptions
from ctnet.weights.containers.torch_file import load_torch_zip


def write(program: torch.export.ExportedProgram, about: About, path: Path, options: ExportOptions) -> list[Path]:
    """Write the program and return the file."""
    content = io.BytesIO()  # torch ends the process when it meets a full disk itself
    torch.export.save(program, content, extra_files={KEY: about.to_json()})
    path.write_bytes(content.getbuffer())
    return [path]


class ExportedProgram:
    """A program of `torch.export`, run by torch on the processor."""

    def __init__(self, path: Path) -> None:
        try:
            about = _described(path)
            open_device("cpu")  # its kernels stand behind the program's operators
            program = torch.export.load(path)
        except WeightsError:
            raise
        except Exception as error:  # torch raises whatever a damaged file leads to
            raise WeightsError("torch cannot load the program", file=path, got=str(error)[:300]) from None
        self.about = about
        self.module = program.module()

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """Return the outputs of one batch."""
        with torch.inference_mode():
            return dict(zip(self.about.output_names, self.module(images.contiguous()), strict=True))


def _described(path: Path) -> About:
    """Return what the file says about itself, after a look for parts that torch would unpickle without restriction.

    torch reads weights marked `use_pickle` and objects among the constants that way, and example inputs when its
    restricted reader refuses them. Raises WeightsError.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        for name in names:
            if name.endswith("_config.json"):
                entries = json.loads(archive.read(name))["config"].values()
                if any(e.get("use_pickle") or not e["path_name"].startswith(("weight_", "tensor_")) for e in entries):
                    raise WeightsError("the program holds objects, not only tensors", file=path, got=name)
            elif name.endswith((".pt", ".pth")):
                with tempfile.TemporaryDirectory() as folder:
                    part = Path(folder, "part.pt")
                    part.write_bytes(archive.read(name))
                    load_torch_zip(part)
        text = next((archive.read(name).decode() for name in names if name.endswith(f"extra/{KEY}")), None)
    return read_about(text, path)


def load(path: Path, precision: str | None) -> ExportedProgram:
    """Return the file as a program of torch."""
    return ExportedProgram(path)
