"""ctnet eval --protocol widerface: a detector, its result files, and these files alone."""

import json

import numpy as np
import pytest

from ctnet.cli.eval_widerface import with_preset
from ctnet.cli.test_settings import RequestedSettings
from ctnet.config import load_recipe
from ctnet.data.image import write_image
from ctnet.families import family_of
from ctnet.types import FACE, Category
from ctnet.weights.ctnet_file import Weights, save_weights
from widerfaces import small_truth

PROTOCOL = ("eval", "--protocol", "widerface", "--ground-truth")


@pytest.fixture
def truth(tmp_path):
    return small_truth(tmp_path / "gt", name="0_Parade_a_1", faces=((10, 12, 30, 30), (50, 5, 20, 25)), chosen=(1, 2))


def results(folder, *rows, name="0_Parade_a_1"):
    path = folder / "0--Parade" / f"{name}.txt"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join([name, str(len(rows)), *rows, ""]))
    return folder


def test_files_are_scored_without_a_network(ctnet, truth, tmp_path):
    """In any order: the strongest finds one face, the second nothing, the third the other."""
    folder = results(tmp_path / "r", "200 200 9 9 0.8", "50 5 20 25 0.5", "10 12 30 30 0.9")
    code, out, err = ctnet(*PROTOCOL, truth, "--results", folder, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["metrics"] == pytest.approx(dict.fromkeys(("easy", "medium", "hard"), 0.5 + 0.5 * 2 / 3), abs=1e-6)
    assert document["missing"] == []
    assert document["protocol"]["iou"] == 0.5
    code, out, _ = ctnet(*PROTOCOL, truth, "--results", folder, "--iou", "0.4")
    assert code == 0
    assert "WIDER FACE, 1 images, IoU 0.4" in out
    assert "83.3" in out


@pytest.fixture
def weights(tmp_path):
    recipe = load_recipe("centerface_mobilenetv2", ["data.image_size=64"]).recipe
    network = family_of(recipe, FACE).build(1)
    path = tmp_path / "face.safetensors"
    save_weights(path, Weights(network.state_dict(), recipe, (Category(1, "face"),), keypoints=FACE))
    return path


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "wider"
    write_image(root / "WIDER_val" / "images" / "0--Parade" / "0_Parade_a_1.jpg", np.full((60, 90, 3), 120, np.uint8))
    write_image(root / "WIDER_val" / "images" / "0--Parade" / "other.jpg", np.full((60, 90, 3), 120, np.uint8))
    (root / "wider_face_split").mkdir()
    lines = "0--Parade/0_Parade_a_1.jpg\n1\n10 12 30 30 0 0 0 0 0 0\n0--Parade/other.jpg\n1\n1 2 3 4 0 0 0 0 0 0\n"
    (root / "wider_face_split" / "wider_face_val_bbx_gt.txt").write_text(lines)
    return root


def test_a_detector_is_scored_and_its_files_score_the_same(ctnet, truth, weights, data, tmp_path):
    run = (*PROTOCOL, truth, "--weights", weights, "--data", data, "--no-flip", "--json")
    code, out, err = ctnet(*run, "--save-results", tmp_path / "out")
    assert code == 0, err
    document = json.loads(out)
    assert document["protocol"]["images"] == 1  # the other image is not in the ground truth
    (file,) = (tmp_path / "out").rglob("*.txt")
    assert file == tmp_path / "out" / "0--Parade" / "0_Parade_a_1.txt"
    assert int(file.read_text().splitlines()[1]) > 10
    code, out, err = ctnet(*PROTOCOL, truth, "--results", tmp_path / "out", "--json")
    assert code == 0, err
    assert json.loads(out)["metrics"] == pytest.approx(document["metrics"], abs=1e-6)


def test_missing_images_are_counted_and_named(ctnet, truth, tmp_path):
    from scipy.io import loadmat, savemat

    content = {k: v for k, v in loadmat(truth / "wider_face_val.mat").items() if not k.startswith("_")}
    for name in ("wider_face_val", "wider_easy_val", "wider_medium_val", "wider_hard_val"):
        content = {k: v for k, v in loadmat(truth / f"{name}.mat").items() if not k.startswith("_")}
        for key, cells in content.items():
            inner = cells[0, 0]
            if key != "event_list":
                cells[0, 0] = np.concatenate([inner, inner])
        if "file_list" in content:
            content["file_list"][0, 0][1, 0] = np.array(["0_Parade_b_2"])
        savemat(truth / f"{name}.mat", content)
    folder = results(tmp_path / "r", "10 12 30 30 0.9", "50 5 20 25 0.5")
    code, out, err = ctnet(*PROTOCOL, truth, "--results", folder, "--json")
    assert code == 0, err
    assert json.loads(out)["missing"] == ["0--Parade/0_Parade_b_2"]
    assert json.loads(out)["metrics"]["easy"] == pytest.approx(0.5, abs=1e-6)
    assert "1 of 2 images have no result" in err
    code, out, err = ctnet(*PROTOCOL, truth, "--results", folder, "--skip-missing", "--json")
    assert json.loads(out)["metrics"]["easy"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("eval", "--protocol", "widerface", "--weights", "x"), 2, "--ground-truth DIR"),
        ((*PROTOCOL, "elsewhere", "--results", "r"), 3, "ground truth is incomplete"),
        ((*PROTOCOL, "{gt}"), 2, "--weights FILE or --results DIR"),
        ((*PROTOCOL, "{gt}", "--results", "r", "--report", "rep"), 2, "--report goes with --protocol coco"),
        ((*PROTOCOL, "{gt}", "--results", "r", "--preset", "fixed"), 2, "scored as they are"),
        ((*PROTOCOL, "{gt}", "--results", "nowhere"), 3, "no image has a result"),
        (("eval", "--weights", "x", "--iou", "0.4"), 2, "go with --protocol widerface"),
        (("eval",), 2, "--weights FILE"),
    ],
)
def test_mistakes_are_named(ctnet, truth, arguments, code, words):
    got, _, err = ctnet(*(truth if a == "{gt}" else a for a in arguments))
    assert got == code, err
    assert words in err
    assert "Traceback" not in err


def test_presets_are_test_settings_that_options_replace():
    nothing = RequestedSettings(None, None, None, None, None, None)
    assert with_preset(nothing, None) == nothing
    assert with_preset(nothing, "fixed").image_size == "800"
    assert with_preset(nothing, "original").keep_res is True
    multiscale = with_preset(RequestedSettings(4, False, None, None, None, None), "multiscale")
    assert (multiscale.scales, multiscale.flip, multiscale.batch_size) == ("0.8,1,1.2,1.4", False, 4)
