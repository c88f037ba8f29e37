"""What people have in their folders: formats, depths, frames, videos, damage; nothing is lost without a word."""

import io
import subprocess
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest

from ctnet.data.image import IMAGE_SUFFIXES, decode_file, read_image
from ctnet.data.image_frames import count_frames
from ctnet.data.remarks import remarks_on
from ctnet.errors import DataError
from ctnet.predict import streams
from ctnet.predict.sources import open_sources


def gradient(height=24, width=32, most=255, dtype=np.uint8):
    return (np.linspace(0, most, height * width).reshape(height, width, 1) * np.ones(3)).astype(dtype)


def save(path, image, *options):
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded, content = cv2.imencode(path.suffix, image, list(options))
    assert encoded, path.suffix
    path.write_bytes(content.tobytes())
    return path


def video(path, frames=20, codec="MJPG", size=(48, 32)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10.0, size)
    assert writer.isOpened()
    for number in range(frames):
        writer.write(np.full((size[1], size[0], 3), 10 * number, np.uint8))
    writer.release()
    return path


def names(sources):
    return [frame.path.name for frame in sources]


def test_the_decoder_reads_every_suffix_that_it_writes(tmp_path):
    """One list of suffixes for the project, and none of them is a promise that OpenCV does not keep."""
    written = [suffix for suffix in IMAGE_SUFFIXES if suffix not in (".heic", ".heif", ".hif")]
    for suffix in written:
        image = gradient(64, 96, dtype=np.float32 if suffix == ".pfm" else np.uint8)
        image = image[:, :, :1] if suffix in (".pgm", ".pbm") else image
        if not cv2.haveImageWriter(f"a{suffix}") and suffix != ".jfif":
            continue
        path = save(tmp_path / f"a{suffix if suffix != '.jfif' else '.jpg'}", image)
        path = path.rename(tmp_path / f"b{suffix}")
        assert read_image(path).shape == (64, 96, 3), suffix
        assert names(open_sources([str(tmp_path)])) == [path.name], suffix
        path.unlink()


