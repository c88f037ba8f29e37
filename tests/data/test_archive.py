"""Zip archives as data sets: read like the folder in them, never written beyond the cache."""

import stat
import zipfile

import pytest

from ctnet import limits
from ctnet.data.dataset import open_dataset
from ctnet.data.layouts import archive as archives
from ctnet.data.layouts.archive import unpacked
from ctnet.errors import DataError
from ctnet.files import cache_folder


@pytest.fixture
def packed(small_set, tmp_path):
    """Return a function that packs the demo set, below a folder, with further members."""

    def pack(*more, top="export/"):
        file = tmp_path / "set.zip"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in small_set.rglob("*"):
                archive.write(path, f"{top}{path.relative_to(small_set)}")
            for name, content in more:
                archive.writestr(name, content)
        return file

    return pack


@pytest.mark.parametrize("top", ["", "export/"])
def test_it_is_the_set_in_it(packed, small_set, top):
    file = packed(("__MACOSX/export/._a.json", "x"), (f"{top}run.exe", "x"), (f"{top}.hidden.json", "x"), top=top)
    for split in ("train", "val"):
        assert open_dataset(file, split).digest() == open_dataset(small_set, split).digest()
    written = [path.name for path in cache_folder().rglob("*") if path.is_file()]
    assert not {"run.exe", "._a.json", ".hidden.json"} & {*written}


def test_it_is_unpacked_once_and_again_when_it_changes(packed, monkeypatch):
    file = packed()
    first = unpacked(file)
    with monkeypatch.context() as patched:
        patched.setattr(archives, "_unpack", None)  # is not called
        assert unpacked(file) == first
    marker = first / "export" / "annotations" / "stale.json"
    marker.write_text("{}")
    packed(("export/notes.txt", "x"))
    assert unpacked(file) == first
    assert not marker.exists()
    assert (first / "export" / "notes.txt").exists()
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def link(name, target):
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member, target


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/abs/evil.txt", "a/../../evil.txt", "a\\..\\..\\evil.txt", "a/b\n.txt"]
)
def test_names_that_lead_out_are_refused(packed, tmp_path, name):
    with pytest.raises(DataError, match="a name in the archive"):
        unpacked(packed((name, "evil")))
    assert not list(tmp_path.rglob("*evil*"))
    assert not [path for path in cache_folder().rglob("*") if path.is_file()]


def test_links_stay_packed(packed, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    place = unpacked(packed(link("export/secret.txt", str(tmp_path / "secret.txt"))))
    assert not (place / "export" / "secret.txt").exists()


def test_two_members_of_one_name_are_refused(packed):
    with pytest.warns(UserWarning, match="Duplicate"):
        file = packed(("a.txt", "1"), ("a.txt", "2"))
    with pytest.raises(DataError, match="one name"):
        unpacked(file)


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_damaged_archives_are_named(packed, cut):
    file = packed()
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * cut)])
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpacked(file)
    assert not [path for path in cache_folder().rglob("*") if path.is_file()]


def test_bombs_are_refused_before_anything_is_written(packed, monkeypatch):
    monkeypatch.setattr(archives, "_MARGIN", 1 << 20)
    file = packed(("bomb.txt", b"\0" * (64 << 20)))
    with pytest.raises(DataError, match="times the size of the archive"):
        unpacked(file)
    monkeypatch.setattr(archives, "ARCHIVE_FILES", limits.Limit(3, "files in an archive"))
    with pytest.raises(DataError, match="more than 3 files"):
        unpacked(packed())
