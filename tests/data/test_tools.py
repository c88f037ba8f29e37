"""What labelling tools export is found without options, and holds the boxes that it was made of."""

import base64
import csv
import json
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from ctnet.data.checks.check import check
from ctnet.data.convert import convert
from ctnet.data.dataset import open_dataset
from ctnet.data.layouts.table import LAYOUTS, find_splits
from ctnet.errors import DataError

SIZE = (120, 160)  # height, width of every image
OBJECTS = {
    "train": {"p0": [("box", (59, 24, 103, 58)), ("disc", (11, 3, 42, 27))], "p 1": [("disc", (93, 81, 128, 113))]},
    "val": {"p2": [("disc", (57, 9, 90, 46))], "p3": []},
}


def images(folder, names, suffix=".jpg"):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        assert cv2.imwrite(str(folder / f"{name}{suffix}"), np.full((*SIZE, 3), 90, np.uint8))
    return folder


def put(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def xywh(box):
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def rect(box):
    return {"name": "rect", **dict(zip(("x", "y", "width", "height"), xywh(box), strict=True))}


def fractions(box):
    return [v / s for v, s in zip(box, (SIZE[1], SIZE[0]) * 2, strict=True)]


def ring(box):
    x1, y1, x2, y2 = box
    return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]


def labelme(root):
    kinds = {"box": "rectangle", "disc": "polygon"}
    for split, files in OBJECTS.items():
        images(root / split, files)
        for name, objects in files.items():
            shapes = [
                {"label": c, "shape_type": kinds[c], "points": [b[:2], b[2:]] if c == "box" else ring(b)}
                for c, b in objects
            ]
            stated = {"imagePath": f"C:\\photos\\{name}.jpg", "imageHeight": SIZE[0], "imageWidth": SIZE[1]}
            put(root / split / f"{name}.json", {"version": "5.2", "shapes": shapes, **stated})


def supervisely(root):
    put(root / "meta.json", {"classes": [{"title": "box"}], "tags": []})
    for split, files in OBJECTS.items():
        images(root / split / "img", files)
        for name, objects in files.items():
            entries = []
            for c, b in objects:
                if c == "box":
                    mask = cv2.imencode(".png", np.full((b[3] - b[1], b[2] - b[0]), 255, np.uint8))[1].tobytes()
                    data = base64.b64encode(zlib.compress(mask)).decode()
                    entry = {"geometryType": "bitmap", "bitmap": {"origin": b[:2], "data": data}}
                else:
                    entry = {"geometryType": "rectangle", "points": {"exterior": [b[2:], b[:2]], "interior": []}}
                entries.append({"classTitle": c, **entry})
            size = {"height": SIZE[0], "width": SIZE[1]}
            put(root / split / "ann" / f"{name}.jpg.json", {"size": size, "objects": entries})


def via(root):
    for split, files in OBJECTS.items():
        images(root / split, files)
        content = {}
        for name, objects in files.items():
            regions = [
                {
                    "shape_attributes": {
                        "name": "rect",
                        **dict(zip(("x", "y", "width", "height"), xywh(b), strict=True)),
                    },
                    "region_attributes": {"type": c} if c == "box" else {"type": {"disc": True, "box": False}},
                }
                for c, b in objects
            ]
            content[f"{name}1"] = {"filename": f"{name}.jpg", "size": 1, "regions": regions, "file_attributes": {}}
        whole = {"_via_settings": {}, "_via_img_metadata": content} if split == "val" else content
        put(root / split / "via_region_data.json", whole)


def via_3(root):
    for split, files in OBJECTS.items():
        images(root / split, files)
        names = {"1": {"aname": "kind", "options": {"0": "box", "1": "disc"}}}
        views = {str(i): {"fid_list": [str(i)]} for i in range(len(files))}
        metadata = {
            f"{i}_{n}": {"vid": str(i), "xy": [2, *xywh(b)], "av": {"1": "0" if c == "box" else "1"}}
            for i, objects in enumerate(files.values()) for n, (c, b) in enumerate(objects)
        }  # fmt: skip
        listed = {str(i): {"fid": str(i), "fname": f"{name}.jpg"} for i, name in enumerate(files)}
        put(root / split / "via.json", {"attribute": names, "file": listed, "view": views, "metadata": metadata})


