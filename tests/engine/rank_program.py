"""What test_world.py runs as one of several real processes: writes what it found to a file of its rank."""

import sys
from pathlib import Path

import torch
from torch import nn

from ctnet.config import load_recipe
from ctnet.data.dataset import open_dataset
from ctnet.detect.detector import Detector
from ctnet.engine import train as engine
from ctnet.engine.processes.failure import reporting
from ctnet.engine.processes.world import process_group
from ctnet.engine.report import Silence
from ctnet.errors import CtnetError, DataError
from ctnet.eval.evaluate import evaluate
from ctnet.families import build_network
from ctnet.nn import SyncBatchNorm2d, synchronise_norms

TINY = [
    "model.neck_channels=[16,16,16]", "model.head_channels=16", "data.image_size=96", "data.workers=0",
    "data.val_split=none", "augment.photometric=0", "train.amp=off", "train.eval_every=0", "train.max_steps=20",
    "train.sync_bn=true", "optimizer.name=sgd", "optimizer.lr=0.00001", "schedule.epochs=20",
]  # fmt: skip


def words(world) -> dict:
    """Say something with every word that ranks have."""
    tensors = [torch.full((2, 3), float(world.rank_info.rank)), torch.full((1,), 4.0 * world.rank_info.rank)]
    world.average_(tensors)

    def fail_on_the_last():
        if world.rank_info.rank == world.size - 1:
            raise DataError("a broken picture", file="x.jpg")

    caught = None
    try:
        world.run_on_all_ranks(fail_on_the_last)
    except CtnetError as error:
        caught = (type(error).__name__, error.exit_code, error.message)
    return {
        "sum": world.sum(torch.tensor([1.0, world.rank_info.rank])),
        "average": tensors,
        "largest": world.largest(7 - world.rank_info.rank),
        "gather": world.gather({"rank": world.rank_info.rank}),
        "share": world.broadcast_from_rank0(lambda: f"from {world.rank_info.rank}"),
        "together": caught,
    }


def normalise(world) -> dict:
    """Run a norm over this rank's images of a batch of five, of which rank 0 has none and the last rank the rest."""
    torch.manual_seed(0)
    x, upstream = torch.randn(2, 5, 3, 7, 4, dtype=torch.float64) + 3
    norm = SyncBatchNorm2d(3).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    mine = slice(0, 5) if world.size == 1 else (slice(0, 0), slice(0, 5))[world.rank_info.rank]
    part = x[mine].clone().requires_grad_()
    y = norm(part)
    y.backward(upstream[mine])
    return {
        "y": y.detach(), "grad": part.grad, "mean": norm.running_mean, "var": norm.running_var,
        "weight": norm.weight.grad, "bias": norm.bias.grad, "batches": norm.num_batches_tracked,
    }  # fmt: skip


def detect(world, device, data: Path) -> dict:
    """Return this rank's share of the detections of an untrained detector."""
    torch.manual_seed(0)
    recipe = load_recipe("centernet_resdcn18", TINY[:3]).recipe
    annotations = open_dataset(data, "train")
    network = synchronise_norms(build_network(recipe.model, len(annotations.categories)))
    detector = Detector(network, recipe, annotations.categories, device)
    settings = recipe.evaluation.model_copy(update={"batch_size": 2, "top_k": 20})
    found = evaluate(detector, annotations, settings, rank=world.rank_info.rank, ranks=world.size)
    return {key: (f.boxes_xyxy.tolist(), f.scores.tolist(), f.labels.tolist()) for key, f in found.items()}


def stop_and_go(world, device, data: Path, out: Path) -> None:
    """Train four steps with statistics of each rank's own: at once, and saved after each of two and resumed."""
    settings = [f"data.path={data}", "train.batch_size=2", *TINY, "train.sync_bn=false"]
    for name, steps in (("straight", 4), ("resumed", 2)):
        more = [f"train.max_steps={steps}", f"train.save_every_steps={1 if steps == 2 else 1000}", "train.ema=0.9"]
        recipe = load_recipe("centernet_resdcn18", [*settings, *more]).recipe
        engine.train(recipe, engine.RunOptions(out / name), Silence(), device, world)
    engine.resume(out / "resumed", Silence(), device, world, max_steps=4)


def main(data: Path, out: Path) -> None:
    """Do all of it."""
    torch.set_num_threads(1)
    with reporting() as rank_info, process_group("cpu", rank_info, 60) as (world, device):
        found = {"words": words(world), "norm": normalise(world), "detections": detect(world, device, data)}
        # fresh offsets are whole pixels, where the sampled map has a kink: after some steps noise would choose a side
        runs = {
            "plain": ["optimizer.offset_lr=0", f"train.batch_size={4 // world.size}"],
            "accumulated": ["train.accumulate=2", "train.max_steps=4", "train.global_batch=8"],
        }
        for name, more in runs.items():
            recipe = load_recipe("centernet_resdcn18", [f"data.path={data}", *TINY, *more]).recipe
            options = engine.RunOptions(out / f"{name}_{world.size}")
            found[name] = engine.train(recipe, options, Silence(), device, world)
        if world.size > 1:
            stop_and_go(world, device, data, out)
        torch.save(found, out / f"rank_{world.rank_info.rank}_of_{world.size}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
