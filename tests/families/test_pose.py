"""The family `pose` against the original: targets, losses, decoding, flip test."""

import json

import numpy as np
import pytest
import torch

from ctnet.codec.affine import affine_matrix, fixed_view, keep_view, transform_boxes, transform_points
from ctnet.config import Evaluation, Recipe
from ctnet.detect.merge import merge_views
from ctnet.detect.stream import view_detections
from ctnet.detect.views import RenderedView
from ctnet.families import family_of
from ctnet.types import PERSON, Objects, Targets
from originals import recipe

STRIDE = 4
NAMES = {"hm": "heatmap_logits", "wh": "size", "reg": "offset", "hps": "keypoints", "hm_hp": "keypoint_logits",
         "hp_offset": "keypoint_offset"}  # fmt: skip
PARTS = {"hm": "heatmap", "wh": "size", "off": "offset", "hp": "keypoints", "hm_hp": "keypoint_heatmap",
         "hp_offset": "keypoint_offset"}  # fmt: skip
HEADS = ("heatmap", "size", "offset", "keypoints", "keypoint_heatmap", "keypoint_offset")
# Here an option of the original stops it (`--mse_loss`), and there are no reference numbers that its code gave unaided.
WITHOUT_ORIGINAL = "mse"


def pose_family(case=None, **loss):
    """Return the family with the heads that the options of a case leave."""
    present = {"offset": "reg_offset", "keypoint_heatmap": "hm_hp", "keypoint_offset": "reg_hp_offset"}
    heads = [name for name in HEADS if case is None or name not in present or case[present[name]]]
    model = {"family": "pose", "heads": heads}
    return family_of(Recipe.model_validate({"model": model, "loss": {"boxes_without_points": False} | loss}), PERSON)


def dense(file, key):
    shape = tuple(file[f"{key}_shape"])
    values = np.zeros(shape, np.float32)
    values.reshape(-1)[file[f"{key}_idx"]] = file[f"{key}_val"]
    return values


def objects_of(file, name):
    """Return the people of a case in input pixels, the box by the map without rotation, the points by that with it."""
    field = lambda key: file[f"{name}/{key}"]  # noqa: E731
    xywh, points = field("boxes_xywh")[:32], field("keypoints")[:32].copy()
    boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1).astype(np.float32)
    width, size = int(field("image_wh")[0]), int(field("output_res"))
    if field("flipped"):
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]] - 1
        points[..., 0] = width - points[..., 0] - 1
        points = points[:, PERSON.mirrored()]
    scale = float(np.ravel(field("s"))[0])
    plain = affine_matrix(field("c"), scale, (size, size))
    turned = affine_matrix(field("c"), scale, (size, size), rotate_deg=float(field("rot")))
    places = transform_points(points[..., :2].reshape(-1, 2), turned).reshape(*points.shape[:2], 2)
    keypoints = np.concatenate([places * STRIDE, points[..., 2:]], -1).astype(np.float32)
    return Objects(transform_boxes(boxes, plain) * STRIDE, np.zeros(len(boxes), np.int64), keypoints)


def check_targets(file, case):
    name, size = case["case"], case["output_res"]
    objects = objects_of(file, name)
    keypoint_targets = "dense" if case["dense_hp"] else "center"
    family = pose_family(case, keypoint_targets=keypoint_targets)
    maps, rows = family.encoder(1)(objects, (size * STRIDE, size * STRIDE))
    field = lambda key: file[f"{name}/{key}"]  # noqa: E731
    count = len(objects)
    clipped = objects.boxes_xyxy.clip(0, (size - 1) * STRIDE)
    drawn = (clipped[:, 2:] > clipped[:, :2]).all(1)
    drawn |= not case["rot"]  # the original draws points of people whose boxes have no area in rotated images alone
    if case["hm_hp"] and drawn.all():
        assert np.allclose(maps["keypoint_heatmap"], dense(file, f"{name}/hm_hp"), atol=1e-7)
    if case["reg_hp_offset"]:
        mask = field("hp_mask").reshape(32, 17)[:count].astype(bool) & drawn[:, None]
        assert np.array_equal(rows["keypoint_offset.mask"], mask)
        assert np.array_equal(rows["keypoint_offset.cell"][mask], field("hp_ind").reshape(32, 17)[:count][mask])
        assert np.allclose(rows["keypoint_offset"], field("hp_offset").reshape(32, 17, 2)[:count] * mask[..., None],
                           atol=4e-5)  # fmt: skip
    if case["rot"]:  # the original teaches no centre, size or regressed point there
        assert not field("reg_mask").any()
        return
    assert np.allclose(maps["heatmap"], dense(file, f"{name}/hm"), atol=1e-7)
    valid = field("reg_mask")[:count].astype(bool)
    assert np.array_equal(rows["valid"], valid)
    assert np.array_equal(rows["cell"][valid], field("ind")[:count][valid])
    assert np.allclose(rows["size"][valid], field("wh")[:count][valid], atol=4e-5)
    if case["reg_offset"]:
        assert np.allclose(rows["offset"][valid], field("reg")[:count][valid], atol=4e-5)
    if case["dense_hp"]:
        assert np.allclose(maps["keypoints"][:34], dense(file, f"{name}/dense_hps"), atol=4e-5)
        weights = np.repeat(maps["keypoints"][34:], 2, axis=0)
        assert np.allclose(weights, dense(file, f"{name}/dense_hps_mask"), atol=1e-7)
        return
    mask = field("hps_mask")[:count].astype(bool)
    assert np.array_equal(rows["keypoints.mask"], mask)
    assert np.allclose(rows["keypoints"], field("hps")[:count] * mask, atol=4e-5)