def createml(root):
    for split, files in OBJECTS.items():
        images(root / split, files)
        content = [
            {
                "image": f"{name}.jpg",
                "annotations": [
                    {
                        "label": c,
                        "coordinates": {
                            "x": (b[0] + b[2]) / 2, "y": (b[1] + b[3]) / 2, "width": b[2] - b[0], "height": b[3] - b[1],
                        },
                    }
                    for c, b in objects
                ],
            }
            for name, objects in files.items()
        ]  # fmt: skip
        put(root / split / "_annotations.createml.json", content)


def datumaro(root):
    for split, files in OBJECTS.items():
        images(root / "images" / split, files)
        items = [
            {
                "id": name,
                "annotations": [
                    {"type": "bbox", "label_id": int(c == "disc"), "bbox": xywh(b), "attributes": {}}
                    if c == "box" else {"type": "polygon", "label_id": 1, "points": np.ravel(ring(b)).tolist()}
                    for c, b in objects
                ],
                "image": {"path": f"{name}.jpg", "size": SIZE},
            }
            for name, objects in files.items()
        ]  # fmt: skip
        labels = {"label": {"labels": [{"name": "box"}, {"name": "disc"}]}}
        put(root / "annotations" / f"{split}.json", {"info": {}, "categories": labels, "items": items})


def fiftyone(root):
    for split, files in OBJECTS.items():
        folder = root / ("validation" if split == "val" else split)
        images(folder / "data", files)
        labels = {
            name: [{"label": c, "bounding_box": xywh(fractions(b))} for c, b in objects] or None
            for name, objects in files.items()
        }
        put(folder / "labels.json", {"classes": ["box", "disc"], "labels": labels})


def label_studio(root):
    for split, files in OBJECTS.items():
        images(root / split / "images", files)
        tasks = [
            {
                "data": {"image": f"/data/local-files/?d=images/{name}.jpg".replace(" ", "%20")},
                "annotations": [{"result": [_result(c, b) for c, b in objects]}],
            }
            for name, objects in files.items()
        ]
        put(root / split / "project-1.json", tasks)


def _result(name, box):
    x, y, w, h = (100 * v for v in xywh(fractions(box)))
    value = {"x": x, "y": y, "width": w, "height": h, "rotation": 0, "rectanglelabels": [name]}
    return {"type": "rectanglelabels", "original_width": SIZE[1], "original_height": SIZE[0], "value": value}


def table(root, header, row, name="_annotations.csv", empty=None):
    for split, files in OBJECTS.items():
        images(root / split, files)
        with (root / split / name).open("w", newline="") as stream:
            writer = csv.writer(stream)
            if header:
                writer.writerow(header)
            for image, objects in files.items():
                writer.writerows([row(image, c, b) for c, b in objects] or [empty(image)])


def tensorflow(root):
    table(
        root, ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"),
        lambda name, c, b: (f"{name}.jpg", SIZE[1], SIZE[0], c, *b),
        empty=lambda name: (f"{name}.jpg", SIZE[1], SIZE[0], "", "", "", "", ""),
    )  # fmt: skip


def retinanet(root):
    table(
        root, None, lambda name, c, b: (f"{name}.jpg", *b, c), empty=lambda name: (f"{name}.jpg", "", "", "", "", "")
    )  # fmt: skip


def wheat(root):
    table(
        root, ("image_id", "width", "height", "bbox", "source"),
        lambda name, c, b: (name, SIZE[1], SIZE[0], str([float(v) for v in xywh(b)]), "x"),
        empty=lambda name: (name, SIZE[1], SIZE[0], "", "x"),
    )  # fmt: skip


