"""The family `centerface` against the original: targets, decoding, views."""

import json

import numpy as np
import pytest
import torch

from ctnet.codec.affine import affine_matrix, fixed_view, keep_view, transform_boxes, transform_points
from ctnet.config import Evaluation, Recipe
from ctnet.detect.stream import view_detections
from ctnet.detect.views import RenderedView
from ctnet.families import family_of
from ctnet.types import FACE, Objects

STRIDE = 4
NAMES = {"hm": "heatmap_logits", "wh": "log_size", "hm_offset": "offset", "landmarks": "landmarks"}


def face_family(*, offset=True, **model):
    heads = ["heatmap", "log_size", *(["offset"] if offset else []), "landmarks"]
    return family_of(Recipe.model_validate({"model": {"family": "centerface", "heads": heads} | model}), FACE)


def check_targets(file, name, size=128):
    field = lambda key: file[f"{name}/{key}"]  # noqa: E731
    xywh, points = field("boxes_xywh")[:32], field("keypoints")[:32]
    boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1).astype(np.float32)
    width, height = field("image_wh")
    matrix = affine_matrix((width / 2, height / 2), float(max(width, height)), (size, size))
    places = transform_points(points[..., :2].reshape(-1, 2).astype(float), matrix).reshape(*points.shape[:2], 2)
    keypoints = np.concatenate([places * STRIDE, points[..., 2:]], -1).astype(np.float32)
    objects = Objects(transform_boxes(boxes, matrix) * STRIDE, np.zeros(len(boxes), np.int64), keypoints)
    maps, rows = face_family().encoder(1)(objects, (size * STRIDE, size * STRIDE))
    heatmap = np.zeros(tuple(field("hm_shape")), np.float32)
    heatmap.reshape(-1)[field("hm_idx")] = field("hm_val")
    count = len(objects)
    assert np.allclose(maps["heatmap"], heatmap, atol=1e-7)
    valid = field("reg_mask")[:count].astype(bool)
    assert np.array_equal(rows["valid"], valid)
    assert np.array_equal(rows["cell"][valid], field("ind")[:count][valid])
    # ours is the logarithm of cells, the original's that of four cells
    assert np.allclose(rows["log_size"][valid] - np.log(4), field("wh")[:count][valid], atol=4e-5)
    assert np.allclose(rows["offset"], field("hm_offset")[:count], atol=4e-5)
    mask = field("hps_mask")[:count].astype(bool)
    assert np.array_equal(rows["landmarks.mask"], mask)
    assert np.allclose(rows["landmarks"], field("landmarks")[:count] * mask, atol=4e-5)


@pytest.mark.parametrize("name", ["target1", "target3", "target6"])
def test_targets_equal_the_original(name, golden):
    check_targets(golden("centerface"), name)


def maps_of(file, prefix):
    """Return raw outputs as ours are: logits, and logarithms of sizes in cells."""
    field = lambda key: torch.tensor(file[f"{prefix}/{key}"])  # noqa: E731
    maps = {ours: field(theirs) for theirs, ours in NAMES.items() if f"{prefix}/{theirs}" in file.files}
    maps["heatmap_logits"] = torch.logit(maps["heatmap_logits"].double()).float()
    return maps | {"log_size": maps["log_size"] + np.log(4)}


def check_decode(file, name, top_k):
    maps = maps_of(file, name)
    found = face_family(offset="offset" in maps, landmark_origin="center").decode(maps, top_k)
    expected = file[f"{name}/dets"]
    assert np.allclose(found.scores.numpy(), expected[..., 4], atol=1e-6)
    assert np.allclose(found.boxes.numpy() / STRIDE, expected[..., :4], atol=2e-5)
    assert np.allclose(found.keypoints.flatten(2).numpy() / STRIDE, expected[..., 5:15], atol=2e-5)


@pytest.mark.parametrize(("name", "top_k"), [("dec_noreg", 100), ("dec_k20", 20)])
def test_detections_equal_the_original(name, top_k, golden):
    check_decode(golden("centerface"), name, top_k)


