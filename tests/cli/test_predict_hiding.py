"""The options of `ctnet predict` that hide objects."""

import json
import sys
import types

import cv2
import pytest

from ctnet.predict.anonymize.ffmpeg import find_ffmpeg
from movies import Patches, background, scene, write_movie


@pytest.fixture
def predict(ctnet, monkeypatch, tmp_path):
    module = types.ModuleType("ctnet.detect.opening")
    module.load_detector = lambda *_, **__: Patches()
    monkeypatch.setitem(sys.modules, "ctnet.detect.opening", module)
    cv2.imwrite(str(tmp_path / "a.png"), scene(5))
    cv2.imwrite(str(tmp_path / "b.png"), background())
    return lambda *arguments: ctnet("predict", "--weights", "best.safetensors", *arguments)


def test_copies_go_to_a_folder_and_a_line_names_what_was_hidden(predict, tmp_path):
    code, out, _ = predict("a.png", "b.png", "--anonymize", "pixelate", "--boxes-out", "boxes.csv", "--crops", "crops")
    assert (code, out) == (0, "a.png  1 face\nb.png  nothing\nruns/predict/patches-1\n")
    written = sorted(path.name for path in (tmp_path / "runs/predict/patches-1").iterdir())
    assert written == ["a.png", "b.png", "predictions.json"]
    assert len((tmp_path / "boxes.csv").read_text().splitlines()) == 2
    assert [path.name for path in (tmp_path / "crops/face").iterdir()] == ["a.jpg"]


def test_json_is_the_document_that_was_written(predict, tmp_path):
    code, out, _ = predict("a.png", "--anonymize", "blur", "--json", "--out", "found", "--lost", "blur-all",
                           "--mask-scale", "1.6", "--mask-shape", "ellipse", "--classes", "face")  # fmt: skip
    assert code == 0
    document = json.loads(out)
    assert document == json.loads((tmp_path / "found/predictions.json").read_text())
    assert document["anonymized"] == {
        "how": "blur", "lost": "blur-all", "mask_scale": 1.6, "mask_shape": "ellipse", "classes": ["face"],
        "detect_every": 1,
    }  # fmt: skip
    assert document["complete"] is True


def test_sparing_persons_is_refused_in_one_sentence(predict):
    code, _, err = predict("a.png", "--anonymize", "blur", "--keep", "me.jpg")
    assert code == 2
    assert err.strip().splitlines()[-1].endswith("is not available")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--lost", "keep"), "--anonymize"), (("--classes", "face"), "--anonymize or --crops"),
        (("--keep-metadata",), "--anonymize"), (("--anonymize", "blur", "--classes", "fase"), "face"),
        (("--anonymize", "blur", "--regions", "nowhere.txt"), "nowhere.txt"),
        (("--anonymize", "melt"), "melt"), (("--anonymize", "blur", "--mask-scale", "0"), "0.1"),
    ],
    ids=str,
)  # fmt: skip
def test_options_without_sense_are_errors_before_anything_is_written(predict, tmp_path, options, word):
    code, _, err = predict("a.png", *options)
    assert code == 2
    assert word in err
    assert not list((tmp_path / "runs/predict").rglob("*.png")) if (tmp_path / "runs").exists() else True


def test_folders_with_files_are_not_written_into(predict, tmp_path):
    code, _, err = predict("a.png", "--crops", ".")
    assert code == 2
    assert "--crops must be a new or empty folder" in err


@pytest.mark.skipif(find_ffmpeg() is None, reason="needs ffmpeg")
def test_a_damaged_video_and_a_lost_object_are_named(predict, tmp_path):
    images = [scene(i, speed=0, start=(60, 40), hidden=range(20, 99)) for i in range(40)]
    write_movie(tmp_path / "v.mp4", images)
    whole = write_movie(
        tmp_path / "w.mp4", images, sound=False, more=("-movflags", "+faststart", "-g", "4", "-crf", "1")
    )
    content = whole.read_bytes()
    whole.write_bytes(content[: int(0.6 * len(content))])
    code, out, err = predict("v.mp4", "w.mp4", "--anonymize", "solid", "--out", "found")
    assert code == 3
    assert out.splitlines()[0] == "v.mp4  1 face"
    assert "v.mp4: an object was lost, so look at 2.0-2.9 s" in err
    assert "w.mp4" in err
    assert "damaged" in err
    assert (tmp_path / "found" / "w.mp4").is_file()
