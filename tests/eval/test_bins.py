"""Files for a machine that runs a graph alone: a stand-in runs it on them, and the score is that of `ctnet eval`."""

import json

import numpy as np
import pytest
import torch

from ctnet.codec.pixels import normalise
from ctnet.config import load_recipe
from ctnet.data.dataset import open_dataset
from ctnet.families import build_network
from ctnet.weights.ctnet_file import Weights, save_weights
from lively import lively


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    from ctnet.data.demo import write_demo

    folder = tmp_path_factory.mktemp("bins")
    data = write_demo(folder / "shapes", images_train=1, images_val=5, seed=3, size=(96, 120))
    settings = ["data.image_size=64", "model.neck_channels=[16,16,16]", "data.color_order=rgb"]
    recipe = load_recipe("centernet_mobilenetv2", settings).recipe
    categories = open_dataset(data, "val").categories
    torch.manual_seed(5)
    network = lively(build_network(recipe.model, len(categories)), (64, 64)).eval()
    save_weights(folder / "w.safetensors", Weights(network.state_dict(), recipe, categories, {}))
    return folder, data, recipe, network


def chip(network, recipe, files, out):
    """Run the graph on the files and write its outputs as ais_bench does."""
    document = json.loads((files / "bins.json").read_text())
    out.mkdir()
    for entry in document["images"]:
        array = np.fromfile(files / entry["bin"], document["type"]).reshape(document["shape"])
        x = torch.from_numpy(array)[None]
        if document["type"] == "uint8":  # AIPP takes bytes in the order of the network's colours
            x = normalise(x, recipe.data.mean, recipe.data.std)
        with torch.inference_mode():
            maps = network(x)[-1]
        for number, name in enumerate(("heatmap_logits", "size", "offset")):
            maps[name].numpy().tofile(out / f"{entry['bin'].removesuffix('.bin')}_{number}.bin")


@pytest.mark.parametrize("aipp", [False, True])
def test_the_loop_of_a_device_without_ctnet_gives_the_score_of_eval(material, ctnet, tmp_path, aipp):
    folder, data, recipe, network = material
    weights = folder / "w.safetensors"
    code, out, err = ctnet("data", "bins", data, tmp_path / "in", "--weights", weights, *(["--aipp"] if aipp else []))
    assert code == 0, err
    assert out.strip() == str(tmp_path / "in" / "bins.json")
    chip(network, recipe, tmp_path / "in", tmp_path / "out")
    common = ("eval", "--weights", weights, "--data", data, "--device", "cpu", "--precision", "fp32", "--json")
    code, scored, err = ctnet(*common, "--bins", tmp_path / "out")
    assert code == 0, err
    code, wanted, err = ctnet(*common, "--no-flip")
    assert code == 0, err
    for name, value in json.loads(wanted)["metrics"].items():
        assert json.loads(scored)["metrics"][name] == pytest.approx(value, abs=1e-3), name
    assert json.loads(wanted)["metrics"]["AP"] is not None


def test_dumps_that_are_not_of_this_network_are_refused(material, ctnet, tmp_path):
    folder, data, recipe, network = material
    weights = folder / "w.safetensors"
    ctnet("data", "bins", data, tmp_path / "in", "--weights", weights)
    code, _, err = ctnet("data", "bins", data, tmp_path / "in", "--weights", weights)
    assert (code, "new or empty folder" in err) == (2, True)
    dumps = tmp_path / "out"
    chip(network, recipe, tmp_path / "in", dumps)
    first = min(dumps.glob("*_0.bin"))

    def score(*words):
        code, _, err = ctnet("eval", "--weights", weights, "--data", data, "--device", "cpu", "--bins", dumps, *words)
        return code, err

    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])  # float16
    code, err = score()
    assert (code, "of another network, size or type" in err, f"{len(whole)} bytes" in err) == (3, True, True), err
    first.write_bytes(np.full(len(whole) // 4, np.nan, np.float32).tobytes())
    assert (score()[0], "not finite" in score()[1]) == (3, True)
    first.unlink()
    code, err = score()
    assert (code, "is missing" in err, first.name in err) == (3, True, True)
    assert score("--flip")[0] == 2
    (dumps / "bins.json").write_text('{"images": []}')
    assert (score()[0], "of other images" in score()[1]) == (3, True)