def reproduced(cases, key):
    return [case for case in cases if WITHOUT_ORIGINAL not in case[key]]


SMALL_TARGETS = ("val_few", "val_nokp", "val_tiny", "val_same_cell", "val_lost", "crop_flip", "rot_flip", "no_hm_hp",
                 "dense_crowded")  # fmt: skip


@pytest.mark.parametrize("name", SMALL_TARGETS)
def test_targets_equal_the_original(name, golden, golden_cases):
    check_targets(golden("pose_targets"), golden_cases["pose_targets"][name])


def test_all_targets_of_the_full_set(shared):
    file = np.load(shared / "golden" / "pose" / "mp_targets.npz")
    cases = json.loads((shared / "golden" / "pose" / "mp_targets.json").read_text())
    for case in reproduced(cases, "case"):
        check_targets(file, case)


def targets_of_batch(file, cases):
    """Return the original's own targets of several cases as a batch of ours."""

    def stacked(field, *shape):
        return torch.from_numpy(np.stack([file[f"{c['case']}/{field}"].reshape(32, *shape) for c in cases]))

    def maps(field):
        return torch.from_numpy(np.stack([dense(file, f"{c['case']}/{field}") for c in cases])).double()

    targets = {"heatmap": maps("hm"), "keypoint_heatmap": maps("hm_hp")}
    rows = {"size": stacked("wh", 2).double(), "offset": stacked("reg", 2).double(), "cell": stacked("ind").long(),
            "valid": stacked("reg_mask").bool(), "label": torch.zeros(len(cases), 32, dtype=torch.long),
            "keypoint_offset": stacked("hp_offset", 17, 2).double(),
            "keypoint_offset.mask": stacked("hp_mask", 17).bool(),
            "keypoint_offset.cell": stacked("hp_ind", 17).long()}  # fmt: skip
    if cases[0]["dense_hp"]:
        targets["keypoints"] = torch.cat([maps("dense_hps"), maps("dense_hps_mask")[:, ::2]], 1)
    else:
        rows |= {"keypoints": stacked("hps", 34).double(), "keypoints.mask": stacked("hps_mask", 34).bool()}
    return Targets(targets, rows)


def option(text, name, default):
    words = text.split()
    return type(default)(words[words.index(name) + 1]) if name in words else default


