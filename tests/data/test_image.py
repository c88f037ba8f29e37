import struct
import zlib

import cv2
import numpy as np
import pytest

from ctnet.data.image import read_image, write_image
from ctnet.data.image_size import read_image_size
from ctnet.errors import DataError, StorageError


def image(height=37, width=53, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def exif(orientation, order="<"):
    mark = b"II*\0" if order == "<" else b"MM\0*"
    tiff = mark + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    return b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff


def with_exif(path, orientation, order="<"):
    content = path.read_bytes()
    path.write_bytes(content[:2] + exif(orientation, order) + content[2:])


def test_png_comes_back_as_written_from_a_path_in_any_script(tmp_path):
    path = tmp_path / "Bilder 图" / "ä.png"
    write_image(path, image())
    assert np.array_equal(read_image(path), image())
    assert [p.name for p in path.parent.iterdir()] == ["ä.png"]


@pytest.mark.parametrize("shape", [(37, 53), (37, 53, 4)], ids=["grey", "alpha"])
def test_grey_and_alpha_become_bgr(tmp_path, shape):
    path = tmp_path / "a.png"
    write_image(path, np.full(shape, 77, np.uint8))
    assert read_image(path).shape == (37, 53, 3)


@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize(("orientation", "size"), [(1, (37, 53)), (3, (37, 53)), (6, (53, 37)), (8, (53, 37))])
def test_exif_rotation_is_applied_and_known_from_the_header(tmp_path, orientation, size, order):
    path = tmp_path / "a.jpg"
    write_image(path, image())
    with_exif(path, orientation, order)
    assert read_image(path).shape[:2] == size
    assert read_image_size(path) == size


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_size_is_that_of_the_decoded_image(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_image(path, image())
    assert read_image_size(path) == (37, 53)


def test_size_of_a_progressive_jpeg(tmp_path):
    path = tmp_path / "a.jpg"
    _, content = cv2.imencode(".jpg", image(), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    path.write_bytes(content.tobytes())
    assert read_image_size(path) == (37, 53)
    assert read_image(path).shape == (37, 53, 3)


def test_jpeg_with_bytes_behind_its_end_is_whole(tmp_path):
    path = tmp_path / "a.jpg"
    write_image(path, image())
    path.write_bytes(path.read_bytes() + b"\0 camera maker's notes")
    assert read_image(path).shape == (37, 53, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_an_image_cut_short_is_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_image(path, image(211, 307))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="cut short") as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_a_thumbnail_does_not_hide_that_a_jpeg_is_cut_short(tmp_path):
    path = tmp_path / "a.jpg"
    write_image(path, image())
    whole = path.read_bytes()
    thumbnail = b"\xff\xe1" + struct.pack(">H", len(whole) + 2) + whole
    path.write_bytes((whole[:2] + thumbnail + whole[2:])[: -len(whole) // 2])
    with pytest.raises(DataError, match="cut short"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "missing"),
        (b"", "zero bytes"),
        (b"<html>not found</html>", "not an image"),
        (b"\xff\xd8", "not an image"),
    ],
    ids=["missing", "empty", "html", "only-a-start"],
)
@pytest.mark.parametrize("read", [read_image, read_image_size])
def test_what_is_no_image_is_named(tmp_path, read, content, message):
    path = tmp_path / "cat.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert "cat.jpg" in str(caught.value)


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(StorageError, match="cannot write") as caught:
        write_image(tmp_path / "folder.png", image())
    assert "folder.png" in str(caught.value)
    with pytest.raises(StorageError, match="encode"):
        write_image(tmp_path / "a.docx", image())
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]


def test_a_folder_is_not_an_image(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("reduce", [2, 4])
def test_a_reduced_jpeg_is_the_shrunk_image_and_stays_upright(tmp_path, orientation, reduce):
    path = tmp_path / "a.jpg"
    write_image(path, image(120, 208))
    with_exif(path, orientation)
    whole, small = read_image(path), read_image(path, reduce)
    height, width = whole.shape[:2]
    expected = cv2.resize(whole, (width // reduce, height // reduce), interpolation=cv2.INTER_AREA)
    assert small.shape == expected.shape
    assert np.abs(small.astype(float) - expected).mean() < 3


def test_reduced_sides_are_rounded_up(tmp_path):
    path = tmp_path / "a.jpg"
    write_image(path, image(37, 53))
    assert read_image(path, 4).shape == (10, 14, 3)


def test_other_formats_are_never_reduced(tmp_path):
    path = tmp_path / "a.png"
    write_image(path, image())
    assert np.array_equal(read_image(path, 4), image())


@pytest.mark.parametrize(("orientation", "size"), [(1, (37, 53)), (6, (53, 37))])
def test_size_of_a_png_with_exif_is_that_of_the_decoded_image(tmp_path, orientation, size):
    path = tmp_path / "a.png"
    write_image(path, image())
    content, tiff = path.read_bytes(), exif(orientation)[10:]
    chunk = b"eXIf" + tiff
    chunk = struct.pack(">I", len(tiff)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(content[:33] + chunk + content[33:])  # behind the header
    assert read_image(path).shape[:2] in (size, (37, 53))  # older OpenCV overlooks it
    assert read_image_size(path) == read_image(path).shape[:2]
