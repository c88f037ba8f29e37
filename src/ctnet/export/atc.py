"""ATC, the compiler of Ascend's chips: which chip, the command, the script that holds it, and how to run it.

Flags are those of the ATC manual of CANN 5.0 to 9.0; ATC itself was never run here.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctnet.config import Data
from ctnet.errors import ToolFailed
from ctnet.export.about import INPUT
from ctnet.export.options import OmOptions

# fp32 is what the chip has of it: its matrix unit multiplies in float16.
PRECISION_MODE = {"fp16": "force_fp16", "fp32": "allow_fp32_to_fp16"}
SOC_VARIABLE = "$SOC_VERSION"
LAST_LINES = 12


def find_soc_version() -> str | None:
    """Return ATC's name of the chip that `npu-smi info` shows, such as Ascend310P3; None without one or a clear one.

    The name is the second word of a chip's first row. Newer drivers say Ascend910 to several chips, which names none.
    """
    if shutil.which("npu-smi") is None:
        return None
    try:
        shown = subprocess.run(["npu-smi", "info"], capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    names = set(re.findall(r"^\|\s*\d+\s+(\w+)\s*\|\s*[A-Za-z]+\s*\|", shown, re.MULTILINE))
    name = names.pop() if len(names) == 1 else "Ascend"
    return None if name.startswith("Ascend") else f"Ascend{name}"


def atc_command(
    onnx_file: Path,
    output: str,
    input_shape: Sequence[int],
    outputs: Mapping[str, bool],
    options: OmOptions,
    aipp_file: Path | None,
) -> list[str]:
    """Return the command that makes `output`.om of the file, to be run in its folder.

    `outputs` maps the nodes of the outputs (`name:index`) to whether they are real numbers; these come as float32.
    """
    shape = ",".join(map(str, input_shape))
    return [
        "atc",
        "--framework=5",
        f"--model={onnx_file.name}",
        f"--output={output}",
        "--input_format=NCHW",
        f"--input_shape={INPUT}:{shape}",
        f"--out_nodes={';'.join(outputs)}",
        f"--output_type={';'.join(f'{node}:FP32' for node, real in outputs.items() if real)}",
        f"--precision_mode={PRECISION_MODE[options.precision]}",
        *([f"--insert_op_conf={aipp_file.name}"] if aipp_file else []),
        f"--soc_version={options.soc_version or SOC_VARIABLE}",
        "--log=error",
    ]


def output_nodes(model: Any) -> dict[str, bool]:
    """Return, for each output of an ONNX model, the `node:index` it comes from and whether it is float32."""
    import onnx

    source = {name: f"{node.name}:{i}" for node in model.graph.node for i, name in enumerate(node.output)}
    return {
        source[value.name]: value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for value in model.graph.output
    }


def aipp_config(data: Data, size: tuple[int, int]) -> str:
    """Return the configuration by which the chip turns BGR pixels (N,H,W,3) uint8 into the network's input.

    It takes the first byte as channel 0, swaps channels 0 and 2 if configured, then computes
    `(value - min_chn) * var_reci_chn`; both numbers are kept in float16 there.
    """
    lines = [
        "aipp_mode: static",
        "related_input_rank: 0",
        "input_format: RGB888_U8",
        f"src_image_size_w: {size[1]}",
        f"src_image_size_h: {size[0]}",
        "csc_switch: false",
        f"rbuv_swap_switch: {str(data.color_order == 'rgb').lower()}",
        *(f"min_chn_{i}: {255 * mean:.8g}" for i, mean in enumerate(data.mean)),
        *(f"var_reci_chn_{i}: {1 / (255 * std):.8g}" for i, std in enumerate(data.std)),
    ]
    return "\n".join(["aipp_op {", *(f"    {line}" for line in lines), "}", ""])


def script(commands: Sequence[Sequence[str]]) -> str:
    """Return a shell script of the commands that runs in its own folder, and asks for SOC_VERSION where it is used."""
    head = ["#!/bin/sh", "# Makes OM files by ATC, which comes with CANN. Run `. .../set_env.sh` first.", "set -eu"]
    if any(SOC_VARIABLE in word for command in commands for word in command):
        head.append(': "${SOC_VERSION:?set it to the chip, such as Ascend310P3: Ascend and the name in npu-smi info}"')
    head.append('cd "$(dirname "$0")"')
    return "\n".join([*head, *map(shell_line, commands), ""])


def shell_line(command: Sequence[str]) -> str:
    """Return the command as a shell takes it, one flag a line."""
    return " \\\n  ".join(f'"{word}"' if SOC_VARIABLE in word else shlex.quote(word) for word in command)


def why_not(soc_version: str | None) -> str | None:
    """Return why ATC cannot be run here, None if it can."""
    if shutil.which("atc") is None:
        return "atc is not installed here"
    return None if soc_version else "the chip is not known: no --soc-version, and none that npu-smi names clearly"


def run_script(file: Path) -> None:
    """Run the script to its end. Raises ToolFailed with the last lines of its output."""
    done = subprocess.run(
        ["sh", file.name], cwd=file.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        last = [line for line in done.stdout.splitlines() if line.strip()][-LAST_LINES:]
        raise ToolFailed(
            "atc failed", script=file, status=done.returncode, output=last,
            hint="the files it was given are kept beside the script",
        )  # fmt: skip
