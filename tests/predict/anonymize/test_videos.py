"""Videos whose objects are hidden, with everything else as it was."""

import json
import subprocess
import sys
from fractions import Fraction

import cv2
import numpy as np
import pytest

from ctnet.errors import MissingExtra
from ctnet.predict.anonymize import encoder, ffmpeg
from ctnet.predict.anonymize.areas import Area, Areas
from ctnet.predict.anonymize.ffmpeg import find_ffmpeg, look_into
from ctnet.predict.anonymize.run import Hiding, run_anonymize
from ctnet.predict.sources import open_sources
from movies import GREEN, Patches, background, read_movie, scene, write_movie

pytestmark = pytest.mark.skipif(find_ffmpeg() is None, reason="needs ffmpeg")


def anonymize(video, out, detector=None, **hiding):
    out.mkdir()
    return run_anonymize(
        detector or Patches(), open_sources([str(video)]), out, 0.3, Hiding(**{"how": "solid", **hiding})
    )


def green_pixels(image):
    return int((np.abs(image.astype(int) - GREEN).max(2) < 60).sum())


def uncovered(movie):
    return [number for number, image in enumerate(read_movie(movie)[0]) if green_pixels(image) > 8]


@pytest.mark.parametrize(
    ("suffix", "codec", "name"),
    [
        (".mp4", ("-c:v", "libx264"), "h264"), (".mkv", ("-c:v", "libx264"), "h264"),
        (".mov", ("-c:v", "mpeg4"), "mpeg4"),
        (".avi", ("-c:v", "mjpeg", "-q:v", "2", "-c:a", "pcm_s16le"), "mjpeg"),
        (".webm", ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-c:a", "libopus"), "vp9"),
        (".mpg", ("-c:v", "mpeg2video", "-q:v", "2", "-c:a", "mp2"), "mpeg2video"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith(".") else "",
)  # fmt: skip
def test_sound_codec_and_duration_stay_and_nothing_is_seen(tmp_path, suffix, codec, name):
    video = write_movie(tmp_path / f"v{suffix}", map(scene, range(24)), fps=25, codec=codec)
    before, times = read_movie(video)
    document = anonymize(video, tmp_path / "out")
    copy = tmp_path / "out" / f"v{suffix}"
    (entry,) = document["files"]
    assert (entry["written"], entry["codec"], entry["objects"], entry["notes"]) == (copy.name, name, {"face": 1}, [])
    assert look_into(find_ffmpeg(), copy).codec == name
    assert look_into(find_ffmpeg(), copy).sound == look_into(find_ffmpeg(), video).sound is not None
    after, copied_times = read_movie(copy)
    assert copied_times == pytest.approx(times, abs=0.002)
    assert uncovered(copy) == []
    corner = np.s_[:30, 100:]
    assert np.abs(before[5][corner].astype(int) - after[5][corner]).mean() < 8
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["predictions.json", copy.name]


def test_frames_at_irregular_times_keep_them(tmp_path):
    select = ("-vf", "select='not(mod(n,3)*gt(n,9))'", "-vsync", "vfr")
    video = write_movie(tmp_path / "v.mp4", map(scene, range(30)), fps=25, codec=("-c:v", "libx264"), more=select)
    times = read_movie(video)[1]
    assert max(np.diff(times)) > 2.5 * min(np.diff(times))
    anonymize(video, tmp_path / "out")
    assert read_movie(tmp_path / "out" / "v.mp4")[1] == pytest.approx(times, abs=1e-3)


def test_sound_that_begins_before_the_images_stays_in_step(tmp_path):
    plain = write_movie(tmp_path / "plain.mkv", map(scene, range(20)))
    video = tmp_path / "v.mkv"
    ffmpeg_run("-itsoffset", "0.4", "-i", plain, "-i", plain, "-map", "0:v", "-map", "1:a", "-c", "copy", video)
    assert look_into(find_ffmpeg(), video).delay_s == pytest.approx(0.4, abs=0.03)
    anonymize(video, tmp_path / "out")
    assert look_into(find_ffmpeg(), tmp_path / "out" / "v.mkv").delay_s == pytest.approx(0.4, abs=0.03)


def ffmpeg_run(*arguments):
    subprocess.run([find_ffmpeg(), "-v", "error", "-y", *map(str, arguments)], check=True)


def test_pixels_that_are_not_square_stay_so(tmp_path):
    video = write_movie(tmp_path / "v.mp4", map(scene, range(6)), more=("-vf", "setsar=4/3"))
    anonymize(video, tmp_path / "out")
    assert look_into(find_ffmpeg(), tmp_path / "out" / "v.mp4").pixel_shape == Fraction(4, 3)


def test_place_and_time_of_recording_are_copied_only_when_asked(tmp_path):
    tags = ("-metadata", "title=birthday", "-metadata", "comment=at home")
    video = write_movie(tmp_path / "v.mkv", map(scene, range(4)), more=tags)
    anonymize(video, tmp_path / "out")
    assert b"birthday" not in (tmp_path / "out" / "v.mkv").read_bytes()
    anonymize(video, tmp_path / "kept", metadata=True)
    assert b"birthday" in (tmp_path / "kept" / "v.mkv").read_bytes()


class Blinking(Patches):
    """Sees nothing in some frames, as detectors do."""

    def __init__(self, blind):
        super().__init__()
        self.blind = set(blind)

    def detect(self, images_bgr, settings=None):
        first = self.seen
        found = super().detect(images_bgr, settings)
        return [one.select(slice(0, 0)) if first + i in self.blind else one for i, one in enumerate(found)]


def test_an_object_that_is_missed_for_some_frames_does_not_flicker_out(tmp_path):
    video = write_movie(tmp_path / "v.mp4", map(scene, range(40)))
    document = anonymize(video, tmp_path / "out", Blinking([3, 9, 10, 11, 12, 13, 14, 20, 22, 24]))
    assert uncovered(tmp_path / "out" / "v.mp4") == []
    (entry,) = document["files"]
    assert (entry["objects"], entry["undecided"]) == ({"face": 1}, [])


def test_where_an_object_is_lost_the_mask_stays_and_the_frames_are_listed(tmp_path):
    video = write_movie(tmp_path / "v.mp4", (scene(i, speed=0, start=(60, 40)) for i in range(60)))
    blind = Blinking(range(25, 60))
    (entry,) = anonymize(video, tmp_path / "out", blind)["files"]
    assert entry["undecided"] == [{"frames": [25, 34], "seconds": [2.5, 3.4]}]
    assert uncovered(tmp_path / "out" / "v.mp4") == list(range(35, 60))
    (entry,) = anonymize(video, tmp_path / "all", Blinking(range(25, 60)), lost="blur-all")["files"]
    frames = read_movie(tmp_path / "all" / "v.mp4")[0]
    assert [number for number, image in enumerate(frames) if image.max() < 40] == list(range(25, 35))


def test_an_object_that_leaves_the_image_is_not_lost(tmp_path):
    video = write_movie(tmp_path / "v.mp4", (scene(i, speed=6) for i in range(40)))
    (entry,) = anonymize(video, tmp_path / "out")["files"]
    assert entry["undecided"] == []
    assert uncovered(tmp_path / "out" / "v.mp4") == []


def test_a_mask_does_not_outlast_its_scene(tmp_path):
    other = np.full((120, 160, 3), 250, np.uint8)
    images = [scene(i, speed=0, start=(60, 40)) for i in range(15)] + [other] * 15
    (entry,) = anonymize(write_movie(tmp_path / "v.mp4", images), tmp_path / "out")["files"]
    assert entry["undecided"] == []
    assert all(image.min() > 200 for image in read_movie(tmp_path / "out" / "v.mp4")[0][15:])


def test_regions_and_times_force_and_limit(tmp_path):
    video = write_movie(tmp_path / "v.mp4", (scene(i, speed=0, start=(60, 40)) for i in range(30)))
    areas = Areas(times=(Area("only", None, 1.0, 2.0),))
    anonymize(video, tmp_path / "times", areas=areas)
    assert uncovered(tmp_path / "times" / "v.mp4") == [*range(10), *range(20, 30)]
    areas = Areas((Area("always", ((0.0, False), (0.0, False), (0.25, True), (0.25, True)), 0, 1),
                   Area("never", ((0.0, True), (0.0, True), (1.0, True), (1.0, True)))))  # fmt: skip
    anonymize(video, tmp_path / "regions", areas=areas)
    frames = read_movie(tmp_path / "regions" / "v.mp4")[0]
    assert [number for number, image in enumerate(frames) if image[:28, :38].max() < 40] == list(range(10))
    assert len(uncovered(tmp_path / "regions" / "v.mp4")) == 30


def test_a_video_that_ends_in_the_middle_of_a_frame_is_written_as_far_as_it_goes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 60, (40, 120, 160, 3), np.uint8)
    images = [np.where(scene(i, speed=0) == GREEN, scene(i, speed=0), grain) for i, grain in enumerate(noise)]
    video = write_movie(tmp_path / "v.mp4", images, sound=False, more=("-movflags", "+faststart", "-g", "5"))
    content = video.read_bytes()
    video.write_bytes(content[: int(len(content) * 0.6)])
    document = anonymize(video, tmp_path / "out")
    assert document["complete"] is False
    (failure,) = document["failures"]
    assert "damaged" in failure["error"]
    frames, _ = read_movie(tmp_path / "out" / "v.mp4")
    assert 10 < len(frames) < 40
    assert uncovered(tmp_path / "out" / "v.mp4") == []
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["complete"] is False


def test_without_ffmpeg_the_images_stay_and_a_sentence_names_what_does_not(tmp_path, monkeypatch):
    video = write_movie(tmp_path / "v.mkv", map(scene, range(12)))
    for module in (encoder, ffmpeg):
        monkeypatch.setattr(module, "find_ffmpeg", lambda: None)
    (entry,) = anonymize(video, tmp_path / "out")["files"]
    assert (entry["written"], entry["sound"]) == ("v.mp4", None)
    assert "without sound" in entry["notes"][0]
    assert "ctnet-toolkit[video]" in entry["notes"][0]
    frames, times = read_movie(tmp_path / "out" / "v.mp4")
    assert (len(frames), uncovered(tmp_path / "out" / "v.mp4")) == (12, [])
    assert times[-1] == pytest.approx(1.1, abs=0.01)


def test_an_interrupt_while_writing_leaves_no_part_of_a_video(tmp_path):
    video = write_movie(tmp_path / "v.mp4", map(scene, range(8)))

    (tmp_path / "out").mkdir()
    done = []

    def stop(number, total):
        done.append(total)
        if number == 13:  # in the second pass
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_anonymize(Patches(), open_sources([str(video)]), tmp_path / "out", 0.3, Hiding("solid"), progress=stop)
    assert set(done) == {16}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.json"]
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["complete"] is False


def test_fewer_frames_are_shown_to_the_detector_while_nothing_happens(tmp_path):
    images = [scene(i, hidden=range(0, 33), speed=0) for i in range(60)]
    video = write_movie(tmp_path / "v.mp4", images)
    detector = Patches()
    (entry,) = anonymize(video, tmp_path / "out", detector, every=4)["files"]
    assert detector.seen < 25
    assert entry["objects"] == {"face": 1}
    assert uncovered(tmp_path / "out" / "v.mp4") == []


def test_what_was_hidden_where_is_written_as_csv(tmp_path):
    video = write_movie(tmp_path / "v.mp4", map(scene, range(12)))
    anonymize(video, tmp_path / "out", Blinking([5]), boxes_out=tmp_path / "boxes.csv")
    lines = (tmp_path / "boxes.csv").read_text().splitlines()
    assert lines[0] == "file,frame,seconds,track,class,score,x1,y1,x2,y2,turn,reason"
    rows = [line.split(",") for line in lines[1:]]
    assert [(row[1], row[2], row[4], row[-1]) for row in rows][4:7] == [
        ("4", "0.400", "face", "found"), ("5", "0.500", "face", "filled"), ("6", "0.600", "face", "found")
    ]  # fmt: skip
    x1, y1, x2, y2 = map(float, rows[4][6:10])
    assert (x1, y1, x2, y2) == pytest.approx((28, 40, 52, 70), abs=2)


@pytest.mark.parametrize("size", [(75, 101), (121, 160)])
def test_odd_sides(tmp_path, size):
    images = [cv2.resize(scene(i), size[::-1]) for i in range(6)]
    video = write_movie(tmp_path / "v.avi", images, codec=("-c:v", "mjpeg", "-q:v", "2"), sound=False)
    anonymize(video, tmp_path / "out")
    frames, _ = read_movie(tmp_path / "out" / "v.avi")
    assert len(frames) == 6
    assert abs(frames[0].shape[0] - size[0]) <= 1
    assert uncovered(tmp_path / "out" / "v.avi") == []


def test_unknown_containers_become_matroska_and_it_is_told(tmp_path):
    video = write_movie(tmp_path / "v.mpeg", map(scene, range(25)), fps=25, codec=("-c:v", "mpeg2video", "-c:a", "mp2"))
    odd = video.rename(tmp_path / "v.mp4")
    plan = encoder.plan_copy(odd)
    assert (plan.suffix, plan.codec) == (".mp4", "mpeg2video")
    assert encoder.plan_copy(video.with_suffix(".ogv")).suffix == ".mkv"


def test_metadata_needs_pillow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingExtra):
        anonymize(write_movie(tmp_path / "v.mp4", [background()] * 3), tmp_path / "out", metadata=True)