def check_view(file, case):
    name, image_hw = case["name"], tuple(case["hw"])
    maps = maps_of(file, f"{name}/s0" if f"{name}/s0/hm" in file.files else name)
    if case["fix"]:
        view = fixed_view(image_hw, (case["fix_input"],) * 2, case["scale"])
    else:
        view = keep_view(image_hw, case["scale"])
    assert tuple(side * STRIDE for side in maps["heatmap_logits"].shape[2:]) == view.input_hw
    seen = RenderedView(view, np.zeros((1, 1, 3), np.uint8))
    [found] = view_detections(face_family(landmark_origin="center"), maps, [seen], Evaluation(top_k=100))
    expected = file[f"{name}/post"]
    assert np.allclose(found.scores, expected[:, 4], atol=1e-6)
    assert np.allclose(found.boxes_xyxy, expected[:, :4], atol=5e-4)
    assert np.allclose(found.keypoints.reshape(len(found), -1), expected[:, 5:], atol=5e-4)


def test_everything_of_the_full_set(shared):
    file = np.load(shared / "golden" / "centerface.npz")
    for case in json.loads((shared / "golden" / "centerface.json").read_text()):
        if case["name"].startswith("target"):
            check_targets(file, case["name"])
        elif case["name"].startswith("dec"):
            check_decode(file, case["name"], case["K"])
        elif case["name"].startswith("face"):
            check_view(file, case)


def test_landmarks_are_decoded_from_where_they_are_taught():
    face = np.array([[30, 30, 61, 65]], np.float32)
    points = np.array([[[40, 42, 2], [51, 41, 2], [46, 50, 1], [41, 56, 2], [52, 55, 2]]], np.float32)
    objects = Objects(face, np.zeros(1, np.int64), points)
    for heads in (["heatmap", "log_size", "offset", "landmarks"], ["heatmap", "log_size", "offset", "box_landmarks"]):
        family = family_of(Recipe.model_validate({"model": {"family": "centerface", "heads": heads}}), FACE)
        maps, rows = family.encoder(1)(objects, (128, 128))
        outputs = {head.output: torch.zeros(1, head.total_channels(1, FACE), 32, 32) for head in family.heads}
        outputs["heatmap_logits"][0] = torch.from_numpy(maps["heatmap"]) * 9 - 5
        for head in family.heads[1:]:
            outputs[head.output].flatten(2)[0, :, rows["cell"][0]] = torch.from_numpy(rows[head.name][0])
        found = family.decode(outputs, 1)
        assert np.allclose(found.boxes[0, 0], face[0], atol=1e-3)
        assert np.allclose(found.keypoints[0, 0], points[0, :, :2], atol=1e-3)


@pytest.mark.parametrize("points", ["keypoints", "landmarks", "box_landmarks"])
def test_the_mirror_images_points_are_turned_back(points):
    """Outputs that are right for an image and for its mirror image have a mean that is right for the image."""
    family = family_of(Recipe.model_validate({"model": {"heads": ["heatmap", "size", "offset", points]}}), FACE)
    head = family.by_role["keypoints"]
    places = np.array([[[40, 42, 2], [51, 41, 2], [46, 50, 2], [41, 56, 2], [52, 55, 2]]], np.float32)
    objects = Objects(np.array([[30, 30, 58, 64]], np.float32), np.zeros(1, np.int64), places)
    last = 128 - STRIDE  # columns of maps are mirrored: cell i becomes cell 31 - i, and the middle lies on a cell
    x1, y1, x2, y2 = objects.boxes_xyxy[0]
    turned = places[:, FACE.mirrored()].copy()
    turned[..., 0] = last - turned[..., 0]
    mirrored = Objects(np.array([[last - x2, y1, last - x1, y2]], np.float32), objects.labels, turned)
    encoder = family.encoder(1)
    rows = [encoder(each, (128, 128)).rows for each in (objects, mirrored)]
    outputs = {each.output: torch.zeros(2, each.total_channels(1, FACE), 32, 32) for each in family.heads}
    for i, each in enumerate(rows):
        outputs[head.output][i].flatten(1)[:, each["cell"][0]] = torch.from_numpy(each[points][0])
    mean = family.unflip(outputs)[head.output].flatten(2)[0, :, rows[0]["cell"][0]]
    assert np.allclose(mean, rows[0][points][0], atol=1e-5)