def check_loss(file, case, targets_file, target_cases):
    batch = [target_cases[name] for name in case["targets"]]
    options, (images, height, width) = case["options"], case["shape_bhw"]
    weight = {"heatmap": ("hm", 1.0), "size": ("wh", 0.1), "offset": ("off", 1.0), "keypoints": ("hp", 1.0),
              "keypoint_heatmap": ("hm_hp", 1.0), "keypoint_offset": ("off", 1.0)}  # fmt: skip
    settings = {part: option(options, f"--{name}_weight", default) for part, (name, default) in weight.items()}
    settings |= {"regression": "smooth_l1" if option(options, "--reg_loss", "l1") == "sl1" else "l1",
                 "keypoint_targets": "dense" if "--dense_hp" in options else "center"}  # fmt: skip
    heads = case["heads"]
    present = {"reg_offset": "reg" in heads, "hm_hp": "hm_hp" in heads, "reg_hp_offset": "hp_offset" in heads}
    family = pose_family(present, **settings)
    outputs = []
    for stack in range(case["num_stacks"]):
        maps = {}
        for head, channels in heads.items():
            scale, shift = case["scale_shift"][head]
            name = f"mploss/{case['name']}/stack{stack}/{head}"
            values = recipe.rnd(name, (images, channels, height, width)) * scale + shift
            maps[NAMES[head]] = torch.from_numpy(values).requires_grad_()
        outputs.append(maps)
    targets = targets_of_batch(targets_file, batch)
    parts = family.compare(outputs, targets, {k: v.double() for k, v in family.normalisers(targets).items()})
    total = family.total(parts)
    total.backward()
    prefix = case["name"]
    assert total.item() == pytest.approx(float(file[f"{prefix}/loss"]), rel=1e-6)
    for name, part in PARTS.items():
        expected = float(file[f"{prefix}/{name}_loss"])
        if part in parts and settings[part]:
            assert parts[part].item() == pytest.approx(expected, rel=1e-6, abs=1e-9), part
    for stack, maps in enumerate(outputs):
        for head in heads:
            key, gradient = f"stack{stack}/d{head}", maps[NAMES[head]].grad
            norm = case["grad_norm"].get(key) or 0.0
            assert gradient.norm().item() == pytest.approx(norm, rel=1e-6, abs=1e-12), head
            if f"{prefix}/{key}" in file.files:
                assert np.allclose(gradient.numpy(), file[f"{prefix}/{key}"], rtol=1e-5, atol=1e-7), head


SMALL_LOSSES = ("default", "sl1", "weights", "dense", "no_hp_offset", "two_stacks", "rot", "extreme")


@pytest.mark.parametrize("name", SMALL_LOSSES)
def test_losses_and_gradients_equal_the_original(name, golden, golden_cases):
    cases = golden_cases["pose_losses"][name], golden("pose_targets"), golden_cases["pose_targets"]
    check_loss(golden("pose_losses"), *cases)


def test_all_losses_of_the_full_set(shared):
    folder = shared / "golden" / "pose"
    read = lambda name: json.loads((folder / f"{name}.json").read_text())  # noqa: E731
    targets = {case["case"]: case for case in read("mp_targets")}
    for case in reproduced(read("mp_losses"), "name"):
        check_loss(np.load(folder / "mp_losses.npz"), case, np.load(folder / "mp_targets.npz"), targets)


def maps_of(case, file, prefix):
    """Return the raw outputs of a case."""
    images, height, width = case["shape_bhw"]
    channels = {"hm": 1, "wh": 2, "hps": 34, "reg": 2, "hm_hp": 17, "hp_offset": 2}
    maps = {}
    for head, (scale, shift) in case["background"].items():
        values = recipe.rnd(f"mpdec/{case['rnd_tag']}/{head}", (images, channels[head], height, width)) * scale + shift
        values = values.astype(np.float32)
        if f"{prefix}/{head}_patch_idx" in file.files:
            values.reshape(-1)[file[f"{prefix}/{head}_patch_idx"]] = file[f"{prefix}/{head}_patch_val"]
        maps[NAMES[head]] = torch.from_numpy(values)
    return maps


def family_of_use(use):
    return pose_family({"reg_offset": use["reg"], "hm_hp": use["hm_hp"], "reg_hp_offset": use["hp_offset"]})


def check_decode(file, case):
    name = case["name"]
    found = family_of_use(case["use"]).decode(maps_of(case, file, name), case["K"])
    expected = file[f"{name}/dets"]
    assert np.allclose(found.boxes.numpy() / STRIDE, expected[..., :4], atol=2e-5)
    assert np.allclose(found.scores.numpy(), expected[..., 4], atol=1e-6)
    assert np.allclose(found.keypoints.flatten(2).numpy() / STRIDE, expected[..., 5:39], atol=2e-5)


