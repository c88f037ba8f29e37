"""Two gloo processes against one: the same words, norms, weights and detections."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from runs import assert_same

PROGRAM = Path(__file__).with_name("rank_program.py")


def run(size: int, port: int, *arguments: object) -> None:
    """Run the program in `size` processes, as somebody does who sets torch's variables by hand."""
    place = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [
        subprocess.Popen(
            [sys.executable, PROGRAM, *map(str, arguments)],
            env=os.environ | place | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    errors = [rank.communicate(timeout=300)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * size, "\n".join(errors)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return what each rank of one process and of two found: {(rank, size): {...}}, and the folder of their runs."""
    from ctnet.data.demo import write_demo

    folder = tmp_path_factory.mktemp("ranks")
    # 15 images in batches of 4: the last batch of an epoch is shared unevenly
    data = write_demo(folder / "shapes", images_train=15, images_val=1, seed=3, size=(96, 120))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for size in (1, 2):
        run(size, port, data, folder)
    places = [(0, 1), (0, 2), (1, 2)]
    results = {place: torch.load(folder / "rank_{}_of_{}.pt".format(*place)) for place in places}
    return results, folder


def test_ranks_say_the_same_words(found):
    for rank in (0, 1):
        words = found[0][rank, 2]["words"]
        assert words["sum"].tolist() == [2.0, 1.0]
        assert [t.unique().tolist() for t in words["average"]] == [[0.5], [2.0]]
        assert words["largest"] == 7
        assert words["gather"] == [{"rank": 0}, {"rank": 1}]
        assert words["share"] == "from 0"
    # the rank that made the mistake tells it, the other leaves with the same code
    assert found[0][0, 2]["words"]["together"] == ("ReportedByOtherRank", 3, "a broken picture")
    assert found[0][1, 2]["words"]["together"] == ("DataError", 3, "a broken picture")


def test_a_norm_over_two_ranks_is_that_of_the_whole_batch(found):
    alone, nothing, everything = (found[0][place]["norm"] for place in [(0, 1), (0, 2), (1, 2)])
    assert nothing["y"].shape == nothing["grad"].shape == (0, 3, 7, 4)
    for name in ("y", "grad", "weight", "bias"):
        assert torch.allclose(everything[name], alone[name], rtol=1e-10, atol=1e-12), name
    for name in ("mean", "var", "batches"):
        assert torch.allclose(everything[name], alone[name], rtol=1e-10)
        assert torch.equal(everything[name], nothing[name])


def test_each_image_is_evaluated_once_with_the_same_bits(found):
    alone, first, second = (found[0][place]["detections"] for place in [(0, 1), (0, 2), (1, 2)])
    assert len(first) == 8
    assert len(second) == 7
    assert first | second == alone  # lists of floats: equal means equal bits


@pytest.mark.parametrize("name", ["plain", "accumulated"])
def test_two_processes_train_as_one_with_the_doubled_batch(found, name):
    results, folder = found
    one, two = (torch.load(folder / f"{name}_{n}" / "checkpoints" / "last.pt", weights_only=True) for n in (1, 2))
    assert one["step"] == two["step"] == (20 if name == "plain" else 4)
    assert (one["world_size"], two["world_size"]) == (1, 2)
    for part in ("model", "ema"):
        for key, value in one[part].items():
            assert torch.allclose(two[part][key], value, rtol=1e-5, atol=1e-5), key
    summaries = [results[place][name] for place in [(0, 1), (0, 2), (1, 2)]]
    assert {summary["effective_batch"] for summary in summaries} == {4 if name == "plain" else 8}
    assert summaries[1]["loss"] == summaries[2]["loss"] == pytest.approx(summaries[0]["loss"], rel=1e-4)


def test_ranks_go_on_with_statistics_of_their_own_after_a_save_and_a_resume(found):
    straight, resumed = (
        torch.load(found[1] / name / "checkpoints" / "last.pt", weights_only=True) for name in ("straight", "resumed")
    )
    own = straight["statistics"]
    assert not torch.equal(own[0], own[1])
    means = torch.cat([t.flatten() for name, t in straight["model"].items() if "running_" in name])
    assert torch.allclose(means, own[:, : len(means)].mean(0))
    for part in ("step", "model", "ema", "ema_updates", "optimizer", "statistics"):
        assert_same(straight[part], resumed[part], part)
