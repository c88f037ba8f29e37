"""Objects keep their number from frame to frame, and drawn videos can be played."""

import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from ctnet.errors import MissingExtra
from ctnet.predict.tracks import Tracks
from ctnet.predict.video_writer import open_encoder
from ctnet.types import Detections


def found(*rows):
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    return Detections(boxes, np.array([r[1] for r in rows], np.float32), np.array([r[2] for r in rows], np.int64))


def test_objects_keep_their_number_and_classes_share_none():
    pytest.importorskip("trackers", reason="the extra track is not installed")
    tracks = Tracks(fps=25.0, score=0.3)
    numbers = []
    for step in range(8):
        right = np.array([10 + 4 * step, 20, 50 + 4 * step, 60])
        left = np.array([200 - 4 * step, 20, 240 - 4 * step, 60])
        rows = [(left, 0.5, 0), (right, 0.8 if step != 5 else 0.15, 0), (right + 2, 0.6, 1)]
        numbers.append(tracks.update(found(*(rows if step % 2 else rows[::-1]))))
    ordered = [row if step % 2 else row[::-1] for step, row in enumerate(numbers)]
    last = ordered[-1]
    assert None not in last
    assert len({*last}) == 3
    assert all(row == last for row in ordered[2:])  # the weak detection of step 5 continues its track
    assert tracks.update(found()) == []


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(MissingExtra, match=r"ctnet-toolkit\[track\]"):
        Tracks(25.0, 0.3)


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="there is no ffprobe")
@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_videos_are_h264_where_there_is_ffmpeg(tmp_path, size):
    file = tmp_path / "a.mp4"
    encoder = open_encoder(file, 12.5, np.zeros((*size, 3), np.uint8))
    for value in range(10):
        encoder.write(np.full((*size, 3), 20 * value, np.uint8))
    encoder.close()
    entries = "stream=codec_name,width,height,pix_fmt,r_frame_rate,nb_frames"
    command = ["ffprobe", "-v", "error", "-show_entries", entries, "-of", "csv=p=0", str(file)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert shown == "h264,64,48,yuv420p,25/2,10"
    read, frame = cv2.VideoCapture(str(file)).read()
    assert read
    assert frame.max() < 8
