import json

import cv2
import numpy as np
import pytest

from ctnet.config import Recipe
from ctnet.families import family_of
from ctnet.predict.pipeline import run_predict
from ctnet.predict.sources import open_sources
from ctnet.types import Category, Detections


class Brightness:
    """A detector that finds the whole image, as sure as it is bright, and a weak box beside it."""

    recipe = Recipe(name="bright")
    family = family_of(recipe)
    categories = (Category(7, "whole"), Category(9, "part"))

    def __init__(self):
        self.batches = []

    def detect(self, images_bgr, settings=None):
        self.batches.append((len(images_bgr), settings.batch_size))
        results = []
        for image in images_bgr:
            height, width = image.shape[:2]
            boxes = np.array([[0, 0, width, height], [1, 1, width / 2, height / 2]], np.float32)
            scores = np.array([image.mean() / 255, 0.1], np.float32)
            results.append(Detections(boxes, scores, np.array([0, 1])))
        return results


def write_image(path, value=200, shape=(37, 61, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full(shape, value, np.uint8))
    return path


def write_video(path, num_frames=5, size=(64, 48), fps=10.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, size)
    for number in range(num_frames):
        writer.write(np.full((size[1], size[0], 3), 100 + 20 * number, np.uint8))
    writer.release()
    return path


def batches_of(size):
    evaluation = Recipe().evaluation
    return evaluation if size is None else evaluation.model_copy(update={"batch_size": size})


def predict(arguments, out, batch_size=None, **options):
    options["settings"] = batches_of(batch_size)
    return run_predict(Brightness(), open_sources([str(a) for a in arguments]), out, 0.3, **options)


def file_names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_an_image_is_drawn_under_its_name_and_listed(tmp_path):
    source = write_image(tmp_path / "in/cell.png")
    out = tmp_path / "out"
    document = predict([source], out)
    assert file_names(out) == ["cell.png", "predictions.json"]
    assert json.loads((out / "predictions.json").read_text()) == document
    assert document == {
        "schema": "ctnet.predict/1",
        "model": "bright",
        "score": 0.3,
        "categories": [{"id": 7, "name": "whole"}, {"id": 9, "name": "part"}],
        "complete": True,
        "failures": [],
        "pictures": [
            {
                "file": str(source),
                "width": 61,
                "height": 37,
                "detections": [
                    {
                        "box": [0.0, 0.0, 61.0, 37.0],
                        "score": 0.78431,
                        "category_id": 7,
                        "category_name": "whole",
                    }
                ],
                "drawn": "cell.png",
            }
        ],
    }
    drawn = cv2.imread(str(out / "cell.png"))
    assert drawn.shape == (37, 61, 3)
    assert not np.array_equal(drawn, cv2.imread(str(source)))


def test_same_names_from_two_folders_both_survive(tmp_path):
    for name in ("a/x.png", "b/X.png", "c/x-2.png", "d/x.tif"):
        write_image(tmp_path / name)
    document = predict([tmp_path / "a", tmp_path / "b", tmp_path / "c", tmp_path / "d"], tmp_path / "out")
    assert [p["drawn"] for p in document["pictures"]] == ["x.png", "X-2.png", "x-2-2.png", "x-3.png"]
    assert len(file_names(tmp_path / "out")) == 5


@pytest.mark.parametrize("size", [(64, 48), (63, 47)], ids=["64x48", "63x47"])
def test_a_video_becomes_a_drawn_video_of_the_same_length(tmp_path, size):
    videos = [write_video(tmp_path / "in/v.avi", size=size), write_video(tmp_path / "in/w.avi", 3, size)]
    document = predict([*videos, write_image(tmp_path / "in/p.jpg")], tmp_path / "out", batch_size=2)
    assert file_names(tmp_path / "out") == ["p.jpg", "predictions.json", "v.mp4", "w.mp4"]
    assert [p.get("frame") for p in document["pictures"]] == [0, 1, 2, 3, 4, 0, 1, 2, None]
    capture = cv2.VideoCapture(str(tmp_path / "out/v.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    drawn = 0
    while capture.read()[0]:
        drawn += 1
    assert drawn == 5


@pytest.mark.parametrize("batch_size", [1, 3, 100, None])
def test_the_batch_size_changes_nothing_but_the_batches(tmp_path, batch_size):
    for i in range(7):
        write_image(tmp_path / f"{i}.png", value=40 * i, shape=(20 + i, 31, 3))
    detector, done = Brightness(), []
    frames = open_sources([str(tmp_path)])
    settings = batches_of(batch_size)
    document = run_predict(
        detector, frames, None, 0.3, settings=settings, progress=lambda n, total: done.append((n, total))
    )
    assert document == predict([tmp_path], None)
    assert [len(p["detections"]) for p in document["pictures"]] == [0, 0, 1, 1, 1, 1, 1]
    size = batch_size or Recipe().evaluation.batch_size
    assert {limit for _, limit in detector.batches} == {size}
    assert [n for n, _ in detector.batches] == [size] * (7 // size) + ([7 % size] if 7 % size else [])
    assert done[-1] == (7, 7)


def test_without_drawing_only_the_document_is_written_and_without_a_folder_nothing(tmp_path):
    source = write_image(tmp_path / "in/cell.png")
    document = predict([source], tmp_path / "out", draw=False)
    assert file_names(tmp_path / "out") == ["predictions.json"]
    assert "drawn" not in document["pictures"][0]
    predict([source], None)
    assert file_names(tmp_path) == ["in", "out"]


def test_an_error_leaves_no_half_video_and_loses_nothing_that_was_found(tmp_path):
    video = write_video(tmp_path / "in/v.avi")

    class Failing(Brightness):
        def detect(self, images_bgr, settings=None):
            if len(self.batches) == 2:
                raise RuntimeError("out of memory")
            return super().detect(images_bgr, settings)

    with pytest.raises(RuntimeError):
        run_predict(Failing(), open_sources([str(video)]), tmp_path / "out", 0.3, settings=batches_of(1))
    assert file_names(tmp_path / "out") == ["predictions.json"]
    document = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert (document["complete"], [p["frame"] for p in document["pictures"]]) == (False, [0, 1])
