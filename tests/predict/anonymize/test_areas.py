"""The files of --regions and --times."""

import math

import pytest

from ctnet.errors import ConfigError
from ctnet.predict.anonymize.areas import Area, read_areas


def read(tmp_path, regions=None, times=None):
    files = []
    for name, text in (("r.txt", regions), ("t.txt", times)):
        files.append(None if text is None else tmp_path / name)
        if text is not None:
            (tmp_path / name).write_text(text)
    return read_areas(*files)


def test_lines_become_areas(tmp_path):
    areas = read(
        tmp_path,
        "# the street\nalways 0 0 20% 10%\n\nnever 1.5, 2, 30, 40 1:05 end  # a poster\n",
        "only 0:30 1:02:03.5\nNEVER 90 end\n",
    )
    assert areas.regions[0].box((200, 400)) == (0, 0, 80, 20)
    assert areas.regions[1] == Area("never", ((1.5, False), (2, False), (30, False), (40, False)), 65, math.inf)
    assert [(area.kind, area.start, area.end) for area in areas.times] == [
        ("only", 30, 3723.5),
        ("never", 90, math.inf),
    ]


@pytest.mark.parametrize(
    "line", ["hide 0 0 1 1", "always 0 0 1", "always 5 0 5 9", "always 0 0 9 9 5", "only 0 0 9 9 9 3", "always a b c d"]
)
def test_a_line_that_is_no_region_is_named(tmp_path, line):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, f"always 0 0 5 5\n{line}\n")
    assert caught.value.facts["line"] == "2"
    assert caught.value.facts["got"] == line


@pytest.mark.parametrize("text", ["", "# nothing\n", "only 5", "only 5 4", "only 1:2:3:4 end", "always"])
def test_a_file_without_times_is_refused(tmp_path, text):
    with pytest.raises(ConfigError):
        read(tmp_path, times=text)
    with pytest.raises(ConfigError):
        read_areas(tmp_path / "missing.txt", None)
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError):
        read_areas(tmp_path / "b.txt", None)


def test_only_and_never_go_by_the_centre_and_regions_and_times_must_both_allow(tmp_path):
    areas = read(tmp_path, "only 0 0 50% 100%\nnever 0 0 10 10 0 5\n", "only 2 10\n")
    size = (100, 100)
    assert areas.allow((20, 20, 40, 40), 3, size)
    assert not areas.allow((60, 20, 80, 40), 3, size)
    assert not areas.allow((20, 20, 40, 40), 1, size)
    assert not areas.allow((2, 2, 8, 8), 3, size)
    assert areas.allow((2, 2, 8, 8), 6, size)
    assert areas.allow((20, 20, 40, 40), None, size)
