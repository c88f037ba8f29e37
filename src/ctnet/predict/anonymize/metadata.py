"""Images written with or without the metadata of their sources."""

from __future__ import annotations

from pathlib import Path

from ctnet.data.image import Image, write_image
from ctnet.errors import MissingExtra
from ctnet.files import replacing

_ORIENTATION, _EXIF, _MAKER_NOTE = 0x0112, 0x8769, 0x927C
_QUALITY = 95


def require_pillow() -> None:
    """Raise MissingExtra where metadata cannot be kept."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise MissingExtra("--keep-metadata needs the package pillow", hint="pip install pillow") from None


def write_with_metadata(path: Path, image_bgr: Image, source: Path) -> None:
    """Write the image with EXIF (also time and place) and the colour profile of `source`.

    The image is upright, and so is the orientation in its EXIF. Thumbnails, and the notes of camera makers, which may
    hold some, show what is hidden and are left out. Raises StorageError.
    """
    from PIL import Image as Pillow

    try:
        with Pillow.open(source) as original:
            exif, profile = original.getexif(), original.info.get("icc_profile")
            exif.get_ifd(_EXIF).pop(_MAKER_NOTE, None)
            if _ORIENTATION in exif:
                exif[_ORIENTATION] = 1
            content = exif.tobytes()
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, Pillow.DecompressionBombError):
        write_image(path, image_bgr)  # what Pillow does not read has no metadata to keep
        return
    kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
    with replacing(path) as temporary:
        Pillow.fromarray(image_bgr[:, :, ::-1]).save(
            temporary, kind, exif=content, icc_profile=profile, quality=_QUALITY
        )
