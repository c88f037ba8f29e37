import cv2
import numpy as np
import pytest

from ctnet.errors import DataError
from ctnet.predict.sources import open_sources


def write_image(path, shape=(13, 21, 3), value=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full(shape, value, np.uint8))
    return path


def write_video(path, num_frames=5, size=(48, 32), fps=10.0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, size)
    for number in range(num_frames):
        writer.write(np.full((size[1], size[0], 3), 40 * number, np.uint8))
    writer.release()
    return path


def names(sources):
    return [frame.path.name for frame in sources]


def test_a_folder_gives_its_images_sorted_and_nothing_else(tmp_path):
    for name in ("b.png", "a.JPG", "c.webp", "sub/d.png", "._a.png"):
        write_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    sources = open_sources([str(tmp_path)])
    assert sources.count_frames() == 3
    assert names(sources) == ["a.JPG", "b.png", "c.webp"]
    assert [frame.index for frame in sources] == [0, 1, 2]


def test_globs_reach_into_subfolders_and_keep_their_order(tmp_path, monkeypatch):
    for name in ("x/2.png", "x/y/1.png", "0.png"):
        write_image(tmp_path / name)
    (tmp_path / "x/3.txt").write_text("x")
    assert names(open_sources([f"{tmp_path}/**/*"])) == ["0.png", "2.png", "1.png"]
    monkeypatch.chdir(tmp_path)
    assert names(open_sources(["x/*.png"])) == ["2.png"]


def test_a_name_with_brackets_is_a_file_before_it_is_a_glob(tmp_path):
    path = write_image(tmp_path / "cell[1].png")
    assert names(open_sources([str(path)])) == ["cell[1].png"]


def test_a_file_named_twice_is_read_once(tmp_path):
    path = write_image(tmp_path / "a.png")
    write_image(tmp_path / "b.png")
    assert names(open_sources([str(tmp_path / "b.png"), str(tmp_path), str(path)])) == ["b.png", "a.png"]


@pytest.mark.parametrize("argument", ["none.png", "*.png", "empty"])
def test_an_argument_with_nothing_behind_it_is_named(tmp_path, argument):
    (tmp_path / "empty").mkdir()
    write_image(tmp_path / "a.jpg")
    with pytest.raises(DataError) as caught:
        open_sources([str(tmp_path / "a.jpg"), str(tmp_path / argument)])
    assert str(tmp_path / argument) in str(caught.value)


def test_a_broken_image_is_kept_as_a_failure_and_the_others_are_read(tmp_path):
    write_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"not an image")
    write_image(tmp_path / "c.png")
    sources = open_sources([str(tmp_path)])
    assert [(frame.path.name, frame.index) for frame in sources] == [("a.png", 0), ("c.png", 1)]
    (failure,) = sources.failures
    assert str(tmp_path / "b.png") in str(failure)


def test_a_video_gives_its_frames_with_number_and_rate(tmp_path):
    image = write_image(tmp_path / "a.png")
    video = write_video(tmp_path / "v.avi")
    sources = open_sources([str(image), str(video)])
    frames = list(sources)
    assert sources.count_frames() == len(frames) == 6
    assert [frame.frame_number for frame in frames] == [None, 0, 1, 2, 3, 4]
    assert [frame.index for frame in frames] == list(range(6))
    assert frames[0].fps is None
    assert frames[1].fps == pytest.approx(10)
    assert frames[4].image_bgr.shape == (32, 48, 3)
    assert abs(int(frames[4].image_bgr.mean()) - 120) < 5


def test_a_broken_video_is_a_failure_that_names_it(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"no video")
    sources = open_sources([str(tmp_path / "v.mp4")])
    assert sources.count_frames() == 0
    assert list(sources) == []
    assert "v.mp4" in str(sources.failures[0])
