"""Read and write images: BGR uint8 (H,W,3) arrays, files in any format that OpenCV knows, and HEIC."""

from __future__ import annotations

import mmap
import re
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ctnet.data.cut_short import decode_without_end, lacks_end
from ctnet.data.image_frames import count_frames
from ctnet.data.image_header import Header, read_header
from ctnet.data.value_range import ValueRange, to_eight_bits
from ctnet.errors import DataError, StorageError
from ctnet.files import POINTER, read_file, write_file
from ctnet.limits import IMAGE_SIDE, JPEG_WORK, PIXELS_VARIABLE, Limit, TooMuch, image_pixels

Image = NDArray[np.uint8]

_FORMATS = (
    (rb"\xff\xd8\xff", (".jpg", ".jpeg", ".jpe", ".jfif")),
    (rb"\x89PNG", (".png", ".apng")),
    (rb"BM", (".bmp", ".dib")),
    (rb"RIFF....WEBP", (".webp",)),
    (rb"II[*+]\0|MM\0[*+]", (".tif", ".tiff")),
    (rb"GIF8", (".gif",)),
    (rb"....ftypavi[fs]", (".avif",)),
    (rb"....ftyp(?:hei[cxms]|hev[cx]|mif1|msf1)", (".heic", ".heif", ".hif")),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", (".jp2",)),
    (rb"P[1-7]\s", (".ppm", ".pgm", ".pbm", ".pnm", ".pam")),
    (rb"P[Ff]\s", (".pfm",)),
    (rb"\x59\xa6\x6a\x95", (".ras", ".sr")),
    (rb"#\?R(?:ADIANCE|GBE)", (".hdr", ".pic")),
)
"""the first bytes of every format that OpenCV's wheels (and, for HEIC, pillow-heif) decode, and its suffixes"""

IMAGE_SUFFIXES = tuple(suffix for _, suffixes in _FORMATS for suffix in suffixes)
"""of all files that are taken for images, in lower case; the likeliest first"""


class Decoded(NamedTuple):
    """An image (H,W,3) BGR uint8, and what there is to say about its file."""

    image: Image
    frames: int = 1
    """frames or pages in the file, of which the image is the first"""
    scaled: ValueRange | None = None
    """the values that became 0 and 255, in a file of more than eight bits"""


def suffixes_of(content: bytes | mmap.mmap) -> tuple[str, ...]:
    """Return the suffixes of the format that the first bytes are of, none for an unknown one."""
    return next((suffixes for start, suffixes in _FORMATS if re.match(start, content, re.DOTALL)), ())


_JPEG, _SCAN = b"\xff\xd8", b"\xff\xda"
_BYTES_PER_PIXEL, _BYTES_BESIDE = 8, 64 << 20  # four channels of 16 bits, and what cameras put beside them

_REDUCED = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}


def read_image(path: Path | str, reduce: int = 1, value_range: ValueRange | None = None) -> Image:
    """Return the image as BGR uint8 (H,W,3), turned upright by its EXIF tag; grey and alpha become BGR.

    Of images with more than eight bits, the values of `value_range` are scaled to 0..255, by default those of the range
    that they seem to come from (`value_range_of`). Of several frames or pages the first is returned. `reduce` 2 or 4
    decodes a JPEG to that fraction of its sides, rounded up, which is faster; other formats come whole.
    Where a turned image's sides are no multiple of it, the small one is off by up to `reduce - 1` of its pixels.
    An image whose file ends within its last rows comes with what is there.
    Raises DataError when the file is missing, empty, cut further or not an image, or has more than CTNET_MAX_PIXELS
    pixels (100 million).
    """
    return decode_file(Path(path), reduce, value_range).image


def decode_file(path: Path, reduce: int = 1, value_range: ValueRange | None = None) -> Decoded:
    """Return what `read_image` does with what there is to say about the file."""
    try:
        content = read_image_file(path)
    except FileNotFoundError:
        raise DataError("the image is missing", file=path) from None
    except (OSError, ValueError) as error:  # a ValueError for a name that no file can have
        got = error.strerror if isinstance(error, OSError) else error
        raise DataError("the image cannot be read", file=path, got=got) from None
    return decode(content, path, reduce, value_range)