def test_heic_is_read_by_the_extra_and_named_without_it(tmp_path, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    image = np.full((64, 96, 3), (200, 60, 20), np.uint8)
    path = tmp_path / "phone.HEIC"
    pillow_heif.encode("RGB", (96, 64), image.tobytes(), path, quality=90)
    assert np.abs(read_image(path).astype(int) - image[:, :, ::-1]).max() < 12
    assert names(open_sources([str(tmp_path)])) == ["phone.HEIC"]
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(DataError, match=r"ctnet-toolkit\[heic\]"):
        read_image(path)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm"])
def test_sixteen_bit_images_are_scaled_by_the_bits_that_their_values_need(tmp_path, bits, suffix):
    most = (1 << bits) - 1
    path = save(tmp_path / f"a{suffix}", gradient(most=most, dtype=np.uint16))
    assert np.abs(read_image(path).astype(int) - gradient()).max() <= 1
    assert decode_file(path).scaled == (0, most)


def test_floating_and_stated_ranges(tmp_path):
    fractions = save(tmp_path / "a.tif", (gradient() / 255).astype(np.float32))
    assert np.abs(read_image(fractions).astype(int) - gradient()).max() <= 1
    wide = save(tmp_path / "b.tif", gradient(most=3000, dtype=np.float32) - 1000)
    assert (read_image(wide).min(), read_image(wide).max()) == (0, 255)
    assert read_image(wide, value_range=(0, 4000)).max() == round(2000 / 4000 * 255)
    odd = gradient(dtype=np.float32)
    odd[0, 0] = np.nan
    assert read_image(save(tmp_path / "c.tif", odd))[0, 0].tolist() == [0, 0, 0]
    assert decode_file(save(tmp_path / "d.png", gradient())).scaled is None


def animated(path, frames=3):
    animation = cv2.Animation()
    animation.frames = [np.full((16, 20, 3), 60 * i, np.uint8) for i in range(frames)]
    animation.durations = np.full(frames, 100, np.int32)
    assert cv2.imwriteanimation(str(path), animation)
    return path


@pytest.mark.skipif(not hasattr(cv2, "Animation"), reason="this OpenCV writes no animations")
def test_frames_and_pages_are_counted_and_mentioned_once(tmp_path):
    files = [animated(tmp_path / f"{i}{suffix}") for i, suffix in enumerate((".gif", ".webp", ".png", ".avif"))]
    pages = tmp_path / "4.tiff"
    assert cv2.imwritemulti(str(pages), [gradient(), gradient(), gradient()])
    for path in (files[0], files[1], files[2], pages):
        assert count_frames(path.read_bytes()) == 3, path
    for suffix in (".gif", ".webp", ".png", ".tiff", ".jpg"):
        assert count_frames(save(tmp_path / f"one{suffix}", gradient()).read_bytes()) == 1, suffix
    sources = open_sources([str(tmp_path)])
    assert len(list(sources)) == 10
    (sentence,) = sources.remarks.sentences()
    assert "5 images (first: 0.gif) with several frames or pages: the first of them is used" in sentence


def test_a_sample_of_a_set_tells_what_training_will_see(tmp_path):
    paths = [save(tmp_path / f"{i}.png", gradient(most=4000, dtype=np.uint16)) for i in range(40)]
    (sentence,) = remarks_on([*paths, tmp_path / "missing.png", save(tmp_path / "a.jpg", gradient())])
    assert "values 0..4095 become 0..255 (data.value_range)" in sentence
    assert remarks_on([tmp_path / "a.jpg"]) == []


def test_a_folder_gives_images_and_videos_and_names_the_rest(tmp_path):
    video(tmp_path / "b.avi", 3)
    save(tmp_path / "a.png", gradient())
    save(tmp_path / "c.png", gradient()).rename(tmp_path / "c")  # without suffix
    video(tmp_path / "d.avi", 2).rename(tmp_path / "d.bin")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "sub").mkdir()
    sources = open_sources([str(tmp_path)])
    assert names(sources) == ["a.png", "b.avi", "b.avi", "b.avi", "c", "d.bin", "d.bin"]
    assert [path.name for path in sources.skipped] == ["notes.txt"]
    notes = "\n".join(sources.notes())
    assert "1 file is neither image nor video: notes.txt" in notes
    assert "subfolders are not searched: sub" in notes


def test_a_folder_of_other_files_names_them(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"(?s)no images or videos.*notes\.txt"):
        open_sources([str(tmp_path)])


def test_frames_that_a_damaged_video_lost_are_a_failure_and_the_others_are_kept(tmp_path):
    whole = video(tmp_path / "v.avi", 20)
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) * 8 // 10])
    sources = open_sources([str(whole)])
    read = len(list(sources))
    assert 0 < read < 19
    (failure,) = sources.failures
    assert f"{read} of 20 frames" in failure.message
    assert failure.facts["lost"] == str(20 - read)


def test_frames_can_be_limited(tmp_path):
    sources = open_sources([str(video(tmp_path / "v.avi", 9))], most_frames=4)
    assert sources.count_frames() == 4
    assert [frame.frame_number for frame in sources] == [0, 1, 2, 3]
    assert not sources.failures


@pytest.fixture
def stdin(monkeypatch):
    def feed(content):
        stream = io.BufferedReader(io.BytesIO(content))
        monkeypatch.setattr(streams.sys, "stdin", types.SimpleNamespace(buffer=stream))
        return open_sources(["-"])

    return feed


