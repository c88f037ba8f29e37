import json
import multiprocessing
import os
import stat

import numpy as np
import pytest

from ctnet.data.checks.check import check
from ctnet.data.checks.usable import check_usable
from ctnet.data.dataset import open_dataset
from ctnet.data.demo import CATEGORIES, demo_folder, write_demo
from ctnet.data.image import read_image
from ctnet.errors import StorageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_demo(tmp_path_factory.mktemp("demo"), 60, 20)


def test_the_check_finds_no_error_in_it(folder):
    report = check(folder)
    assert [f.code for f in report.findings if f.severity == "error"] == []
    assert report.count("warning") == 0


def test_counts_classes_and_sizes_are_as_promised(folder):
    train, val = open_dataset(folder, "train"), open_dataset(folder, "val")
    assert (len(train.images), len(val.images)) == (60, 20)
    assert {c.id: c.name for c in train.categories} == CATEGORIES
    assert {int(label) for image in train.images for label in image.labels} == set(range(len(CATEGORIES)))
    assert len({(image.height, image.width) for image in train.images}) > 30
    assert max(len(image.labels) for image in train.images) <= 6
    assert any(not len(image.labels) for image in train.images)
    sides = np.concatenate([image.boxes_xyxy[:, 2:] - image.boxes_xyxy[:, :2] for image in train.images])
    assert sides.min() >= 40
    areas = np.concatenate([image.areas for image in train.images])
    assert (areas < 80**2).mean() > 0.2
    assert (areas > 80**2).mean() > 0.2
    ids = [i for split in (train, val) for image in split.images for i in image.annotation_ids]
    assert len(set(ids)) == len(ids)


def test_training_can_use_it(folder):
    (warning,) = check_usable(open_dataset(folder, "train"))
    assert "without annotations" in warning.message


def test_boxes_fit_the_drawn_shapes(folder):
    """A lone shape differs from what surrounds its box."""
    tested = 0
    for image in open_dataset(folder, "train").images:
        if len(image.labels) != 1 or image.areas[0] < 40**2:
            continue
        x1, y1, x2, y2 = image.boxes_xyxy[0].astype(int)
        pixels = read_image(image.path).astype(float)
        height, width = pixels.shape[:2]
        outer = pixels[max(0, y1 - 3) : y1, x1:x2], pixels[y2 : y2 + 3, x1:x2]
        middle = pixels[y1:y2, x1:x2].reshape(-1, 3)
        surroundings = np.concatenate([part.reshape(-1, 3) for part in outer]).mean(axis=0)
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        assert (np.abs(middle - surroundings).max(axis=1) > 45).mean() > 0.2
        tested += 1
    assert tested >= 3


def test_a_seed_gives_the_same_bytes_and_another_one_others(tmp_path, folder):
    def contents(root):
        return {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob("*.*")) if p.is_file()}

    again, other = write_demo(tmp_path / "again", 60, 20), write_demo(tmp_path / "other", 60, 20, seed=1)
    assert contents(again) == contents(folder)
    assert contents(other) != contents(folder)


def test_more_images_begin_with_the_same_ones(tmp_path, folder):
    small = write_demo(tmp_path, 3, 1)
    name = "images/train/train_00002.jpg"
    assert (small / name).read_bytes() == (folder / name).read_bytes()


def test_size_is_height_and_width(tmp_path):
    image = open_dataset(write_demo(tmp_path, 1, 1, size=(100, 300)), "train").images[0]
    assert 90 <= image.height <= 110
    assert 270 <= image.width <= 330


@pytest.fixture
def small_default(monkeypatch, tmp_path):
    monkeypatch.setenv("CTNET_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("ctnet.data.demo.write_demo", lambda folder, demo: write_demo(folder, 2, 1, demo=demo))
    return tmp_path / "home"


def test_the_cached_set_is_rendered_once_and_nothing_else_is_left(small_default):
    folder = demo_folder()
    assert folder == small_default / "demo-v2"
    written = (folder / "annotations" / "instances_val.json").stat().st_mtime_ns
    assert demo_folder() == folder
    assert (folder / "annotations" / "instances_val.json").stat().st_mtime_ns == written
    assert [p.name for p in small_default.iterdir()] == ["demo-v2"]


def test_processes_may_race_for_it(small_default):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=demo_folder) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [p.name for p in small_default.iterdir()] == ["demo-v2"]
    assert len(json.loads((small_default / "demo-v2/annotations/instances_train.json").read_text())["images"]) == 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_home_is_said(small_default):
    small_default.mkdir()
    small_default.chmod(stat.S_IREAD | stat.S_IEXEC)
    with pytest.raises(StorageError, match="demo set"):
        demo_folder()


def test_a_home_that_is_a_file_is_said(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CTNET_HOME", str(tmp_path / "file"))
    with pytest.raises(StorageError) as caught:
        demo_folder()
    assert "CTNET_HOME" in str(caught.value)
