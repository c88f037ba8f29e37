"""OM, the compiled form of Ascend's chips: an ONNX graph for ATC, all that ATC needs, and the OM through `ais_bench`.

The graph is proven in onnxruntime, with ONNX's own DeformConv in the vendor's place. No OM was ever made or run here:
calls of `ais_bench` follow its published source (`ais_bench/infer/interface.py`, old and new).
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctnet.config import changed
from ctnet.errors import ToolFailed, WeightsError
from ctnet.export import atc
from ctnet.export.about import About, read_about
from ctnet.export.atc_graph import atc_model, standard_model
from ctnet.export.onnx_format import OnnxRuntime
from ctnet.export.options import ExportOptions, OmOptions

DEVICE = 0  # the first of ASCEND_RT_VISIBLE_DEVICES


def write(program: torch.export.ExportedProgram, about: About, path: Path, options: ExportOptions) -> list[Path]:
    """Write the graph, the script that makes OM files of it, and its metadata; return the files."""
    assert about.size is not None
    om = options.om
    model = atc_model(program, about, om.dialect)
    graph, script = path.with_suffix(".atc.onnx"), path.with_suffix(".atc.sh")
    graph.write_bytes(model.SerializeToString())
    files = [graph, script]
    aipp = path.with_suffix(".aipp.cfg") if om.aipp else None
    if aipp:
        aipp.write_text(atc.aipp_config(about.recipe.data, about.size), encoding="utf-8")
        files.append(aipp)
    commands = []
    for name, batch in om_names(path, om).items():
        shape = (batch, 3, *about.size)
        commands.append(atc.atc_command(graph, Path(name).stem, shape, atc.output_nodes(model), om, aipp))
        side = path.with_name(f"{name}.json")
        side.write_text(om_about(about, om, batch).to_json(), encoding="utf-8")
        files.append(side)
    script.write_text(atc.script(commands), encoding="utf-8")
    script.chmod(0o755)
    return files


def om_names(path: Path, options: OmOptions) -> dict[str, int]:
    """Return the names of the OM files, the one of `path` or one for each batch size, and their batch sizes."""
    if len(options.batches) == 1:
        return {path.name: options.batches[0]}
    return {f"{path.stem}_bs{batch}{path.suffix}": batch for batch in options.batches}


def om_about(about: About, options: OmOptions, batch: int) -> About:
    """Return the metadata of an OM; with AIPP it takes pixels, without preprocessing."""
    if options.aipp:
        pixels = {"data.color_order": "bgr", "data.mean": (0.0, 0.0, 0.0), "data.std": (1 / 255, 1 / 255, 1 / 255)}
        about = replace(about, recipe=changed(about.recipe, pixels), pixels=True)
    return replace(about, batch=batch, precision=options.precision)


def prove(path: Path) -> OnnxRuntime:
    """Return a written graph in onnxruntime, with ONNX's DeformConv in the vendor's place."""
    import onnx

    return OnnxRuntime(path, standard_model(onnx.load(path)).SerializeToString())


def compile_graph(path: Path, options: ExportOptions) -> tuple[list[Path], list[str]]:
    """Run the script that `write` left, if ATC is here, and return the OM files and notes.

    Raises ToolFailed when ATC does.
    """
    script = path.with_suffix(".atc.sh")
    where = "no OM was run: a proof is one of the graph, by onnxruntime, with DeformConv in the vendor's place"
    missing = atc.why_not(options.om.soc_version)
    if missing:
        return [], [where, f"{missing}; {script.name} makes the OM where CANN is:", script.read_text(encoding="utf-8")]
    atc.run_script(script)
    made = [path.with_name(name) for name in om_names(path, options.om)]
    for file in made:
        if not file.is_file():
            raise ToolFailed("atc exited with 0 but made no file", script=script, expected=file.name)
    return made, [where]


class OmRuntime:
    """A session of `ais_bench` on one device."""

    def __init__(self, path: Path) -> None:
        from ais_bench.infer.interface import InferSession

        side = path.with_name(f"{path.name}.json")
        if not side.is_file():
            raise WeightsError(
                "the OM does not say what it is", file=path, expected=f"{side.name} beside it",
                hint="ctnet export om writes both: copy them together",
            )  # fmt: skip
        self.about = read_about(side.read_text(encoding="utf-8"), side)
        try:
            self.session = InferSession(DEVICE, str(path))
        except Exception as error:  # ais_bench raises exceptions of its C++ part
            raise WeightsError("ais_bench cannot load the file", file=path, got=str(error)[:300]) from None
        self._end = weakref.finalize(self, _free, self.session)

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """Return the outputs of one batch."""
        arrays = self.session.infer([_pixels(images) if self.about.pixels else np.ascontiguousarray(images.numpy())])
        outputs = zip(self.about.output_names, map(torch.from_numpy, arrays), strict=True)
        return {name: values.long() if name == "labels" else values.float() for name, values in outputs}


def _pixels(images: Tensor) -> NDArray[np.uint8]:
    """Return (N,H,W,3) uint8 of (N,3,H,W) float32 in 0..255."""
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).round().to(torch.uint8).numpy())


def _free(session: Any) -> None:
    """Free the device; versions of ais_bench name the method differently."""
    (getattr(session, "free_resource", None) or session.finalize)()


def load(path: Path, precision: str | None) -> OmRuntime:
    """Return the file on a device, which computes in the precision the file was made for."""
    return OmRuntime(path)