def test_standard_input_is_images_a_video_or_names(tmp_path, stdin):
    pictures = [save(tmp_path / f"{i}{suffix}", gradient(20 + i)) for i, suffix in enumerate((".jpg", ".jpg", ".png"))]
    frames = list(stdin(b"".join(path.read_bytes() for path in pictures[:2])))
    assert [(frame.shown, frame.image_bgr.shape[0]) for frame in frames] == [
        ("stdin-000001.jpg", 20), ("stdin-000002.jpg", 21),
    ]  # fmt: skip
    assert [f.image_bgr.shape[0] for f in stdin(pictures[2].read_bytes() * 3)] == [22, 22, 22]
    assert [f.frame_number for f in stdin(video(tmp_path / "v.avi", 4).read_bytes())] == [0, 1, 2, 3]
    assert names(stdin(f"{pictures[1]}\n\n{pictures[0]}\n".encode())) == ["1.jpg", "0.jpg"]
    for content in (b"", b"\n", b"\xff\xfe\0"):
        with pytest.raises(DataError, match="standard input"):
            stdin(content)


def test_a_broken_image_on_standard_input_costs_no_other(tmp_path, stdin):
    good = save(tmp_path / "a.jpg", gradient()).read_bytes()
    sources = stdin(good + good[:200] + b"\xff\xd9" + good)
    assert len(list(sources)) == 2
    assert "stdin-000002" in str(sources.failures[0])


def test_addresses_and_cameras(tmp_path):
    from ctnet.predict.streams import as_stream

    camera = as_stream("0")
    assert (camera.source, camera.name.name) == (0, "camera-0")
    (tmp_path / "7").write_bytes(save(tmp_path / "a.png", gradient()).read_bytes())
    assert as_stream("7") is None  # a file of that name, in the working folder
    stream = as_stream("rtsp://me:secret@127.0.0.1:8554/front door")
    assert "secret" not in stream.shown
    assert "secret" not in stream.name.name
    with pytest.raises(DataError, match="address"):
        as_stream("concat://etc/passwd")


def test_a_video_is_read_from_an_address(tmp_path):
    video(tmp_path / "v.avi", 5)
    code = (
        "import http.server as h; s = h.ThreadingHTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler);"
        "print(s.server_port, flush=True); s.serve_forever()"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        port = int(server.stdout.readline())
        sources = open_sources([f"http://127.0.0.1:{port}/v.avi"])
        assert len(list(sources)) == 5
        gone = open_sources([f"http://127.0.0.1:{port}/none.avi"])
        assert list(gone) == []
        assert "cannot be opened" in gone.failures[0].message
    finally:
        server.kill()
        server.wait()


VIDEOS = {
    "vid_a_hole.mp4/a_hole.mp4": (21, 60), "vid_b_cut.avi/b_cut.avi": (36, 60), "vid_c.wmv/c.wmv": (60, 60),
    "vid_e_cut.mkv/e_cut.mkv": (35, 60), "vid_f.flv/f.flv": (60, 60), "vid_folder_only_videos": (60, 60),
    "vid_mixed": (61, 61),
}  # fmt: skip


@pytest.mark.parametrize("case", VIDEOS)
def test_videos_of_the_cases(shared, case, capfd):
    path = shared / "cases" / case
    if not path.exists():
        pytest.skip(f"no {path}")
    read, stated = VIDEOS[case]
    sources = open_sources([str(path)])
    assert len(list(sources)) == read
    assert len(sources.failures) == (read < stated)
    assert len(capfd.readouterr().err) < 500  # decoders do not flood the terminal


def test_images_of_the_cases(shared):
    folder = shared / "cases" / "p_pictures"
    if not folder.exists():
        pytest.skip(f"no {folder}")
    sources = open_sources([str(folder)])
    read = {frame.path.name: frame.image_bgr for frame in sources}
    refused = {Path(str(error.facts["file"])).name: error.message for error in sources.failures}
    assert {path.name for path in sources.skipped} == {"README"}
    assert set(read) | set(refused) == {path.name for path in folder.iterdir()} - {"README"}
    assert "git-lfs" in refused["24_lfs.jpg"]
    for name in ("02_gray12in16.png", "02c_gray12in16.tif"):
        assert read[name].max() == round(4032 / 4095 * 255)
    frames, scaled = sources.remarks.sentences()
    assert frames.startswith("3 images")
    assert scaled.startswith("3 images")