def read_image_file(path: Path) -> bytes:
    """Return the bytes of an image file. Raises OSError, also for more than an image of the largest size has."""
    return read_file(path, Limit(_BYTES_PER_PIXEL * image_pixels().most + _BYTES_BESIDE, "bytes in an image"))


def require_decodable(header: Header, path: Path | str, *, scans: int = 1) -> None:
    """Raise DataError when decoding an image of this size would take too much memory or time."""
    pixels = header.height * header.width
    try:
        IMAGE_SIDE.check(max(header[:2]))
        image_pixels().check(pixels)
        JPEG_WORK.check(pixels * scans)
    except TooMuch as error:
        raise DataError(
            f"the image is too large to be decoded: {header.width} x {header.height}, {error}",
            file=path,
            hint=f"make it smaller; {PIXELS_VARIABLE}=N in the environment allows N pixels, of 3 to 12 bytes of memory",
        ) from None


def require_image(content: bytes | mmap.mmap, path: Path) -> Header:
    """Return what an image file says of its size. Raises DataError for what holds no image, reading its begin alone."""
    if not content:
        raise DataError("the image has zero bytes", file=path)
    if content[: len(POINTER)] == POINTER:
        raise DataError("the image is a git-lfs pointer, not the file itself", file=path, hint="run `git lfs pull`")
    header = read_header(content)
    if header is None:
        raise DataError("the file is not an image that can be decoded", file=path, got=f"{len(content)} bytes")
    require_decodable(header, path)
    return header


def decode_image(content: bytes, path: Path) -> Image:
    """Return the image in `content` as `read_image` does; `path` names it in errors."""
    return decode(content, path).image


def decode(content: bytes, path: Path, reduce: int = 1, value_range: ValueRange | None = None) -> Decoded:
    """Return the image in `content` as `decode_file` does; `path` names it in errors."""
    header = require_image(content, path)
    is_jpeg = content.startswith(_JPEG)
    require_decodable(header, path, scans=content.count(_SCAN) if is_jpeg else 1)
    mode = _REDUCED[reduce] if is_jpeg else cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    image: NDArray[Any] | None
    if lacks_end(content):
        image, rows = decode_without_end(content, mode)
        if image is None:
            got = f"{len(content)} bytes without an end marker, {rows} whole rows"
            raise DataError("the image is cut short", file=path, got=got)
    else:
        try:
            image = cv2.imdecode(np.frombuffer(content, np.uint8), mode)
        except cv2.error:
            image = None
        if image is None and ".heic" in suffixes_of(content):
            image = _decode_heic(content, path)
    if image is None:
        raise DataError("the file is not an image that can be decoded", file=path, got=f"{len(content)} bytes")
    frames = 1 if is_jpeg else count_frames(content)
    if image.dtype == np.uint8:
        return Decoded(np.asarray(image, np.uint8), frames)
    scaled, values = to_eight_bits(image, value_range)
    return Decoded(scaled, frames, values)


def _decode_heic(content: bytes, path: Path) -> Image | None:
    """Return the image, turned as its boxes say. Raises DataError without pillow-heif."""
    try:
        import pillow_heif
    except ImportError:
        raise DataError(
            "HEIC images are decoded by the package pillow-heif, which is not installed", file=path,
            hint='pip install "ctnet-toolkit[heic]"',
        ) from None  # fmt: skip
    try:
        file = pillow_heif.open_heif(content, bgr_mode=True)
        require_decodable(Header(file.size[1], file.size[0]), path)
        pixels = np.asarray(file)
    except (OSError, ValueError, EOFError, RuntimeError, SyntaxError):
        return None
    return np.ascontiguousarray(np.repeat(pixels[:, :, None], 3, 2) if pixels.ndim == 2 else pixels[:, :, :3])


def write_image(path: Path, image_bgr: Image) -> None:
    """Write the image in the format of the file's suffix, whole or not at all.

    Raises StorageError for a suffix without an encoder and when the disk refuses.
    """
    try:
        encoded, buffer = cv2.imencode(path.suffix, image_bgr)
    except cv2.error:
        encoded = False
    if not encoded:
        raise StorageError(
            "cannot encode the image", file=path, got=path.suffix or "no suffix", expected=".jpg or .png"
        )
    write_file(path, buffer.tobytes())
