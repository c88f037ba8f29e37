"""A sound COCO set of two splits, and every way to break it in one place."""

import json
import struct

import numpy as np

from ctnet.data.image import write_image

WIDTH, HEIGHT = 93, 61


class Broken:
    """A sound data set of two splits, to be broken in one place."""

    def __init__(self, root):
        self.root = root
        self.content = {
            split: {
                "images": [self.image(k, f"{split}_{k}.png") for k in (1, 2, 3, 4)],
                "annotations": [
                    {"id": 10 * k, "image_id": k, "category_id": 1 + k % 2, "bbox": [20, 10, 30, 25]}
                    for k in (1, 2, 3, 4)
                ],
                "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            }
            for split in ("train", "val")
        }
        for number, split in enumerate(self.content):
            for k in (1, 2, 3, 4):
                write_image(root / "images" / f"{split}_{k}.png", noise(10 * number + k))

    @staticmethod
    def image(image_id, file_name):
        return {"id": image_id, "file_name": file_name, "width": WIDTH, "height": HEIGHT}

    @property
    def train(self):
        return self.content["train"]

    @property
    def box(self):
        return self.train["annotations"][1]

    def image_file(self, k=2, split="train"):
        return self.root / "images" / f"{split}_{k}.png"

    def add_boxes(self, *boxes, **fields):
        for k, box in enumerate(boxes):
            annotation = {"id": 1000 + k, "image_id": 2, "category_id": 1, "bbox": list(box), **fields}
            self.train["annotations"].append(annotation)

    def save(self):
        for split, content in self.content.items():
            path = self.root / "annotations" / f"instances_{split}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content))
        return self.root


def noise(seed, height=HEIGHT, width=WIDTH):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def missing(data):
    data.image_file().unlink()


def empty_file(data):
    data.image_file().write_bytes(b"")


def cut_short(data):
    data.image_file().write_bytes(data.image_file().read_bytes()[:-9000])


def no_image(data):
    data.image_file().write_text("moved to another server")


def wrong_suffix(data):
    write_image(data.root / "a.jpg", noise(5))
    (data.root / "a.jpg").replace(data.image_file())


def other_size(data):
    write_image(data.image_file(), noise(9, HEIGHT + 2, WIDTH))


def turned_by_exif(data):
    data.train["images"][1]["file_name"] = "train_2.jpg"
    path = data.root / "images" / "train_2.jpg"
    write_image(path, noise(7))
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff
    path.write_bytes(b"\xff\xd8" + exif + path.read_bytes()[2:])


def no_size(data):
    del data.train["images"][1]["width"]


def unknown_category(data):
    data.box["category_id"] = 7


def repeated_category_id(data):
    data.train["categories"].append({"id": 2, "name": "cow"})


def repeated_category_name(data):
    data.train["categories"].append({"id": 3, "name": "dog"})


def ids_with_holes(data):
    for content in data.content.values():
        for category in content["categories"]:
            category["id"] *= 45
        for annotation in content["annotations"]:
            annotation["category_id"] *= 45


def class_only_in_val(data):
    for annotation in data.train["annotations"]:
        annotation["category_id"] = 1


def class_only_in_train(data):
    for annotation in data.content["val"]["annotations"]:
        annotation["category_id"] = 1


def zero_size_box(data):
    data.box["bbox"] = [30, 40, 0, 12]


def negative_box(data):
    data.box["bbox"] = [30, 40, 12, -3]


def nan_box(data):
    data.box["bbox"] = [30, 40, float("nan"), 12]


def three_numbers(data):
    data.box["bbox"] = [30, 40, 12]


def area_in_words(data):
    data.box["area"] = "large"


def area_of_nothing(data):
    data.box["area"] = 0


def box_twice(data):
    data.add_boxes(data.box["bbox"])


def outside(data):
    data.box["bbox"] = [60, 40, 50, 12]


def far_outside(data):
    data.box["bbox"] = [-90, -40, 20, 12]


def corners(data):
    for annotation in data.train["annotations"]:
        annotation["bbox"] = [40, 30, 80, 55]


def normalised(data):
    for annotation in data.train["annotations"]:
        annotation["bbox"] = [0.4, 0.3, 0.5, 0.25]


def unannotated(data):
    data.train["annotations"].pop(1)


def more_than_top_k(data):
    data.add_boxes(*[(x, y, 30, 25) for x in range(0, 55, 5) for y in range(0, 30, 3)])


def too_small(data):
    data.add_boxes((70, 40, 0.5, 12))


def same_cell(data):
    data.add_boxes((20.02, 9.98, 30, 25))


def repeated_annotation_id(data):
    data.box["id"] = 10


def repeated_image_id(data):
    data.train["images"].append(data.image(2, "val_1.png"))


def repeated_file(data):
    data.train["images"].append(data.image(9, "train_2.png"))


def unknown_image(data):
    data.box["image_id"] = 77


def half_an_image(data):
    data.train["images"].append({"id": 9})


def no_object(data):
    data.train["annotations"].append("box")


def no_images(data):
    data.train["images"], data.train["annotations"] = [], []


def too_many_categories(data):
    from ctnet.config.ranges import MOST_CATEGORIES

    for content in data.content.values():
        content["categories"] = [{"id": i, "name": f"c{i}"} for i in range(1, MOST_CATEGORIES + 2)]


def no_boxes(data):
    data.train["annotations"] = []


def no_val(data):
    del data.content["val"]


def twin(data):
    data.image_file(2, "val").write_bytes(data.image_file(2, "train").read_bytes())


def _with_points(data):
    """Give every object three sound points: a person's left is at the right of the image."""
    for content in data.content.values():
        for category in content["categories"]:
            category["keypoints"] = ["nose", "left_eye", "right_eye"]
        for annotation in content["annotations"]:
            x, y, _, _ = annotation["bbox"]
            annotation["keypoints"] = [x + 9, y + 9, 2, x + 14, y + 5, 2, x + 4, y + 5, 2]


def points_malformed(data):
    _with_points(data)
    data.box["keypoints"] = [30, 40, "x"]


def category_of_points_malformed(data):
    _with_points(data)
    data.train["categories"][0]["skeleton"] = [[1, 9]]


def points_short(data):
    _with_points(data)
    data.box["keypoints"] = data.box["keypoints"][:6]


def points_of_odd_visibility(data):
    _with_points(data)
    data.box["keypoints"][5] = 3


def points_in_the_corner(data):
    _with_points(data)
    data.box["keypoints"][3:6] = [0, 0, 2]


def points_outside(data):
    _with_points(data)
    data.box["keypoints"][3] = 120


def points_mirrored(data):
    data.add_boxes(*((10 + 3 * k, 5 + 2 * k, 25, 20) for k in range(14)))
    _with_points(data)
    for annotation in data.train["annotations"]:
        points = annotation["keypoints"]
        points[3:6], points[6:9] = points[6:9], points[3:6]
