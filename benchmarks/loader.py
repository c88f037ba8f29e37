"""Does the loader keep up? Images a second per worker process, beside what one training step takes.

python benchmarks/loader.py [--data PATH] [--image-size 256] [--json FILE]
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from measure import arguments, finish, milliseconds
from train_step import step

from ctnet.config import load_recipe
from ctnet.data import sample
from ctnet.data.dataset import open_dataset
from ctnet.data.demo import data_or_demo
from ctnet.data.image import read_image
from ctnet.data.sample import TrainingSamples
from ctnet.devices import open_device
from ctnet.families import build_network, family_of


def images_per_second(samples: TrainingSamples, seconds: float) -> float:
    """Return how many samples one process makes in a second, file cache warm."""
    for index in range(min(8, len(samples))):
        samples[0, index]
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        samples[0, done % len(samples)]
        done += 1
    return done / (time.perf_counter() - start)


def main() -> None:
    """Print both rates and how many workers one model needs."""
    values = arguments(
        __doc__,
        data={"type": Path, "help": "data set (default: the demo set)"},
        image_size={"type": int, "default": 256},
        seconds={"type": float, "default": 5.0},
        batch={"type": int, "default": 8},
    )
    side = values.image_size
    recipe = load_recipe("centernet_resdcn18", []).recipe
    annotations = open_dataset(data_or_demo(values.data), "train")
    encoder = family_of(recipe).encoder(len(annotations.categories))
    samples = TrainingSamples(annotations, (side, side), encoder, recipe.augment, 0, 128)
    picture = np.mean([record.width * record.height for record in annotations.images]) ** 0.5
    torch.set_num_threads(1)  # a worker has one
    rates = {"worker": images_per_second(samples, values.seconds)}
    with patch.object(sample, "read_image", lambda path, reduce=1: read_image(path)):
        rates["worker, images decoded whole"] = images_per_second(samples, values.seconds)
    plain = replace(samples, augment=recipe.augment.model_copy(update={"photometric": 0.0}))
    rates["worker, no colour changes"] = images_per_second(plain, values.seconds)
    torch.set_num_threads(values.threads)
    device = open_device("cpu")
    dtype = device.plugin.fast_dtype()[0] or torch.float32
    network = device.plugin.arrange(build_network(recipe.model, 3), channels_last=True).train()
    x = torch.randn(values.batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    rates["training step"] = 1e3 * values.batch / milliseconds({"": lambda: step(network, x, dtype)}, 5)[""]
    print(f"pictures of about {picture:.0f} x {picture:.0f}, input {side} x {side}")
    for name, rate in rates.items():
        print(f"{name:<32}{rate:8.1f} images/s")
    ratios = {
        "loader/worker/training_step": rates["worker"] / rates["training step"],
        "loader/worker/decoded_whole": rates["worker"] / rates["worker, images decoded whole"],
    }
    finish(values.json, rates, ratios)


if __name__ == "__main__":
    main()
