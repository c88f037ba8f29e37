"""Images whose objects are hidden, and crops."""

import json

import cv2
import numpy as np
import pytest

from ctnet.config import Recipe
from ctnet.families import family_of
from ctnet.predict.anonymize.areas import Area, Areas
from ctnet.predict.anonymize.run import Hiding, run_anonymize
from ctnet.predict.crops import Crops
from ctnet.predict.pipeline import run_predict
from ctnet.predict.sources import open_sources
from ctnet.types import Category, Detections, KeypointSchema
from movies import GREEN, Patches, background

RED = (40, 40, 200)


def two_objects():
    image = background(300, 200)
    image[40:90, 50:90] = GREEN
    image[100:130, 180:260] = RED
    return image


def seen(image, color):
    return int((np.abs(image.astype(int) - color).max(2) < 60).sum())


def anonymize(sources, out, **hiding):
    out.mkdir()
    return run_anonymize(
        Patches(), open_sources([str(source) for source in sources]), out, 0.3, Hiding(**{"how": "solid", **hiding})
    )


def test_objects_are_hidden_and_the_document_says_which(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), two_objects())
    document = anonymize([tmp_path / "a.png"], tmp_path / "out")
    image = cv2.imread(str(tmp_path / "out" / "a.png"))
    assert (seen(image, GREEN), seen(image, RED)) == (0, 0)
    untouched = np.s_[150:, :]
    assert np.array_equal(image[untouched], two_objects()[untouched])
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {name: value for name, value in written.items() if name != "pictures"} == document
    assert document["files"] == [
        {"file": str(tmp_path / "a.png"), "written": "a.png", "objects": {"face": 1, "plate": 1}}
    ]
    assert written["anonymized"]["classes"] == ["face", "plate"]
    (picture,) = written["pictures"]
    assert [found["category_name"] for found in picture["detections"]] == ["face", "plate"]


def test_classes_and_regions_limit_what_is_hidden(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), two_objects())
    anonymize([tmp_path / "a.png"], tmp_path / "plates", labels=frozenset({1}))
    image = cv2.imread(str(tmp_path / "plates" / "a.png"))
    assert (seen(image, GREEN), seen(image, RED)) == (40 * 50, 0)
    left = Area("only", ((0, True), (0, True), (0.5, True), (1, True)))
    anonymize([tmp_path / "a.png"], tmp_path / "left", areas=Areas((left,), (Area("only", None, 5, 9),)))
    image = cv2.imread(str(tmp_path / "left" / "a.png"))
    assert (seen(image, GREEN), seen(image, RED)) == (0, 80 * 30)


def test_a_broken_image_costs_no_other(tmp_path):
    for name in ("a.png", "c.jpg"):
        cv2.imwrite(str(tmp_path / name), two_objects())
    (tmp_path / "b.png").write_bytes(b"no image")
    document = anonymize([tmp_path], tmp_path / "out")
    assert document["complete"] is False
    assert [failure["file"] for failure in document["failures"]] == [str(tmp_path / "b.png")]
    assert [file["written"] for file in document["files"]] == ["a.png", "c.jpg"]


@pytest.mark.parametrize("kept", [False, True])
def test_photos_are_upright_and_place_and_thumbnail_stay_behind(tmp_path, kept):
    Image = pytest.importorskip("PIL.Image")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned to the left
    exif[0x010E] = "garden"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8769)[0x927C] = b"maker's preview"
    lying = Image.fromarray(np.ascontiguousarray(np.rot90(two_objects())[:, :, ::-1]))
    lying.save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert cv2.imread(str(tmp_path / "a.jpg")).shape == (200, 300, 3)
    anonymize([tmp_path / "a.jpg"], tmp_path / "out", metadata=kept)
    copy = Image.open(tmp_path / "out" / "a.jpg")
    assert copy.size == (300, 200)
    image = np.asarray(copy)[:, :, ::-1]
    assert (seen(image, GREEN), seen(image, RED)) == (0, 0)
    found = copy.getexif()
    assert (found.get(0x010E), dict(found.get_ifd(0x8825))) == (("garden", {1: "N"}) if kept else (None, {}))
    assert found.get(0x0112, 1) == 1
    assert b"maker's preview" not in (tmp_path / "out" / "a.jpg").read_bytes()


class Faces:
    """Finds one face with five landmarks and a car, wherever it looks."""

    recipe = Recipe(name="faces")
    family = family_of(recipe)
    categories = (Category(1, "face"), Category(2, "../car"))
    points = np.array([(30, 40), (70, 40), (50, 60), (35, 80), (65, 80)], np.float32)

    def detect(self, images_bgr, settings=None):
        boxes = np.array([(20, 20, 80, 100), (150, 30, 400, 90)], np.float32)
        points = np.stack([self.points, np.zeros((5, 2), np.float32)])
        one = Detections(boxes, np.array([0.9, 0.8], np.float32), np.array([0, 1]), points)
        return [one] * len(images_bgr)


def test_crops_are_aligned_where_there_are_landmarks_and_boxes_elsewhere(tmp_path):
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), two_objects())
    crops = Crops(tmp_path / "crops", Faces.categories)
    run_predict(Faces(), open_sources([str(tmp_path / "*.png")]), None, 0.3, crops=crops)
    written = {path.relative_to(tmp_path / "crops").as_posix(): path for path in (tmp_path / "crops").rglob("*.jpg")}
    assert sorted(written) == ["class-2/a.jpg", "class-2/b.jpg", "face/a.jpg", "face/b.jpg"]
    assert cv2.imread(str(written["face/a.jpg"])).shape == (112, 112, 3)
    assert cv2.imread(str(written["class-2/a.jpg"])).shape == (60, 150, 3)


def test_crops_show_the_objects_before_they_are_hidden_and_only_the_classes_asked_for(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), two_objects())
    (tmp_path / "out").mkdir()
    schema = KeypointSchema(("a", "b", "c", "d", "e"))
    crops = Crops(tmp_path / "crops", Patches.categories, schema, frozenset({0}))
    run_anonymize(
        Patches(), open_sources([str(tmp_path / "a.png")]), tmp_path / "out", 0.3, Hiding("blur"), crops=crops
    )
    (crop,) = (tmp_path / "crops").rglob("*.jpg")
    assert seen(cv2.imread(str(crop)), GREEN) > 0.9 * 40 * 50
