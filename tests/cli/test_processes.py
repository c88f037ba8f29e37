"""`eval` and `predict` in several real processes give what one gives, once; lists of devices; tables of ranks."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from ctnet.config import load_recipe
from ctnet.data.dataset import open_dataset
from ctnet.families import build_network
from ctnet.weights.ctnet_file import Weights, save_weights
from lively import lively


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A set of thirteen images to score and weights that answer each cell differently."""
    from ctnet.data.demo import write_demo

    folder = tmp_path_factory.mktemp("processes")
    data = write_demo(folder / "shapes", images_train=1, images_val=13, seed=3, size=(96, 120))
    settings = ["data.image_size=64", "model.neck_channels=[16,16,16]", "evaluation.batch_size=2"]
    recipe = load_recipe("centernet_mobilenetv2", [*settings, "evaluation.flip=false"]).recipe
    categories = open_dataset(data, "val").categories
    torch.manual_seed(5)
    network = lively(build_network(recipe.model, len(categories)), (64, 64))
    save_weights(folder / "w.safetensors", Weights(network.state_dict(), recipe, categories, {}))
    return folder


def run(*words, code=0):
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, timeout=200,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def test_processes_score_as_one_does_and_print_one_document(material, tmp_path):
    words = (
        "eval",
        "--weights",
        material / "w.safetensors",
        "--data",
        material / "shapes",
        "--device",
        "cpu",
        "--json",
    )
    alone, _ = run("-m", "ctnet", *words, "--save-results", tmp_path / "one.json")
    shared, err = run("-m", "ctnet", *words, "--save-results", tmp_path / "many.json", "--nproc", 3)
    assert json.loads(shared) == json.loads(alone)
    assert json.loads(alone)["metrics"]["AP"] is not None
    assert (tmp_path / "many.json").read_bytes() == (tmp_path / "one.json").read_bytes()
    assert err.count("on cpu") == 1  # notes are printed once
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    under_torchrun, _ = run(*launcher, "-m", "ctnet", *words)
    assert json.loads(under_torchrun) == json.loads(alone)


def test_processes_predict_as_one_does_in_the_order_of_the_files(material, tmp_path):
    images = sorted((material / "shapes" / "images" / "val").iterdir())
    copies = tmp_path / "copies"
    copies.mkdir()
    (copies / images[0].name).write_bytes(images[0].read_bytes())  # two files of one name
    (copies / "broken.jpg").write_bytes(b"no image")
    words = (
        "-m",
        "ctnet",
        "predict",
        *images,
        copies,
        "--weights",
        material / "w.safetensors",
        "--device",
        "cpu",
        "--score",
        0.05,
    )
    run(*words, "--out", tmp_path / "one", code=3)
    _, err = run(*words, "--out", tmp_path / "many", "--nproc", 2, code=3)
    one, many = (json.loads((tmp_path / name / "predictions.json").read_text()) for name in ("one", "many"))
    assert len(one["pictures"]) == 14
    assert [p["file"] for p in many["pictures"]] == [p["file"] for p in one["pictures"]]
    assert [p["drawn"] for p in many["pictures"]] != []
    for a, b in zip(one["pictures"], many["pictures"], strict=True):
        assert [d["category_name"] for d in a["detections"]] == [d["category_name"] for d in b["detections"]]
        assert np.allclose([d["score"] for d in a["detections"]], [d["score"] for d in b["detections"]], atol=1e-4)
    assert len({p["drawn"] for p in many["pictures"]}) == 14
    assert all((tmp_path / "many" / p["drawn"]).is_file() for p in many["pictures"])
    assert len(many["failures"]) == 1
    assert err.count("error:") == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--device", "cuda:0,0"), 2, "names each once"),
        (("--device", "cuda:0,x"), 2, "looks like NAME:0,1,4"),
        (("--device", "cpu:0,1"), 2, "cpu has no devices to choose among"),
        (("--device", "cuda:0,99"), 4, "no cuda device number"),
        (("--device", "cpu", "--nproc", "none"), 2, "from 1 on, or auto"),
    ],
)
def test_lists_of_devices_that_are_none(ctnet, material, words, code, said):
    for command in (("eval", "--weights", material / "w.safetensors"), ("train",)):
        found, _, err = ctnet(*command, *words)
        assert (found, said in err) == (code, True), err


def test_the_variable_of_the_vendor_shows_the_list(monkeypatch, plugin_of_four):
    from ctnet.devices.chosen import listed, show_only

    assert listed("four:2") is None
    chosen = listed("four:3,1")
    assert chosen == ("four", (1, 3))
    assert show_only(chosen) == {"FOUR_VISIBLE": "1,3"}
    monkeypatch.setenv("FOUR_VISIBLE", "4,5,6,7")  # numbers are relative to what is visible
    assert show_only(chosen) == {"FOUR_VISIBLE": "5,7"}


@pytest.fixture
def plugin_of_four(monkeypatch):
    from ctnet.devices.base import Probe
    from ctnet.devices.cpu import CpuDevice

    class Four(CpuDevice):
        visible_env = "FOUR_VISIBLE"

        def probe(self):
            return Probe(4, "")

    monkeypatch.setattr("ctnet.devices.chosen.load_plugin", lambda name: Four())


@pytest.mark.parametrize(
    ("address", "said"),
    [("127.0.0.1", "--device npu:0,1,4"), ("192.0.2.7", "no server in it is this machine")],
)
def test_a_table_of_ranks_is_refused_with_the_options_that_say_the_same(
    ctnet, material, monkeypatch, tmp_path, address, said
):
    devices = [{"device_id": str(i), "device_ip": "x", "rank_id": str(i)} for i in (0, 1, 4)]
    table = tmp_path / "hccl.json"
    table.write_text(json.dumps({"version": "1.0", "server_list": [{"server_id": address, "device": devices}]}))
    monkeypatch.setenv("RANK_TABLE_FILE", str(table))
    words = ("eval", "--weights", material / "w.safetensors", "--device", "cpu", "--nproc", "2")
    code, _, err = ctnet(*words)
    assert (code, said in err) == (2, True), err
    table.write_text("{}")
    code, _, err = ctnet(*words)
    assert (code, "names no table of ranks" in err) == (2, True), err


def test_a_port_that_is_taken_is_named(ctnet, small_set):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = ctnet("train", "--data", small_set, "--device", "cpu", "--nproc", 2, "--port", port)
    assert (code, f"localhost:{port}" in err) == (2, True), err
