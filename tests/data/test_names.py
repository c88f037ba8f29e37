"""Names do not decide, files do: sets that travelled between systems and tools are read all the same."""

import json
import os
import unicodedata
from urllib.parse import quote

import numpy as np
import pytest

from ctnet.data.checks.check import check
from ctnet.data.checks.usable import check_usable
from ctnet.data.dataset import open_dataset
from ctnet.data.image import IMAGE_SUFFIXES, read_image, write_image
from ctnet.data.layouts.names import ImageFinder
from ctnet.errors import DataError

CASES = {
    "c08_cvat_Train_Validation": (8, 4), "c29_url_file_names": (8, 4), "v01_kaggle_lowercase": (8,),
    "v04_spaces_in_names": (8, 4), "v06_subfolders": (8, 4), "v09_lists_with_suffix": (8, 4),
    "v12_filename_windows_path_other_suffix": (8, 4), "v20_macos": (8, 4), "v21_only_layout": (8, 4),
    "v26_xml_upper_suffix": (8, 4), "y03_label_bom": (8, 4), "y05_jfif_suffix": (8, 4), "y05b_avif_gif": (8, 4),
    "y06_path_from_cwd": (8, 4), "y06e_windows_backslash": (8, 4), "y08b_cvat_ultralytics": (8, 4),
    "y09_list_windows": (8, 4), "y10_key_valid": (8, 4), "y16_labels_folder_misnamed": (8, 4),
    "y17_Images_Labels_capital": (8, 4), "y35_labels_beside_in_images": (8, 4), "y43_label_upper_TXT": (8, 4),
    "y44_parent_called_images/y44_parent_called_images": (8, 4),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_box_of_a_real_export_is_read(shared, case):
    for split, boxes in zip(("train", "val"), CASES[case], strict=False):
        annotations = open_dataset(shared / "cases" / case, split)
        assert annotations.num_boxes == boxes
        assert check_usable(annotations) == []


def put(path, value=0):
    write_image(path.with_suffix(".png"), np.full((40, 60, 3), value, np.uint8))
    if path.suffix != ".png":
        path.with_suffix(".png").rename(path)
    return path


def yolo(root, image, label, entry="images/train"):
    put(root / image)
    if label:
        (root / label).parent.mkdir(parents=True, exist_ok=True)
        (root / label).write_text("0 0.5 0.5 0.2 0.2\n")
    (root / "data.yaml").write_text(f"train: {entry}\nnames: [dog]\n")
    return open_dataset(root, "train")


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/train/a.png", "labels/train/a.txt"),
        ("Images/train/a.png", "LABELS/Train/A.TXT"),
        ("images/train/a.png", "images/train/a.txt"),
        ("images/train/images/a.png", "images/train/labels/a.txt"),
        ("images/train/images/a.png", "labels/train/images/a.txt"),
        ("images/train/a.b.png", "labels/train/a.b.txt"),
        ("images/train/a b (1).png", "labels/train/a b (1).txt"),
        (f"images/train/{unicodedata.normalize('NFD', 'Grün')}.png", "labels/train/Grün.txt"),
    ],
)
def test_labels_are_found_where_they_are(tmp_path, image, label):
    assert yolo(tmp_path, image, label).num_boxes == 1


def test_labels_beside_win_over_a_parent_called_images(tmp_path):
    root = tmp_path / "images" / "set"
    assert yolo(root, "pics/a.png", "pics/a.txt", "pics").num_boxes == 1


def test_without_labels_the_warning_names_the_folder_that_was_sought(tmp_path):
    with pytest.raises(DataError) as caught:
        check_usable(yolo(tmp_path, "images/train/a.png", None))
    assert str(tmp_path / "labels" / "train") in str(caught.value)


def test_hidden_files_are_no_images_or_labels(tmp_path):
    put(tmp_path / "images" / "train" / "._a.png")
    assert [image.path.name for image in yolo(tmp_path, "images/train/a.png", None).images] == ["a.png"]


@pytest.mark.parametrize(
    "name",
    [
        "sub\\Grün 1.png", "SUB/grün 1.PNG", unicodedata.normalize("NFD", "sub/Grün 1.png"), quote("sub/Grün 1.png"),
        f"https://example.org/files/{quote('Grün 1.png')}?token=1#x", "C:\\data\\sub\\Grün 1.png", "a/b/sub/Grün 1.png",
    ],
)  # fmt: skip
def test_an_image_is_found_under_the_names_that_tools_write(tmp_path, name):
    path = put(tmp_path / "sub" / "Grün 1.png")
    assert ImageFinder((tmp_path / "nothing", tmp_path, tmp_path / "sub"))(name) == path


def test_the_exact_name_wins_and_an_ambiguous_one_finds_nothing(tmp_path):
    for name in ("a.png", "A.png"):
        put(tmp_path / name)
    if len(os.listdir(tmp_path)) < 2:  # noqa: PTH208
        pytest.skip("the file system does not tell case apart")
    finder = ImageFinder((tmp_path,))
    assert finder("A.png") == tmp_path / "A.png"
    assert not finder("a.PNG").exists()
    assert finder("missing.png") == tmp_path / "missing.png"


def test_entries_that_fall_on_one_file_are_an_error(tmp_path):
    put(tmp_path / "images" / "frame.png")
    images = [{"id": i, "file_name": f"task{i}/frame.png", "width": 60, "height": 40} for i in (1, 2)]
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 9, 9]} for i in (1, 2)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "dog"}]}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="listed more than once"):
        check_usable(open_dataset(tmp_path, "train"))
    assert "image-file-repeated" in {finding.code for finding in check(tmp_path).findings}


def test_a_split_that_is_not_where_the_yaml_says_names_the_paths_sought(tmp_path):
    (tmp_path / "data.yaml").write_text("path: pets\ntrain: images/train\nnames: [dog]\n")
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path, "train")
    assert str(tmp_path / "pets" / "images" / "train") in str(caught.value)
    assert str(tmp_path / "images" / "train") in str(caught.value)


@pytest.mark.parametrize("suffix", [s for s in IMAGE_SUFFIXES if s not in (".jfif", ".jp2", ".heic", ".heif", ".hif")])
def test_every_suffix_of_the_list_is_of_a_format_that_is_decoded(tmp_path, suffix):
    shape = (16, 16) if suffix in (".pgm", ".pbm") else (16, 16, 3)
    write_image(tmp_path / f"a{suffix}", np.full(shape, 255, np.uint8))
    image = read_image(tmp_path / f"a{suffix}")
    assert image.shape == (16, 16, 3)
    assert image.min() > 250


@pytest.mark.parametrize("name", ["17_suffix.jfif", "17c_suffix.JPE", "22c.jp2", "22b.ppm", "09_avif.avif"])
def test_real_files_with_rare_suffixes_are_decoded(shared, name):
    path = shared / "cases" / "p_pictures" / name
    assert path.suffix.lower() in IMAGE_SUFFIXES
    assert read_image(path).ndim == 3