def check_merged(file, case):
    name, parts = case["name"], []
    family = family_of_use(case["use"])
    settings = Evaluation(nms="soft" if case["soft_nms"] else "none", scales=tuple(case["scales"]), top_k=case["K"],
                          flip=case["flip"], max_detections=10_000)  # fmt: skip
    for i, scale in enumerate(case["scales"]):
        image_hw, input_hw = tuple(case["image_hw"]), tuple(case["per_scale"][i]["inp_hw"])
        view = fixed_view(image_hw, input_hw, scale) if case["fix_res"] else keep_view(image_hw, scale, case["pad"])
        assert view.input_hw == input_hw
        maps = maps_of(case["per_scale"][i], file, f"{name}/s{i}")
        parts += view_detections(family, maps, [RenderedView(view, np.zeros((1, 1, 3), np.uint8))], settings)
    merged = merge_views(parts, settings)
    survivors = file[f"{name}/merged"][: case.get("n_kept_by_soft_nms", case["n_merged"])]
    survivors = survivors[np.argsort(-survivors[:, 4], kind="stable")]
    merged = merged.select(slice(len(survivors)))
    assert np.allclose(merged.scores, survivors[:, 4], atol=1e-6)
    assert np.allclose(merged.boxes_xyxy, survivors[:, :4], atol=5e-4)
    assert np.allclose(merged.keypoints.reshape(len(merged), -1), survivors[:, 5:], atol=5e-4)


SMALL_DECODE = ("dec_full_k40", "dec_no_hp_offset", "dec_bare", "dec_hm_hp_silent", "dec_neg_wh")
SMALL_MERGED = ("det_flip_keep", "det_ms_flip_keep", "det_nms_leftover")


@pytest.mark.parametrize("name", SMALL_DECODE)
def test_detections_equal_the_original(name, golden, golden_cases):
    check_decode(golden("pose_decode"), golden_cases["pose_decode"][name])


@pytest.mark.parametrize("name", SMALL_MERGED)
def test_flip_test_and_merging_equal_the_original(name, golden, golden_cases):
    check_merged(golden("pose_decode"), golden_cases["pose_decode"][name])


def test_all_decoding_of_the_full_set(shared):
    folder = shared / "golden" / "pose"
    file, cases = np.load(folder / "mp_decode.npz"), json.loads((folder / "mp_decode.json").read_text())
    for case in reproduced(cases, "name"):
        if case["name"].startswith("dec_") and case["use"]["sigmoid_hm_hp"]:
            check_decode(file, case)
        elif case["name"].startswith("det_"):
            check_merged(file, case)


def test_what_has_no_labelled_points_teaches_boxes_alone():
    """Categories without key points, or objects whose points nobody labelled, beside others."""
    family = family_of(Recipe.model_validate({"model": {"family": "pose"}}), PERSON)
    boxes = np.array([[8, 8, 40, 44], [60, 20, 100, 60]], np.float32)
    points = np.zeros((2, 17, 3), np.float32)
    points[0] = [[20 + i, 30, 2] for i in range(17)]
    maps, rows = family.encoder(3)(Objects(boxes, np.array([0, 2]), points), (128, 128))
    assert rows["valid"].tolist() == [True, True]
    assert not rows["keypoints.mask"][1].any()
    assert not rows["keypoint_offset.mask"][1].any()
    assert maps["keypoint_heatmap"].max() == 1
    assert maps["keypoint_heatmap"][:, :, 18:].max() == 0  # nothing near the second
    without, _ = family.encoder(3)(Objects(boxes, np.array([0, 2])), (128, 128))
    assert without["keypoint_heatmap"].max() == 0
    targets = Targets(
        {name: torch.from_numpy(values)[None] for name, values in maps.items()},
        {name: torch.from_numpy(values)[None] for name, values in rows.items()},
    )
    outputs = {h.output: torch.randn(1, h.total_channels(3, PERSON), 32, 32).requires_grad_() for h in family.heads}
    parts = family.compare([outputs], targets, family.normalisers(targets))
    parts["keypoints"].backward()
    touched = outputs["keypoints"].grad[0].abs().sum(0).flatten().nonzero().flatten().tolist()
    assert touched == [int(rows["cell"][0])]
    assert all(part.isfinite() for part in parts.values())


def test_an_image_without_objects_has_finite_losses():
    family = family_of(Recipe.model_validate({"model": {"family": "pose"}}), PERSON)
    nothing = Objects(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros((0, 17, 3), np.float32))
    maps, rows = family.encoder(1)(nothing, (64, 96))
    targets = Targets(
        {name: torch.from_numpy(values)[None] for name, values in maps.items()},
        {name: torch.from_numpy(values)[None] for name, values in rows.items()},
    )
    outputs = {h.output: torch.randn(1, h.total_channels(1, PERSON), 16, 24) for h in family.heads}
    outputs["heatmap_logits"][0, 0, 3, 3] = 200.0
    outputs["keypoint_logits"][0, 0, 3, 3] = -200.0
    assert all(part.isfinite() for part in family.compare([outputs], targets, family.normalisers(targets)).values())
