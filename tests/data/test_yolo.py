import numpy as np
import pytest

from ctnet.data.checks.usable import check_usable
from ctnet.data.dataset import open_dataset
from ctnet.data.image import write_image
from ctnet.data.layouts.yolo import read_yolo
from ctnet.errors import DataError
from ctnet.types import Category


def yolo_folder(root, labels, names="[dog, cat]", images="images/train", more=""):
    for name, text in labels.items():
        write_image(root / images / f"{name}.png", np.zeros((40, 80, 3), np.uint8))
        if text is not None:
            path = root / images.replace("images", "labels") / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (root / "data.yaml").write_text(f"train: {images}\nval: {images}\nnames: {names}\n{more}")
    return root / "data.yaml"


def test_normalised_centres_become_corners_in_pixels(tmp_path):
    labels = {"a": "1 0.5 0.5 0.25 0.5\n0 0.0 1.0 0 0\n\n", "b": "", "c": None}
    split = read_yolo(yolo_folder(tmp_path, labels), "train")
    assert split.categories == (Category(0, "dog"), Category(1, "cat"))
    assert split.images[0].boxes_xyxy.tolist() == [[30, 10, 50, 30], [0, 40, 0, 40]]
    assert split.images[0].areas.tolist() == [400, 0]
    assert split.images[0].labels.tolist() == [1, 0]
    assert [len(image.labels) for image in split.images] == [2, 0, 0]
    assert (split.images[0].height, split.images[0].width) == (40, 80)


def test_names_may_be_a_dict_with_holes(tmp_path):
    split = read_yolo(yolo_folder(tmp_path, {"a": "7 0.5 0.5 0.1 0.1"}, names="{7: cat, 3: dog}"), "val")
    assert split.categories == (Category(3, "dog"), Category(7, "cat"))
    assert split.images[0].labels.tolist() == [1]


def test_path_lists_and_text_files_are_followed(tmp_path):
    yolo_folder(tmp_path / "set", {"a": "0 0.5 0.5 0.1 0.1"}, images="images/one")
    yolo_folder(tmp_path / "set", {"b": "1 0.5 0.5 0.1 0.1"}, images="images/two")
    (tmp_path / "set" / "list.txt").write_text("images/two/b.png\n")
    (tmp_path / "my.yaml").write_text("path: set\ntrain: [images/one, list.txt]\nnames: [dog, cat]\n")
    split = open_dataset(tmp_path / "my.yaml", "train")
    assert [image.path.name for image in split.images] == ["a.png", "b.png"]
    assert [image.labels.tolist() for image in split.images] == [[0], [1]]


def test_folders_one_level_too_high_are_found(tmp_path):
    yolo_folder(tmp_path, {"a": "0 0.5 0.5 0.1 0.1"}, images="train/images")
    (tmp_path / "data.yaml").write_text("train: ../train/images\nnames: [dog]\n")
    assert open_dataset(tmp_path, "train").num_boxes == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 0.5 0.5 0.1 0.1\n2 0.5 0.5 0.1 0.1", "a.txt:2"),
        ("0.5 0.5 0.5 0.1 0.1", "a label that names has: 0, 1"),
        ("0 0.5 0.5 0.1", "a label, then centre x"),
        ("dog 0.5 0.5 0.1 0.1", "dog 0.5"),
        ("0 30 10 20 20", "between 0 and 1"),
        ("0 0.5 0.5 -0.1 0.1", "between 0 and 1"),
        ("0 nan 0.5 0.1 0.1", "between 0 and 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, words):
    with pytest.raises(DataError) as caught:
        read_yolo(yolo_folder(tmp_path, {"a": text}), "train")
    assert "a.txt:" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: nowhere\nnames: [a]\n", "nowhere"),
        ("train: 7\nnames: [a]\n", "no split"),
        ("val: images\nnames: [a]\n", "no split"),
        ("train: images\nnames: 3\n", "names"),
        ("train: images\nnames: {a: b}\n", "names"),
        ("train: [images\n", "YAML"),
    ],
)
def test_a_bad_yaml_is_named(tmp_path, text, words):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        read_yolo(tmp_path / "data.yaml", "train")
    assert "data.yaml" in str(caught.value)


def test_a_list_of_images_in_another_encoding_is_named(tmp_path):
    yolo_folder(tmp_path, {})
    (tmp_path / "list.txt").write_bytes("images/train/Grün.png".encode("latin-1"))
    (tmp_path / "data.yaml").write_text("train: list.txt\nnames: [dog]\n")
    with pytest.raises(DataError, match="list of images") as caught:
        open_dataset(tmp_path, "train")
    assert "list.txt" in str(caught.value)


def test_a_yaml_without_splits_is_refused(tmp_path):
    (tmp_path / "data.yaml").write_text("names: [dog]\n")
    with pytest.raises(DataError, match="no split"):
        open_dataset(tmp_path, "train")


def test_names_that_look_like_times_and_dates_stay_as_they_are_written(tmp_path):
    data = yolo_folder(tmp_path, {"a": ""}, names="[12:30, 2001-01-01, off, 3]")
    names = [category.name for category in read_yolo(data, "train").categories]
    assert names == ["12:30", "2001-01-01", "off", "3"]


@pytest.mark.parametrize("name", ["[a]", "{a: b}"])
def test_a_name_that_is_no_text_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="name"):
        read_yolo(yolo_folder(tmp_path, {"a": ""}, names=f"[dog, {name}]"), "train")


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 5000 + ".png", "\x1b/../b.png"])
def test_a_listed_image_of_an_impossible_name_is_missing(tmp_path, name):
    data = yolo_folder(tmp_path, {"a": ""})
    (tmp_path / "list.txt").write_text(f"{name}\n")
    data.write_text("train: list.txt\nnames: [dog]\n")
    with pytest.raises(DataError):
        check_usable(open_dataset(data, "train"))
    data.write_text(f'train: "{name}"\nnames: [dog]\n'.replace("\0", "\\0").replace("\x1b", "\\e"))
    with pytest.raises(DataError):
        open_dataset(data, "train")
