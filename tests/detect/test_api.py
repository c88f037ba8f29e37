"""The Python API takes what people pass, and its results can be used."""

import io
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image as PIL

import ctnet
from ctnet import CtnetError, Detections, Detector, load_detector
from ctnet.config import Recipe
from ctnet.data.image import write_image
from ctnet.detect.inputs import as_image
from ctnet.devices import open_device
from ctnet.errors import ConfigError, DataError, MissingExtra
from ctnet.families import build_network
from ctnet.types import Category
from ctnet.weights.ctnet_file import Weights, save_weights

CATEGORIES = (Category(3, "cup"), Category(7, "spoon"), Category(90, "plate"))


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    recipe = Recipe.model_validate({"data": {"image_size": (64, 96)}, "model": {"neck_channels": (16, 16, 16)}})
    return Detector(build_network(recipe.model, 3), recipe, CATEGORIES, open_device("cpu"))


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)


GIVEN = {
    "bgr": lambda im: im,
    "alpha": lambda im: np.dstack([im, np.full(im.shape[:2], 255, np.uint8)]),
    "float in 0..1": lambda im: im.astype(np.float32) / 255,
    "float in 0..255": lambda im: im.astype(np.float64),
    "uint16": lambda im: im.astype(np.uint16) * 257,
    "int64": lambda im: im.astype(np.int64),
    "strides": lambda im: np.ascontiguousarray(im[:, ::-1])[:, ::-1],
    "pil": lambda im: PIL.fromarray(im[:, :, ::-1]),
    "pil with alpha": lambda im: PIL.fromarray(im[:, :, ::-1]).convert("RGBA"),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_forms_of_one_image(kind, image):
    assert np.array_equal(as_image(GIVEN[kind](image)), image)


def test_colours_grey_and_turned_images(image):
    assert np.array_equal(as_image(image[:, :, ::-1], "rgb"), image)
    for grey in (
        image[:, :, 0],
        image[:, :, :1],
        PIL.fromarray(image[:, :, 0]),
        torch.from_numpy(image[None, :, :, 0]),
    ):
        assert np.array_equal(as_image(grey), np.repeat(image[:, :, :1], 3, axis=2))
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    assert np.array_equal(as_image(tensor, "bgr"), image)
    assert np.array_equal(as_image(tensor.flip(0).float() / 255, "rgb"), image)
    file = io.BytesIO()
    exif = PIL.Exif()
    exif[0x0112] = 6
    PIL.fromarray(image).save(file, "PNG", exif=exif)
    assert as_image(PIL.open(file)).shape == (70, 50, 3)
    assert as_image(PIL.fromarray(image[:, :, 0].astype(np.uint16) * 257)).max() == image[:, :, 0].max()


REFUSED = {
    "None": (lambda im: None, "cv2.imread"),
    "None in a list": (lambda im: [im, None], "cv2.imread"),
    "a number": (lambda im: 3, "a path, a PIL image"),
    "bytes": (lambda im: b"abc", "a path, a PIL image"),
    "a mapping": (lambda im: {"image": im}, "a path, a PIL image"),
    "bool": (lambda im: im > 100, "bool"),
    "no pixels": (lambda im: im[:0], "no pixels"),
    "channels first": (lambda im: im.transpose(2, 0, 1), "transpose"),
    "tensor without order": (lambda im: torch.from_numpy(im).permute(2, 0, 1), "color_order='rgb'"),
    "tensor, channels last": (lambda im: torch.from_numpy(im), "(C,H,W)"),
    "negative": (lambda im: im.astype(np.float32) - 100, "0..255"),
    "nan": (lambda im: np.full(im.shape, np.nan), "0..255"),
    "missing file": (lambda im: "nope.jpg", "missing"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_image_is_refused_with_what_is_taken(kind, image, detector):
    make, words = REFUSED[kind]
    with pytest.raises(DataError) as caught:
        detector.detect(make(image))
    assert words in str(caught.value)


def test_one_image_or_many(detector, image, tmp_path):
    file = tmp_path / "a.png"
    write_image(file, image)
    [expected] = detector.detect([image])
    assert len(expected) > 0
    for given, count in (
        (image, 1), (file, 1), (str(file), 1), ([file, image], 2), (np.stack([image] * 3), 3),
        (torch.from_numpy(np.stack([image] * 2)).permute(0, 3, 1, 2), 2), ((im for im in [image, file]), 2), ([], 0),
    ):  # fmt: skip
        found = detector.detect(given, color_order="bgr")
        assert len(found) == count
        for one in found:
            assert np.allclose(one.scores, expected.scores, atol=1e-5)


def test_detections_iterate_filter_index_and_print(detector, image):
    [found] = detector.detect(image)
    first = found[0]
    assert first.name == CATEGORIES[first.label].name == found.names[0]
    assert first.score == max(one.score for one in found)
    assert [one.box for one in found] == [tuple(box) for box in found.boxes_xyxy.tolist()]
    assert isinstance(found[:2], Detections)
    assert len(found[found.scores >= first.score]) >= 1
    cups = found.filter("cup", score=float(np.median(found.scores)))
    assert set(cups.names) <= {"cup"}
    assert all(score >= np.median(found.scores) for score in cups.scores)
    with pytest.raises(ConfigError, match="spoon"):
        found.filter("spon")
    assert first.name in str(found)
    assert repr(found[:0]) == "Detections(none)"
    assert len(str(found).splitlines()) <= 22
    again = pickle.loads(pickle.dumps(found))
    assert again.names == found.names


def test_a_loaded_detector_goes_to_another_process(detector, image, tmp_path):
    file = tmp_path / "best.safetensors"
    save_weights(file, Weights(detector.model.state_dict(), detector.recipe, CATEGORIES))
    loaded = load_detector(file, "cpu")
    again = pickle.loads(pickle.dumps(loaded))
    assert np.array_equal(again.detect(image)[0].scores, loaded.detect(image)[0].scores)


def test_detections_are_drawn(detector, image, tmp_path):
    file = tmp_path / "a.png"
    write_image(file, image)
    [kept], [from_file] = detector.detect(image), detector.detect(file)
    drawn = kept[:3].plot()
    assert drawn.shape == image.shape
    assert not np.array_equal(drawn, image)
    assert np.array_equal(from_file[:3].plot(), drawn)
    assert np.array_equal(kept[:0].plot(np.zeros((9, 9, 3), np.uint8)), np.zeros((9, 9, 3), np.uint8))
    shown = PIL.open(io.BytesIO(kept[:3]._repr_png_()))
    assert np.array_equal(np.asarray(shown)[:, :, ::-1], drawn)
    file.unlink()
    with pytest.raises(DataError, match="missing"):
        from_file.plot()


def test_detections_convert(detector, image, monkeypatch):
    [found] = detector.detect(image)
    row, one = found.to_coco(5)[0], found[0]
    json.dumps(found.to_coco())
    assert (row["image_id"], row["category_id"]) == (5, CATEGORIES[one.label].id)
    assert row["bbox"][2] == one.box[2] - one.box[0]
    assert found.to_dicts() == found.to_dicts(CATEGORIES)
    for package, convert in (("pandas", found.to_pandas), ("supervision", found.to_supervision)):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)  # as where it is not installed
            with pytest.raises(MissingExtra, match=f"pip install {package}"):
                convert()


def test_pandas(detector, image):
    pytest.importorskip("pandas")
    [found] = detector.detect(image)
    table = found.to_pandas()
    assert list(table["name"]) == found.names
    assert np.allclose(table[["x1", "y1", "x2", "y2"]].to_numpy(), found.boxes_xyxy)


def test_supervision(detector, image):
    supervision = pytest.importorskip("supervision")
    [found] = detector.detect(image)
    theirs = found.to_supervision()
    assert isinstance(theirs, supervision.Detections)
    assert list(theirs.data["class_name"]) == found.names


def test_detections_of_no_detector_say_so():
    found = Detections(np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
    assert found[0].name == "class 0"
    assert found._repr_png_() is None
    for use in (found.plot, found.to_coco, lambda: found.filter("cup")):
        with pytest.raises(ConfigError, match="detector"):
            use()


def test_devices_and_exported_files_are_opened(detector, image, tmp_path):
    file = tmp_path / "best.safetensors"
    save_weights(file, Weights(detector.model.state_dict(), detector.recipe, CATEGORIES))
    loaded = load_detector(file, torch.device("cpu"), "fp32")
    assert np.allclose(loaded.detect(image)[0].scores, detector.detect(image)[0].scores, atol=1e-5)
    for device, meant in (("gpu", "cuda"), ("0", "cuda:0"), ("cdua", "cuda")):
        with pytest.raises(CtnetError, match=rf"nearest +{meant}"):
            load_detector(file, device)
    with pytest.raises(CtnetError, match="there is no such file"):
        load_detector(tmp_path / "none.pt2")


def test_importing_ctnet_is_cheap_and_its_names_are_few():
    assert dir(ctnet) == sorted(ctnet.__all__)
    code = "import sys, ctnet; print(*[m for m in ('torch', 'cv2', 'numpy', 'PIL', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
