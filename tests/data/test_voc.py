import json
import os

import numpy as np
import pytest

from ctnet.data.checks.repair import fix
from ctnet.data.convert import convert
from ctnet.data.dataset import open_dataset
from ctnet.data.demo import write_demo
from ctnet.data.image import write_image
from ctnet.data.layouts.voc import read_voc
from ctnet.errors import DataError
from ctnet.types import Category

OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>
<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"""


def xml(*objects, size="<size><width>53</width><height>37</height></size>", file_name="a.jpg"):
    return f"<annotation><filename>{file_name}</filename>{size}{''.join(objects)}</annotation>"


def obj(name, x1, y1, x2, y2, difficult=0):
    return OBJECT.format(name=name, x1=x1, y1=y1, x2=x2, y2=y2, difficult=difficult)


def folder_with(root, documents, splits):
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for stem, document in documents.items():
        content = document.encode() if isinstance(document, str) else document
        (root / "Annotations" / f"{stem}.xml").write_bytes(content)
        write_image(root / "JPEGImages" / f"{stem}.png", np.zeros((37, 53, 3), np.uint8))
    for split, stems in splits.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems) + "\n")
    return root


@pytest.fixture
def voc(tmp_path):
    documents = {
        "a": xml(obj("dog", 1, 2, 30, 20), obj("cat", 5.5, 6, 7, 8, difficult=1)),
        "b": xml(size="", file_name="b.jpg"),
        "c": xml(obj("ant", 3, 3, 3, 3), size="<size><width>0</width><height>0</height></size>"),
    }
    return folder_with(tmp_path / "VOC2012", documents, {"train": ["a", "b"], "val": ["c"], "dog_train": ["a 1"]})


def test_boxes_are_taken_as_they_are_and_difficult_ones_kept(voc):
    split = read_voc(voc, "train")
    assert split.images[0].boxes_xyxy.tolist() == [[1, 2, 30, 20], [5.5, 6, 7, 8]]
    assert split.images[0].areas.tolist() == [29 * 18, 3]
    assert not split.images[0].crowd.any()
    assert split.images[0].path == voc / "JPEGImages" / "a.png"


def test_categories_are_sorted_names_and_the_same_in_every_split(voc):
    train, val = read_voc(voc, "train"), read_voc(voc, "val")
    assert train.categories == val.categories == (Category(1, "ant"), Category(2, "cat"), Category(3, "dog"))
    assert train.images[0].labels.tolist() == [2, 1]
    assert val.images[0].labels.tolist() == [0]
    assert [image.id for image in train.images] == [1, 2]


@pytest.mark.parametrize(("split", "index"), [("train", 1), ("val", 0)], ids=["no-size", "zero-size"])
def test_a_size_that_is_not_stated_is_read_from_the_image(voc, split, index):
    image = read_voc(voc, split).images[index]
    assert (image.height, image.width) == (37, 53)


def test_the_parent_folder_opens_it_and_class_lists_are_no_splits(voc):
    assert open_dataset(voc.parent, "val").num_boxes == 1
    with pytest.raises(DataError, match="train or val"):
        open_dataset(voc.parent, "dog_train")


def test_several_years_must_be_told_apart(voc):
    folder_with(voc.parent / "VOC2007", {}, {"train": []})
    with pytest.raises(DataError, match="several"):
        open_dataset(voc.parent, "train")


BOMB = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]><annotation><filename>&c;</filename></annotation>'


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("<annotation><object>", "not XML"),
        (BOMB, "not plain XML"),
        (BOMB.encode("utf-16"), "not plain XML"),
        (xml(obj("dog", 1, 2, "nan", 4)), "object 1"),
        (xml(obj("dog", 1, 2, 3, 4), obj("dog", "x", 2, 3, 4)), "object 2"),
        (xml("<object><name>dog</name></object>"), "bndbox"),
        (xml(obj("", 1, 2, 3, 4)), "name ''"),
        (xml(size="<size><width>wide</width><height>9</height></size>"), "size"),
    ],
)
def test_what_cannot_be_understood_is_named(tmp_path, document, words):
    folder_with(tmp_path / "voc", {"bad": document}, {"train": ["bad"]})
    with pytest.raises(DataError, match=words) as caught:
        read_voc(tmp_path / "voc", "train")
    assert "bad.xml" in str(caught.value)


def test_a_listed_image_without_annotations_is_named(tmp_path):
    folder_with(tmp_path / "voc", {"a": xml()}, {"train": ["a", "ghost"]})
    with pytest.raises(DataError, match="ghost"):
        read_voc(tmp_path / "voc", "train")


def test_coco_boxes_survive_as_voc(tmp_path):
    demo = open_dataset(write_demo(tmp_path / "demo", 3, 1), "train")
    documents = {}
    for image in demo.images:
        boxes = zip(image.labels, image.boxes_xyxy.tolist(), strict=True)
        objects = [obj(demo.categories[label].name, *box) for label, box in boxes]
        documents[image.path.stem] = xml(*objects)
    split = read_voc(folder_with(tmp_path / "voc", documents, {"train": list(documents)}), "train")
    for old, new in zip(demo.images, split.images, strict=True):
        assert np.array_equal(old.boxes_xyxy, new.boxes_xyxy)


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [("gb2312", "gbk"), ("GBK", "gbk"), ("utf8", "utf-8"), ("utf-16", "utf-16"), ("big5", "big5"), (None, "utf-8-sig")],
)
def test_xml_in_other_encodings_is_read(tmp_path, declared, encoding):
    document = (f'<?xml version="1.0" encoding="{declared}"?>' if declared else "") + xml(obj("狗", 1, 2, 30, 20))
    folder = folder_with(tmp_path / "voc", {"a": "<annotation/>"}, {"train": ["a"]})
    (folder / "Annotations" / "a.xml").write_bytes(document.encode(encoding))
    assert [category.name for category in read_voc(folder, "train").categories] == ["狗"]


@pytest.mark.parametrize("declared", ['<?xml version="1.0" encoding="UTF-8"?>', "", '<?xml encoding="nonsense"?>'])
def test_an_encoding_that_is_not_the_stated_one_is_named(tmp_path, declared):
    folder = folder_with(tmp_path / "voc", {"a": "<annotation/>"}, {"train": ["a"]})
    (folder / "Annotations" / "a.xml").write_bytes((declared + xml(obj("狗", 1, 2, 30, 20))).encode("gbk"))
    with pytest.raises(DataError, match=r"not saved in UTF-8[\s\S]*a\.xml[\s\S]*GBK"):
        read_voc(folder, "train")


def test_a_document_type_is_refused_in_every_encoding(tmp_path):
    folder = folder_with(tmp_path / "voc", {"a": "<annotation/>"}, {"train": ["a"]})
    (folder / "Annotations" / "a.xml").write_bytes('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>'.encode("utf-16"))
    with pytest.raises(DataError, match="no document type"):
        read_voc(folder, "train")


@pytest.mark.parametrize(
    ("shape", "words", "box"),
    [
        ("<robndbox><cx>30</cx><cy>20</cy><w>20</w><h>10</h><angle>1.5707963</angle></robndbox>", "a rotated box",
         [25, 10, 35, 30]),
        ("<polygon><x1>5</x1><y1>6</y1><x2>25</x2><y2>7</y2><x3>9</x3><y3>30</y3></polygon>", "a polygon",
         [5, 6, 25, 30]),
        ("<polygon><pt><x>5</x><y>6</y></pt><pt><x>25</x><y>16</y></pt></polygon>", "a polygon", [5, 6, 25, 16]),
    ],
)  # fmt: skip
def test_rotated_boxes_and_polygons_are_named_and_repaired_to_their_bounds(tmp_path, shape, words, box):
    folder = folder_with(tmp_path / "voc", {"a": xml(f"<object><name>dog</name>{shape}</object>")}, {"train": ["a"]})
    with pytest.raises(DataError, match=f"object 1 is {words}"):
        read_voc(folder, "train")
    fix(folder, tmp_path / "repaired")
    (image,) = open_dataset(tmp_path / "repaired", "train").images
    assert image.boxes_xyxy == pytest.approx(np.array([box]), abs=1e-4)


@pytest.mark.parametrize("val", ["valid", "val"])
def test_xml_beside_the_images_of_each_split(tmp_path, val):
    for folder, name in (("train", "dog"), (val, "cat")):
        write_image(tmp_path / folder / "a.png", np.zeros((37, 53, 3), np.uint8))  # the same name in both
        (tmp_path / folder / "a.xml").write_text(xml(obj(name, 1, 2, 30, 20)))
    splits = [open_dataset(tmp_path, split) for split in ("train", "val")]
    assert [[c.name for c in split.categories] for split in splits] == [["cat", "dog"]] * 2
    assert [split.images[0].labels.tolist() for split in splits] == [[1], [0]]
    assert [split.images[0].path for split in splits] == [tmp_path / "train" / "a.png", tmp_path / val / "a.png"]


@pytest.mark.parametrize(
    ("annotations", "images"),
    [(".", "."), ("Annotations", "JPEGImages"), ("Annotations", "images"), ("Annotations", ".")],
)
def test_without_lists_all_is_the_split_to_train_on(tmp_path, annotations, images):
    for name in "ab":
        write_image(tmp_path / images / f"{name}.png", np.zeros((37, 53, 3), np.uint8))
        (tmp_path / annotations).mkdir(exist_ok=True)
        (tmp_path / annotations / f"{name}.xml").write_text(xml(obj("dog", 1, 2, 30, 20)))
    split = open_dataset(tmp_path, "train")
    assert [image.path for image in split.images] == [tmp_path / images / f"{name}.png" for name in "ab"]
    with pytest.raises(DataError, match="no split 'val'"):
        open_dataset(tmp_path, "val")


@pytest.mark.parametrize(("cat", "file"), [("\x1b[2J", b"a.png"), ("\ud800", b"a.png"), (" ", b"a.png"),
                                           ("cat", b"\xff.png"), ("cat", b"a\nb.png")])  # fmt: skip
def test_names_that_xml_or_a_list_cannot_hold_are_refused(tmp_path, cat, file):
    name = os.fsdecode(file)
    images = [{"id": 1, "file_name": name, "width": 12, "height": 9}]
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / name).write_bytes(b"")
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": cat}]}
    (tmp_path / "s" / "coco.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="cannot hold a name"):
        convert(tmp_path / "s" / "coco.json", tmp_path / "voc", to="voc")
