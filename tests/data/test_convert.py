import json

import numpy as np
import pytest

from ctnet.data.convert import convert
from ctnet.data.dataset import open_dataset
from ctnet.data.demo import write_demo
from ctnet.data.image import read_image, write_image
from ctnet.errors import ConfigError, DataError


@pytest.fixture
def demo(tmp_path):
    return write_demo(tmp_path / "demo", 5, 2)


def as_yolo(demo, root):
    names = {}
    for split in ("train", "val"):
        annotations = open_dataset(demo, split)
        names = {label: category.name for label, category in enumerate(annotations.categories)}
        for image in annotations.images:
            target = root / split / "images" / image.path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(image.path.read_bytes())
            label_file = root / split / "labels" / f"{image.path.stem}.txt"
            label_file.parent.mkdir(parents=True, exist_ok=True)
            centres = (image.boxes_xyxy[:, :2] + image.boxes_xyxy[:, 2:]) / 2 / (image.width, image.height)
            sides = (image.boxes_xyxy[:, 2:] - image.boxes_xyxy[:, :2]) / (image.width, image.height)
            rows = np.column_stack([centres, sides])
            lines = [
                f"{label} {' '.join(f'{v:.9f}' for v in row)}" for label, row in zip(image.labels, rows, strict=True)
            ]
            label_file.write_text("\n".join(lines))
    (root / "data.yaml").write_text(
        json.dumps({"train": "train/images", "val": "val/images", "names": list(names.values())})
    )
    return root


def as_voc(demo, root):
    for split in ("train", "val"):
        annotations = open_dataset(demo, split)
        for image in annotations.images:
            write_image(root / "JPEGImages" / f"{image.path.stem}.png", read_image(image.path))
            objects = "".join(
                f"<object><name>{annotations.categories[label].name}</name><bndbox><xmin>{x1}</xmin>"
                f"<ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
                for label, (x1, y1, x2, y2) in zip(image.labels, image.boxes_xyxy, strict=True)
            )
            size = f"<size><width>{image.width}</width><height>{image.height}</height></size>"
            path = root / "Annotations" / f"{image.path.stem}.xml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"<annotation>{size}{objects}</annotation>")
        listing = root / "ImageSets" / "Main" / f"{split}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("\n".join(image.path.stem for image in annotations.images))
    return root


@pytest.mark.parametrize(("make", "source"), [(as_yolo, "auto"), (as_yolo, "yolo"), (as_voc, "auto"), (as_voc, "voc")])
@pytest.mark.parametrize("split", ["train", "val"])
def test_counts_boxes_and_names_survive(tmp_path, demo, make, source, split):
    convert(make(demo, tmp_path / "other"), tmp_path / "coco", source)
    old, new = open_dataset(demo, split), open_dataset(tmp_path / "coco", split)
    assert (len(new.images), new.num_boxes) == (len(old.images), old.num_boxes)
    for before, after in zip(old.images, new.images, strict=True):
        assert after.path.stem == before.path.stem
        assert (after.width, after.height) == (before.width, before.height)
        assert read_image(after.path).shape == (before.height, before.width, 3)
        assert np.allclose(after.boxes_xyxy, before.boxes_xyxy, atol=1e-3)
        assert [new.categories[i].name for i in after.labels] == [old.categories[i].name for i in before.labels]


def test_coco_keeps_its_ids(tmp_path, demo):
    convert(demo, tmp_path / "again")
    old, new = open_dataset(demo, "val"), open_dataset(tmp_path / "again", "val")
    assert new.categories == old.categories
    for before, after in zip(old.images, new.images, strict=True):
        assert after.id == before.id
        assert np.array_equal(after.annotation_ids, before.annotation_ids)
        assert np.array_equal(after.boxes_xyxy, before.boxes_xyxy)