def via_csv(root):
    def row(name, c, b):
        return f"{name}.jpg", 1, "{}", 1, 0, json.dumps(rect(b)), json.dumps({"type": c})

    header = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    table(root, header.split(","), row, empty=lambda name: (f"{name}.jpg", 1, "{}", 0, 0, "{}", "{}"))


def open_images(root):
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction"
    put(root / "class-descriptions-boxable.csv", "/m/1,box\n/m/2,disc\n")
    for split, files in OBJECTS.items():
        folder = "validation" if split == "val" else split
        images(root / folder, files)
        lines = [header]
        for name, objects in files.items():
            for c, box in objects:
                x1, y1, x2, y2 = fractions(box)
                lines.append(f"{name},x,/m/{1 if c == 'box' else 2},1,{x1},{x2},{y1},{y2},0,0,0,0")
        put(root / f"{folder}-annotations-bbox.csv", "\n".join(lines))


def darknet(root):
    for split, files in OBJECTS.items():
        folder = images(root / f"obj_{split}_data", files)
        for name, objects in files.items():
            put(folder / f"{name}.txt", "".join(yolo_line(c, b) for c, b in objects))
        put(root / f"{split}.txt", "".join(f"data/obj_{split}_data/{name}.jpg\n" for name in files))
    put(root / "obj.names", "box\ndisc\n")
    put(root / "obj.data", "classes = 2\ntrain = data/train.txt\nvalid = data/val.txt\nnames = data/obj.names\n")


def yolo_line(name, box):
    x, y, w, h = xywh(fractions(box))
    return f"{int(name == 'disc')} {x + w / 2} {y + h / 2} {w} {h}\n"


def roboflow_darknet(root):
    for split, files in OBJECTS.items():
        folder = images(root / ("valid" if split == "val" else split), files)
        put(folder / "_darknet.labels", "box\ndisc")
        for name, objects in files.items():
            put(folder / f"{name}.txt", "".join(yolo_line(c, b) for c, b in objects))


def classes_txt(root):
    put(root / "classes.txt", "box\ndisc\n")
    for split, files in OBJECTS.items():
        images(root / "images" / split, files)
        for name, objects in files.items():
            put(root / "labels" / split / f"{name}.txt", "".join(yolo_line(c, b) for c, b in objects))


def coco_content(files, prefix=""):
    names = {"box": 1, "disc": 2}
    listed = [
        {"id": i, "file_name": f"{prefix}{name}.jpg", "height": SIZE[0], "width": SIZE[1]}
        for i, name in enumerate(files, 1)
    ]
    objects = [(i, c, b) for i, found in enumerate(files.values(), 1) for c, b in found]
    annotations = [
        {"id": n, "image_id": i, "category_id": names[c], "bbox": xywh(b), "iscrowd": 0}
        for n, (i, c, b) in enumerate(objects, 1)
    ]
    return {
        "images": listed,
        "annotations": annotations,
        "categories": [{"id": i, "name": n} for n, i in names.items()],
    }


def label_studio_coco(root):
    for split, files in OBJECTS.items():
        images(root / split / "images", files)
        put(root / split / "result.json", coco_content(files, "images\\1/"))


def fiftyone_coco(root):
    for split, files in OBJECTS.items():
        folder = root / ("validation" if split == "val" else split)
        images(folder / "data", files)
        put(folder / "labels.json", coco_content(files))


def coco_beside(root):
    for split, files in OBJECTS.items():
        images(root / "photos", files)
        put(root / f"my_{split}_set.json", coco_content(files, "photos/"))


TOOLS = [
    labelme, supervisely, via, via_3, createml, datumaro, fiftyone, label_studio, tensorflow, retinanet, wheat, via_csv,
    open_images, darknet, roboflow_darknet, classes_txt, label_studio_coco, fiftyone_coco, coco_beside,
]  # fmt: skip


def found_in(annotations):
    names = [category.name for category in annotations.categories]
    return {
        image.path.stem: sorted(
            (names[label], tuple(np.round(box).astype(int).tolist()))
            for label, box in zip(image.labels, image.boxes_xyxy, strict=True)
        )
        for image in annotations.images
    }


