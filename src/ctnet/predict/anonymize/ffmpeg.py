"""The ffmpeg command: where it is, what it can write, and what it finds in a video."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

QUIET = ("-hide_banner", "-loglevel", "error", "-nostdin")
_LONGEST_S = 60


@cache
def find_ffmpeg() -> str | None:
    """Return the command: the one that is installed, else that of the package imageio-ffmpeg, else None."""
    if (installed := shutil.which("ffmpeg")) is not None:
        return installed
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return str(get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


@dataclass(frozen=True)
class Contents:
    """What a video file holds: names of codecs, the shape of a pixel, and by how many seconds the sound comes first."""

    codec: str | None = None
    sound: str | None = None
    pixel_shape: Fraction = Fraction(1)
    delay_s: float = 0.0


def look_into(command: str, video: Path) -> Contents:
    """Return what ffmpeg finds in a video; nothing where it finds nothing."""
    arguments = ["-copyts", *local_file(video), "-map", "0:v:0", "-map", "0:a:0?", "-c", "copy"]
    text = _output(command, [*arguments, "-frames:v", "1", "-frames:a", "1", "-f", "framecrc", "-"])
    facts = {(name, int(stream)): value for name, stream, value in re.findall(r"^#(\w+) (\d+): (\S+)", text, re.M)}
    starts: dict[int, Fraction] = {}
    for stream, time in re.findall(r"^(\d+),\s*-?\d+,\s*(-?\d+),", text, re.M):
        starts.setdefault(int(stream), int(time) * _fraction(facts.get(("tb", int(stream)))))
    first = min(starts.values(), default=Fraction(0))
    return Contents(
        facts.get(("codec_id", 0)), facts.get(("codec_id", 1)), _fraction(facts.get(("sar", 0))) or Fraction(1),
        float(starts.get(0, first) - first),
    )  # fmt: skip


@cache
def encoders(command: str) -> frozenset[str]:
    """Return the names of the encoders that the command has."""
    return frozenset(re.findall(r"^ [VAS][A-Z.]{5} (\S+)", _output(command, ["-encoders"]), re.M))


@cache
def passes_frames(command: str) -> list[str]:
    """Return the option that keeps the time of every frame; it had another name before version 5.1."""
    found = re.match(r"ffmpeg version n?(\d+)\.(\d+)", _output(command, ["-version"]))
    return ["-vsync" if found and (int(found[1]), int(found[2])) < (5, 1) else "-fps_mode"]


def local_file(path: Path) -> list[str]:
    """Return the options that read a file; a playlist that poses as a video reaches no address through it."""
    return ["-protocol_whitelist", "file,pipe", "-i", f"file:{path}"]


def _fraction(text: str | None) -> Fraction:
    top, _, bottom = (text or "0/1").partition("/")
    return Fraction(int(top), int(bottom or 1) or 1)


def _output(command: str, arguments: list[str]) -> str:
    try:
        done = subprocess.run(
            [command, *QUIET, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LONGEST_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")
