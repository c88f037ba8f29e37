"""Height and width of an image from its first bytes, hundreds of times faster than decoding it."""

from __future__ import annotations

import mmap
from pathlib import Path

from ctnet.data.image import read_image, require_decodable
from ctnet.data.image_header import read_header
from ctnet.errors import DataError
from ctnet.files import require_file


def read_image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) as `read_image` would, EXIF rotation included. Raises DataError as it does.

    JPEG and PNG are read by their headers; where EXIF may turn them in an unusual way, and all else, is decoded.
    """
    try:
        require_file(path)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            header = read_header(content)
    except FileNotFoundError:
        raise DataError("the image is missing", file=path) from None
    except (OSError, ValueError):
        header = None  # read_image below raises the error
    if header is None or header.turned is None or not (header.height and header.width):
        image = read_image(path)
        return image.shape[0], image.shape[1]
    require_decodable(header, path)
    return (header.width, header.height) if header.turned else (header.height, header.width)