def expected(tool, split):
    """Return what the tool states: a table without a class column knows one class, Open Images no empty image."""
    rename = {"wheat": lambda _: "object"}.get(tool.__name__, lambda name: name)
    files = {name: sorted((rename(c), b) for c, b in objects) for name, objects in OBJECTS[split].items()}
    return {name: objects for name, objects in files.items() if objects or tool is not open_images}


@pytest.fixture(params=TOOLS, ids=lambda tool: tool.__name__)
def export(request, tmp_path):
    root = tmp_path / "export"
    request.param(root)
    return request.param, root


def test_it_is_found_with_its_boxes(export):
    tool, root = export
    assert list(find_splits(root)) == ["train", "val"]
    for split in OBJECTS:
        annotations = open_dataset(root, split)
        assert found_in(annotations) == expected(tool, split)
        assert all(image.path.is_file() for image in annotations.images)
        assert {(image.height, image.width) for image in annotations.images} == {SIZE}


def test_it_is_checked(export):
    _, root = export
    assert [f.message for f in check(root).findings if f.severity == "error"] == []


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
@pytest.mark.parametrize("tool", [labelme, open_images, darknet, wheat], ids=lambda tool: tool.__name__)
def test_it_is_converted(tool, to, tmp_path):
    tool(tmp_path / "export")
    convert(tmp_path / "export", tmp_path / "out", to=to)
    for split in OBJECTS:
        assert found_in(open_dataset(tmp_path / "out", split)) == expected(tool, split)


def test_every_row_of_the_table_is_tried_here(tmp_path):
    found = set()
    for tool in TOOLS:
        tool(tmp_path / tool.__name__)
        found |= {split.layout.name for split in find_splits(tmp_path / tool.__name__).values()}
    assert found == {layout.name for layout in LAYOUTS} - {"yolo", "voc"}


def test_a_file_alone_is_any_split(tmp_path):
    via(tmp_path)
    file = tmp_path / "train" / "via_region_data.json"
    assert found_in(open_dataset(file, "train")) == found_in(open_dataset(file, "val")) == expected(via, "train")


def test_folders_that_state_no_split_are_one(tmp_path):
    labelme(tmp_path / "in")
    (tmp_path / "in/train").rename(tmp_path / "in/monday")
    (tmp_path / "in/val").rename(tmp_path / "in/tuesday")
    assert found_in(open_dataset(tmp_path / "in", "train")) == {
        **expected(labelme, "train"), **expected(labelme, "val"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tool", "file", "spoil"),
    [
        (labelme, "train/p0.json", lambda c: c["shapes"][0].update(points=[[1, "two"]])),
        (createml, "train/_annotations.createml.json", lambda c: c[0]["annotations"][0].pop("label")),
        (datumaro, "annotations/train.json", lambda c: c["items"][0]["annotations"][0].update(label_id=9)),
        (via, "train/via_region_data.json", lambda c: c["p01"]["regions"][0]["shape_attributes"].update(x=None)),
        (supervisely, "train/ann/p0.jpg.json", lambda c: c["objects"][0]["bitmap"].update(data="eNoDAAAAAAE=")),
    ],
    ids=["labelme", "createml", "datumaro", "via", "supervisely"],
)
def test_an_object_that_cannot_be_understood_is_named_and_the_check_reads_on(tool, file, spoil, tmp_path):
    tool(tmp_path)
    content = json.loads((tmp_path / file).read_text())
    spoil(content)
    put(tmp_path / file, content)
    with pytest.raises(DataError, match="malformed") as caught:
        open_dataset(tmp_path, "train")
    assert Path(file).name in str(caught.value)
    report = check(tmp_path)
    assert next(split.boxes for split in report.splits if split.split == "train") == 2
    assert [f.code for f in report.findings if f.severity == "error"] == ["annotations-unreadable"]
