"""Key points as data: read, written, converted, drawn, mirrored."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ctnet.codec.affine import affine_matrix
from ctnet.config import Augment
from ctnet.data.augment import random_matrix, warp_objects
from ctnet.data.checks.check import check
from ctnet.data.checks.usable import check_usable
from ctnet.data.convert import convert
from ctnet.data.dataset import open_dataset
from ctnet.data.demo import data_or_demo, demo_of, write_demo
from ctnet.data.demo_figures import joint_names
from ctnet.data.draw import annotation_sheet, draw_boxes
from ctnet.data.image import write_image
from ctnet.data.layouts.coco import coco_dict
from ctnet.data.layouts.keypoints import flip_pairs, schema_of
from ctnet.data.sample import TrainingSamples
from ctnet.errors import ConfigError, DataError
from ctnet.types import FACE, PERSON, Category, Objects, Targets

NAMES = ["nose", "left_eye", "right_eye"]


def coco(folder, annotations, categories=None, size=(40, 80)):
    """Write a COCO set of one image, 80 x 40, unless a size is given."""
    write_image(folder / "images" / "train" / "a.png", np.full((*size, 3), 99, np.uint8))
    categories = categories or [{"id": 1, "name": "person", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]}]
    rows = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": [10, 10, 30, 20], **more}
        for i, more in enumerate(annotations, 1)
    ]
    image = {"id": 1, "file_name": "a.png", "width": size[1], "height": size[0]}
    path = folder / "annotations" / "instances_train.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"images": [image], "annotations": rows, "categories": categories}))
    return folder


POINTS = [15, 12, 2, 18, 11, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["nose", "left_eye", "right_eye"], ((1, 2),)),
        (["r_hip", "l_hip", "top"], ((1, 0),)),
        (["eye.L", "eye.R", "LeftEar", "RightEar"], ((0, 1), (2, 3))),
        (["left eye", "Right Eye", "lefthand", "righthand"], ((0, 1), (2, 3))),
        (["front-left-paw", "front-right-paw", "back-left-paw", "back-right-paw"], ((0, 1), (2, 3))),
        (["tail", "collar", "bright"], ()),
        (["left_eye", "right_ear"], ()),
        ([], ()),
    ],
)
def test_pairs_follow_from_names(names, pairs):
    assert flip_pairs(names) == pairs


def test_known_schemas_agree_with_their_names():
    for known in (PERSON, FACE):
        assert flip_pairs(known.names) == known.flip_pairs
    assert schema_of(["left_hip", "right_hip"]).sigmas == (0.107, 0.107)


def test_coco_points_and_what_the_category_says_are_read(tmp_path):
    split = open_dataset(coco(tmp_path, [{"keypoints": POINTS}, {}, {"keypoints": []}]), "train")
    assert split.keypoints == schema_of(NAMES, [(0, 1), (0, 2)])
    points = split.images[0].keypoints
    assert points.shape == (3, 3, 3)
    assert points[0].tolist() == [[15, 12, 2], [18, 11, 1], [0, 0, 0]]
    assert not points[1:].any()


def test_sigmas_and_pairs_of_a_category_come_back(tmp_path):
    category = {"id": 1, "name": "cup", "keypoints": ["a", "b", "c"], "sigmas": [0.1, 0.2, 0.3], "flip_pairs": [[1, 3]]}
    split = open_dataset(coco(tmp_path, [{"keypoints": POINTS}], [category]), "train")
    assert split.keypoints.sigmas == (0.1, 0.2, 0.3)
    assert split.keypoints.flip_pairs == ((0, 2),)
    (written,) = coco_dict(split)["categories"]
    assert {key: written[key] for key in category} == category


def test_points_without_names_are_numbered_or_known(tmp_path):
    cup = coco(tmp_path, [{"keypoints": POINTS}], [{"id": 1, "name": "cup"}])
    assert open_dataset(cup, "train").keypoints.names == ("point 1", "point 2", "point 3")
    assert any("3 key points without names" in f.message for f in check_usable(open_dataset(cup, "train")))
    face = coco(tmp_path, [{"keypoints": [1, 1, 2] * 5}], [{"id": 1, "name": "Face"}])
    assert open_dataset(face, "train").keypoints == FACE


def test_only_some_categories_have_points(tmp_path):
    categories = [{"id": 1, "name": "person", "keypoints": NAMES}, {"id": 2, "name": "ball", "keypoints": []}]
    root = coco(tmp_path, [{"keypoints": POINTS}, {"category_id": 2}], categories)
    split = open_dataset(root, "train")
    assert not split.images[0].keypoints[1].any()
    content = coco_dict(split)
    assert "keypoints" not in content["categories"][1]
    assert "keypoints" not in content["annotations"][1]
    assert content["annotations"][0]["num_keypoints"] == 2
    assert check(root).count("error") == 0


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (POINTS[:6], "2 key points"),
        ([*POINTS, 1, 1, 1], "4 key points"),
        (POINTS[:5], "three finite numbers"),
        ([*POINTS[:8], "2"], "three finite numbers"),
        ([*POINTS[:8], 1e999], "three finite numbers"),
        ("none", "three finite numbers"),
    ],
)
def test_objects_with_other_points_are_named(tmp_path, value, words):
    with pytest.raises(DataError, match="annotation 2 is malformed") as caught:
        open_dataset(coco(tmp_path, [{"keypoints": POINTS}, {"keypoints": value}]), "train")
    assert words in str(caught.value)


def test_categories_with_different_points_are_named(tmp_path):
    categories = [{"id": 1, "name": "person", "keypoints": NAMES}, {"id": 2, "name": "dog", "keypoints": ["tail"]}]
    with pytest.raises(DataError, match="different key points") as caught:
        open_dataset(coco(tmp_path, [], categories), "train")
    assert "tail" in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"keypoints": "nose"}, {"keypoints": [1, 2]}, {"keypoints": ["a", "a"]},
        {"keypoints": ["a"], "skeleton": [[0, 1]]}, {"keypoints": ["a"], "skeleton": 7},
        {"keypoints": ["a"], "sigmas": [0]}, {"keypoints": ["a", "b"], "flip_pairs": [[1, 1]]},
    ],
)  # fmt: skip
def test_a_malformed_category_is_named(tmp_path, fields):
    with pytest.raises(DataError, match=r"category 1 \(person\)"):
        open_dataset(coco(tmp_path, [], [{"id": 1, "name": "person", **fields}]), "train")


def test_files_of_persons_alone_are_found(tmp_path):
    root = coco(tmp_path, [{"keypoints": POINTS}])
    folder = root / "annotations"
    (folder / "instances_train.json").rename(folder / "person_keypoints_train2017.json")
    assert open_dataset(root, "train").keypoints is not None


def test_changed_points_are_another_set(tmp_path):
    one, other = coco(tmp_path / "a", [{"keypoints": POINTS}]), coco(tmp_path / "b", [{"keypoints": POINTS[::-1]}])
    assert open_dataset(one, "train").digest() != open_dataset(other, "train").digest()


def yolo(folder, lines, more):
    write_image(folder / "images" / "train" / "a.png", np.full((40, 80, 3), 99, np.uint8))
    path = folder / "labels" / "train" / "a.txt"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines))
    (folder / "data.yaml").write_text(f"train: images/train\nnames: [person, ball]\n{more}")
    return folder


BOX = "0 0.5 0.5 0.25 0.5"


def test_yolo_points_with_and_without_visibility(tmp_path):
    lines = [f"{BOX} 0.25 0.5 2 0.5 0.25 1 0 0 0", "1 0.5 0.5 0.1 0.1"]
    split = open_dataset(yolo(tmp_path / "a", lines, "kpt_shape: [3, 3]\nflip_idx: [0, 2, 1]\n"), "train")
    assert split.keypoints.flip_pairs == ((1, 2),)
    assert split.images[0].keypoints.tolist() == [[[20, 20, 2], [40, 10, 1], [0, 0, 0]], [[0, 0, 0]] * 3]
    lines = [f"{BOX} 0.25 0.5 0.5 0.25 0 0"]
    split = open_dataset(yolo(tmp_path / "b", lines, "kpt_shape: [3, 2]\n"), "train")
    assert split.images[0].keypoints[0].tolist() == [[20, 20, 2], [40, 10, 2], [0, 0, 0]]
    assert split.keypoints.flip_pairs == ()


def test_a_person_of_yolo_is_known_by_its_mirror_image(tmp_path):
    more = f"kpt_shape: [17, 3]\nflip_idx: {PERSON.mirrored()}\n"
    assert open_dataset(yolo(tmp_path, [], more), "train").keypoints == PERSON


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"{BOX} 0.5 0.5 2", "14 numbers"),
        (f"{BOX} " + "0.5 " * 12, "3 points of 3"),
        (f"{BOX} 20 20 2 0 0 0 0 0 0", "key points in fractions"),
        (f"{BOX} nan 0.5 2 0 0 0 0 0 0", "key points in fractions"),
    ],
)
def test_a_line_with_other_points_is_named(tmp_path, line, words):
    with pytest.raises(DataError, match=r"a\.txt:1 is malformed") as caught:
        open_dataset(yolo(tmp_path, [line], "kpt_shape: [3, 3]\n"), "train")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "more",
    [
        "kpt_shape: 3\n", "kpt_shape: [0, 3]\n", "kpt_shape: [3, 4]\n", "kpt_shape: [3, 3]\nflip_idx: [0, 1]\n",
        "kpt_shape: [3, 3]\nflip_idx: [1, 2, 0]\n", "kpt_shape: [3, 3]\nflip_idx: [0, 5, 9]\n",
        "kpt_shape: [3, 3]\nkpt_names: {0: [a, b]}\n", "kpt_shape: [2, 3]\nkpt_names: {0: [a, b], 1: [c, d]}\n",
    ],
)  # fmt: skip
def test_a_malformed_shape_is_named(tmp_path, more):
    with pytest.raises(DataError, match="the key points are malformed") as caught:
        open_dataset(yolo(tmp_path, [], more), "train")
    assert "data.yaml" in str(caught.value)


@pytest.mark.parametrize("layout", ["coco", "yolo"])
def test_converting_keeps_points(tmp_path, layout):
    category = {"id": 1, "name": "cup", "keypoints": ["rim", "foot", "ear"], "sigmas": [0.1, 0.2, 0.3]}
    categories = [{**category, "flip_pairs": [[1, 3]], "skeleton": [[1, 2]]}]
    source = open_dataset(coco(tmp_path / "source", [{"keypoints": POINTS}, {}], categories), "train")
    convert(tmp_path / "source", tmp_path / "new", to=layout)
    new = open_dataset(tmp_path / "new", "train")
    assert new.keypoints == source.keypoints
    assert np.abs(new.images[0].keypoints - source.images[0].keypoints).max() < 1e-3


def test_voc_leaves_points_out_and_says_so(tmp_path):
    warnings = []
    convert(coco(tmp_path / "source", [{"keypoints": POINTS}]), tmp_path / "new", to="voc", warn=warnings.append)
    assert warnings == ["train: key points left out, which voc cannot describe"]
    assert open_dataset(tmp_path / "new", "train").keypoints is None


def test_a_mirror_image_swaps_pairs_and_a_turn_moves_points():
    schema = schema_of(NAMES)
    points = np.array([[[30, 20, 2], [40, 10, 1], [0, 0, 0]]], np.float32)
    objects = Objects(np.array([[20, 5, 50, 30]], np.float32), np.zeros(1, np.int64), points)
    settings = Augment(crop="none", flip=1.0)
    mirrored = warp_objects(objects, random_matrix(np.random.default_rng(0), (64, 64), (64, 64), settings), schema)
    assert mirrored.keypoints[0, 0].tolist() == [33, 20, 2]
    assert mirrored.keypoints[0, 2].tolist() == [23, 10, 1]
    assert mirrored.keypoints[0, 1, 2] == 0  # still without a label
    turned = warp_objects(objects, affine_matrix((32, 32), 64, (64, 64), rotate_deg=90), schema).keypoints[0]
    assert np.hypot(*(turned[0, :2] - 32)) == pytest.approx(np.hypot(30 - 32, 20 - 32), abs=1e-3)
    assert turned[:, 2].tolist() == [2, 1, 0]


class Keep:
    """An encoder that keeps the objects."""

    def __call__(self, objects, input_hw):
        return Targets({}, self.rows(objects, input_hw))

    def rows(self, objects, input_hw):
        return {"boxes": objects.boxes_xyxy, "points": objects.keypoints}


def samples(root, most=128, input_hw=(128, 128), **augment):
    settings = Augment(photometric=0, lighting=0, **augment)
    return TrainingSamples(open_dataset(root, "train"), input_hw, Keep(), settings, 0, most)


def many_faces(tmp_path, count=1000):
    spots = [(k % 40 * 20, k // 40 * 20) for k in range(count)]
    rows = [{"bbox": [x + 2, y + 2, 12, 15], "keypoints": [x + 5, y + 6, 2] * 5} for x, y in spots]
    return coco(tmp_path, rows, [{"id": 1, "name": "face", "keypoints": list(FACE.names)}], (500, 800))


def test_a_thousand_faces_in_one_image_are_those_in_view(tmp_path):
    root = many_faces(tmp_path)
    data = samples(root, most=50, crop="anchor")
    for epoch in range(5):
        boxes = data[epoch, 0].targets.rows["boxes"]
        assert 1 <= len(boxes) <= 50
        assert ((boxes[:, 2:] > 0) & (boxes[:, :2] < 128)).all()
    assert "1000 boxes" in check(root).findings[0].message
    assert open_dataset(root, "train").images[0].keypoints.shape == (1000, 5, 3)
    assert annotation_sheet(open_dataset(root, "train"), 1).any()


def sides_and_places(root, crop, count=300, **settings):
    data = samples(root, flip=0, crop=crop, **settings)
    boxes = np.concatenate([data[epoch, 0].targets.rows["boxes"] for epoch in range(count)])
    return np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)), boxes


def test_anchors_give_one_object_a_size_of_theirs_in_view(tmp_path):
    """One face of 60 pixels: nearest anchor 64, so sides from half of 16 to twice 64."""
    root = coco(tmp_path, [{"bbox": [100, 50, 60, 60]}], size=(200, 300))
    sides, boxes = sides_and_places(root, "anchor")
    assert sides.min() >= 8 - 1e-3
    assert sides.max() <= 128 + 1e-3
    assert (sides < 24).mean() > 0.1
    assert (sides > 64).mean() > 0.1
    inside = (boxes[:, :2] >= -1e-2) & (boxes[:, 2:] <= 128 + 1e-2)
    assert inside.all(1).mean() > 0.95  # but where it fills more than the view
    assert boxes[sides < 24][:, 0].std() > 20


def test_centerface_sampling_keeps_the_longer_side_and_moves_the_view(tmp_path):
    """Its new size of the object is undone by the view, which always is the longer side of the image."""
    root = coco(tmp_path, [{"bbox": [100, 50, 60, 60]}], size=(200, 300))
    sides, boxes = sides_and_places(root, "centerface")
    assert sides == pytest.approx(60 * 128 / 300, rel=0.05)
    assert boxes[:, 0].std() > 10


def test_sampling_changes_no_annotation_and_faces_without_area_are_never_its_centre(tmp_path):
    root = coco(tmp_path, [{"bbox": [100, 50, 0, 40]}, {"bbox": [30, 30, 40, 40]}], size=(200, 300))
    data = samples(root, crop="anchor")
    before = data.annotations.digest()
    for epoch in range(20):
        assert len(data[epoch, 0].targets.rows["boxes"]) == 1
    assert data.annotations.digest() == before
    assert "box-empty" in {finding.code for finding in check_usable(data.annotations)}
    empty = coco(tmp_path / "none", [], size=(200, 300))
    assert samples(empty, crop="anchor")[0, 0].image.shape == (128, 128, 3)


def test_objects_that_are_too_many_are_drawn_with_replacement_as_in_centerface(tmp_path):
    data = samples(many_faces(tmp_path, 40), most=32, crop="centerface")
    assert len(data[0, 0].targets.rows["boxes"]) == 32


def test_drawn_points_have_the_colours_of_their_sides():
    image = np.zeros((120, 160, 3), np.uint8)
    points = np.array([[[80, 60, 2], [100, 40, 2], [60, 40, 0]]], np.float32)
    boxes, labels, categories = np.array([[40, 20, 120, 100]], np.float32), np.zeros(1, np.int64), (Category(1, "a"),)
    drawn = draw_boxes(image, boxes, labels, categories, None, points, schema_of(NAMES, [(0, 1), (1, 2)]))
    assert len({tuple(drawn[y, x]) for x, y in ((80, 60), (100, 40), (60, 40))}) == 3
    assert not drawn[40, 60].any()  # not labelled
    assert drawn[50, 90].all()  # joined
    assert not drawn[40, 80].any()  # one end is not labelled
    bare = draw_boxes(image, boxes, labels, categories, None, points[..., :2], None)
    assert bare[40, 60].any()


@pytest.mark.parametrize(("kind", "points"), [("faces", 5), ("pose", 13)])
def test_demo_sets_are_sound(tmp_path, kind, points):
    root = write_demo(tmp_path, 40, 8, demo=demo_of(kind))
    report = check(root)
    assert [finding.message for finding in report.findings if finding.severity != "info"] == []
    split = open_dataset(root, "train")
    assert split.keypoints.sigmas is not None
    labelled = np.concatenate([image.keypoints for image in split.images])
    assert labelled.shape[1:] == (points, 3)
    assert {0, 1, 2} == set(np.unique(labelled[..., 2]))
    again = write_demo(tmp_path / "again", 2, 1, demo=demo_of(kind))
    name = "images/train/train_00001.jpg"
    assert (again / name).read_bytes() == (root / name).read_bytes()


def test_figures_have_as_many_joints_as_asked_for(tmp_path):
    for joints in range(8, 18):
        assert len(joint_names(joints)) == joints
        assert len(flip_pairs(joint_names(joints))) == joints // 2
    root = write_demo(tmp_path, 2, 1, demo=demo_of("pose", 8))
    assert len(open_dataset(root, "train").keypoints.names) == 8
    with pytest.raises(ConfigError, match="joints"):
        demo_of("faces", 9)


def test_a_demo_set_is_named_in_place_of_a_path(monkeypatch):
    monkeypatch.setattr("ctnet.data.demo.write_demo", lambda folder, demo: write_demo(folder, 1, 1, demo=demo))
    assert data_or_demo("demo:faces").name == "demo-faces-v1"
    assert data_or_demo(Path("demo:pose")).name == "demo-pose-v1"
    assert open_dataset(data_or_demo("demo:pose"), "val").keypoints.names[0] == "nose"
    with pytest.raises(ConfigError, match="no demo set is called 'hands'"):
        data_or_demo("demo:hands")


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.full((40, 80), 90, np.uint8), id="grey"),
        pytest.param(np.full((40, 80, 3), 20_000, np.uint16), id="16-bit"),
        pytest.param(np.full((40, 80, 4), 90, np.uint8), id="alpha"),
    ],
)
def test_images_of_other_kinds_are_trained_on(tmp_path, image):
    root = coco(tmp_path, [{"keypoints": POINTS}])
    cv2.imwrite(str(root / "images" / "train" / "a.png"), image)
    assert samples(root)[0, 0].image.dtype == np.uint8
    assert check(root).count("error") == 0


def test_points_of_turned_and_cmyk_photos_stay_on_the_upright_image(tmp_path):
    image = pytest.importorskip("PIL.Image")
    root = coco(tmp_path, [{"keypoints": [20, 29, 2, 0, 0, 0, 0, 0, 0]}])
    path = root / "images" / "train" / "a.jpg"
    pixels = np.zeros((80, 40, 3), np.uint8)
    pixels[12:28, 2:18] = 255  # upright, after a quarter turn to the left: x 12..28, y 22..38
    exif = image.Exif()
    exif[0x0112] = 8
    image.fromarray(pixels).save(path, quality=95, exif=exif)
    content = (root / "annotations" / "instances_train.json").read_text().replace("a.png", "a.jpg")
    (root / "annotations" / "instances_train.json").write_text(content)
    sample = samples(root, crop="none", flip=0, input_hw=(64, 64))[0, 0]
    x, y, _ = sample.targets.rows["points"][0, 0].round().astype(int)
    assert sample.image[y - 4 : y + 5, x - 4 : x + 5].min() > 150
    assert sample.image.mean() < 60
    assert check(root).count("error") == 0
    image.fromarray(np.full((40, 80, 4), 90, np.uint8), "CMYK").save(path)
    assert samples(root)[0, 0].image.shape == (128, 128, 3)
