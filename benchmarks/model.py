"""How fast are whole networks, against other runtimes and against this machine's matmul rate?

    python benchmarks/model.py [--models centernet_resdcn18 ...] [--batches 1 8] [--no-compile] [--device NAME]

Needs onnxruntime, onnx and openvino beside ctnet for those peers; without them, and on a card, they are left out.
"""

from __future__ import annotations

import argparse

import torch
from graph_peers import onnxruntime_network, openvino_network
from measure import DEVICE, arguments, check, finish, matmul_rate, milliseconds
from torch import Tensor, nn

from ctnet.bench.operations import operations
from ctnet.bench.subject import open_subject
from ctnet.devices import OpenDevice
from ctnet.devices.fold import fold_batch_norm


def calls_of(device: OpenDevice, network: nn.Module, x: Tensor, values: argparse.Namespace) -> dict[str, object]:
    """Return a call of each way to run the network, every one checked against float32."""
    with torch.inference_mode():
        expected = network(x)[-1]["heatmap_logits"]
    prepared = {
        f"{precision}{'/compiled' if compiled else ''}": device.plugin.prepare(
            network, device.torch_device, precision=precision, compile=compiled
        ).network
        for precision in ("fp32", "bf16")
        for compiled in ((False, True) if values.compile else (False,))
    }
    images = x.contiguous(memory_format=torch.channels_last).to(device.torch_device)
    calls = {name: lambda n=ready: n(images)[-1]["heatmap_logits"] for name, ready in prepared.items()}
    if device.torch_device.type == "cpu":
        folded = fold_batch_norm(network)
        peers = {
            "onnxruntime": onnxruntime_network(folded, x, values.threads),
            "openvino_fp32": openvino_network(folded, x, values.threads, "f32"),
            "openvino_bf16": openvino_network(folded, x, values.threads, "bf16"),
        }
        calls |= {name: call for name, call in peers.items() if call is not None}
    exactly = 1e-3 if device.torch_device.type == "cpu" else 1e-2  # cards may round float32 to ten bits
    for name, call in calls.items():
        check(name, torch.as_tensor(call()), expected, 0.05 if "bf16" in name else exactly)
    return calls


def main() -> None:
    """Print a line for each network, batch and runtime, then the ratios."""
    values = arguments(
        __doc__,
        device=DEVICE,
        models={"nargs": "+", "default": ["centernet_resdcn18"]},
        batches={"nargs": "+", "type": int, "default": [1, 8]},
        size={"type": int, "default": 512},
        compile={"action": argparse.BooleanOptionalAction, "default": True, "help": "also compile our networks"},
    )
    device = values.device
    rates = {"fp32": matmul_rate(torch.float32, device), "bf16": matmul_rate(torch.bfloat16, device)}
    print({name: f"{rate:.0f} GFLOP/s matmul" for name, rate in rates.items()})
    figures: dict[str, object] = {"matmul": rates}
    ratios: dict[str, float] = {}
    for name in values.models:
        network = open_subject(name, None, (values.size, values.size)).network
        assert network is not None
        short = name.removeprefix("centernet_")
        for batch in values.batches:
            x = torch.randn(batch, 3, values.size, values.size)
            work = operations(network, x)
            with torch.inference_mode():
                times = milliseconds(calls_of(device, network, x, values), values.repeats, device=device)
            figures[f"{name}/b{batch}"] = {"operations": work, "milliseconds": times}
            for runtime, time in times.items():
                share = work / time / 1e6 / rates["bf16" if "bf16" in runtime else "fp32"]
                print(f"{short} b{batch} {runtime:<16}{time:9.1f} ms{1e3 * batch / time:9.1f} images/s"
                      f"{100 * share:6.0f} % of the matmul rate")  # fmt: skip
            for precision in ("fp32", "bf16"):
                best = min(time for runtime, time in times.items() if runtime.startswith(precision))
                for peer in ("onnxruntime", f"openvino_{precision}"):
                    if peer in times:
                        ratios[f"{short}/{precision}/b{batch}/{peer}"] = times[peer] / best
                ratios[f"{short}/{precision}/b{batch}/matmul_limit"] = work / rates[precision] / 1e6 / best
    finish(values.json, figures, ratios, device)


if __name__ == "__main__":
    main()