def test_corners_become_boxes(tmp_path, demo):
    source = demo / "annotations" / "instances_train.json"
    meant = json.loads(source.read_text())
    stored = json.loads(source.read_text())
    for annotation in stored["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation["bbox"] = [x, y, x + w, y + h]
    source.write_text(json.dumps(stored))
    convert(source, tmp_path / "out", "xyxy")
    written = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    assert [a["bbox"] for a in written["annotations"]] == [a["bbox"] for a in meant["annotations"]]
    assert [a["area"] for a in written["annotations"]] == [a["area"] for a in meant["annotations"]]


def test_links_share_the_bytes(tmp_path, demo):
    convert(demo, tmp_path / "linked", link=True)
    for image in open_dataset(tmp_path / "linked", "train").images:
        assert image.path.samefile(demo / "images" / "train" / image.path.name)


def test_images_of_one_name_stay_apart(tmp_path):
    for folder, value in (("one", 10), ("two", 200)):
        write_image(tmp_path / "images" / folder / "a.png", np.full((20, 30, 3), value, np.uint8))
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat]\n")
    convert(tmp_path, tmp_path / "out")
    values = [int(read_image(i.path)[0, 0, 0]) for i in open_dataset(tmp_path / "out", "train").images]
    assert values == [10, 200]


def test_progress_counts_every_image(tmp_path, demo):
    calls = []
    convert(demo, tmp_path / "out", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(k, 7) for k in range(1, 8)]


def test_nothing_is_overwritten(tmp_path, demo):
    with pytest.raises(ConfigError, match="not empty"):
        convert(demo, demo)


@pytest.mark.parametrize(("source", "title"), [("voc", "Pascal VOC"), ("yolo", "YOLO")])
def test_data_in_another_layout_is_refused(tmp_path, demo, source, title):
    with pytest.raises(DataError, match=f"not {title}"):
        convert(demo, tmp_path / "out", source)


def test_a_missing_image_is_named(tmp_path, demo):
    (demo / "images" / "val" / "val_00001.jpg").unlink()
    with pytest.raises(DataError, match=r"val_00001\.jpg"):
        convert(demo, tmp_path / "out")


def test_no_new_name_is_the_name_of_another_image(tmp_path, demo):
    """The first gets an id in front that the second bears already; case alone tells none apart."""
    content = json.loads((demo / "annotations" / "instances_train.json").read_text())
    names = ["2_a.png", "a.png", "y/a.png", "y/A.PNG"]
    content["images"] = [
        {"id": i, "file_name": n, "width": 30, "height": 20} for i, n in zip((3, 1, 2, 4), names, strict=True)
    ]
    content["annotations"] = []
    for value, name in enumerate(names):
        write_image(demo / "images" / "train" / name, np.full((20, 30, 3), 50 * value, np.uint8))
    (demo / "annotations" / "instances_train.json").write_text(json.dumps(content))
    made = convert(demo, tmp_path / "out")["train"].images
    assert len({image.path.name.casefold() for image in made}) == 4
    assert [int(read_image(image.path)[0, 0, 0]) for image in made] == [0, 50, 100, 150]


def test_nothing_is_written_when_an_image_is_missing(tmp_path, demo):
    (demo / "images" / "val" / "val_00001.jpg").unlink()
    with pytest.raises(DataError):
        convert(demo, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["voc", "yolo", "coco"])
def test_every_layout_is_written_and_read_again(tmp_path, demo, to):
    written = convert(demo, tmp_path / "out", to=to)
    for split in ("train", "val"):
        old, new = open_dataset(demo, split), open_dataset(tmp_path / "out", split)
        assert written[split].source.is_file()
        assert [image.path.name for image in new.images] == [image.path.name for image in old.images]
        for before, after in zip(old.images, new.images, strict=True):
            assert read_image(after.path).tolist() == read_image(before.path).tolist()
            np.testing.assert_allclose(after.boxes_xyxy, before.boxes_xyxy, atol=1e-3)
            names = [[s.categories[label].name for label in i.labels] for s, i in ((old, before), (new, after))]
            assert names[0] == names[1]


@pytest.mark.parametrize("to", ["voc", "yolo"])
def test_crowd_regions_are_left_out_with_a_warning_where_a_layout_has_none(tmp_path, demo, to):
    file = demo / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["iscrowd"] = 1
    file.write_text(json.dumps(content))
    warnings = []
    convert(demo, tmp_path / "out", to=to, warn=warnings.append)
    assert warnings == ["train: 1 crowd regions left out, which only COCO can describe"]
    assert open_dataset(tmp_path / "out", "train").num_boxes == len(content["annotations"]) - 1


def test_unknown_layouts_are_refused_with_the_nearest(tmp_path, demo):
    for wrong in ({"to": "yoolo"}, {"source": "yoolo"}):
        with pytest.raises(ConfigError) as caught:
            convert(demo, tmp_path / "out", **wrong)
        assert caught.value.facts["nearest"] == "yolo"
