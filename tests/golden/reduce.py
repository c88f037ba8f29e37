"""Make the small golden files here from the full reference set: `python tests/golden/reduce.py ../shared`."""

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
FULL = Path(sys.argv[1]) / "golden"

TARGETS = {f"case{i:02d}" for i in (0, 1, 2, 3, 5, 6, 7, 9, 17, 19)} | {"radius", "gaussian2D", "draw"}
LOSSES = {"focal_a", "focal_nopos", "focal_extreme", "regl1_a", "regl1_empty", "regl1_d10", "reg_smoothl1_a",
          "ctdet_l1", "ctdet_sl1", "ctdet_catspec", "ctdet_two_stacks"}  # fmt: skip
DECODE = {"dec_3_rect", "dec_noreg", "dec_catspec", "dec_k40", "det_flip", "det_nms", "det_ms"}

CENTERFACE = {"dec_noreg", "dec_k20", "target1", "target3", "target6"}
POSE = {
    "targets": ("case", {"val_few", "val_nokp", "val_tiny", "val_same_cell", "val_lost", "crop_flip", "rot_flip",
                         "no_hm_hp", "dense_crowded", "L0", "L1", "L2", "L3", "L4_dense", "L5_dense"}),
    "losses": ("name", {"default", "sl1", "weights", "dense", "no_hp_offset", "two_stacks", "rot", "extreme"}),
    "decode": ("name", {"dec_full_k40", "dec_no_hp_offset", "dec_bare", "dec_hm_hp_silent", "dec_neg_wh",
                        "det_flip_keep", "det_ms_flip_keep", "det_nms_leftover"}),
}  # fmt: skip


def reduce(name, keep, rename=None):
    full = np.load(FULL / f"{name}.npz")
    chosen = {key: full[key] for key in full.files if keep(key.split("/")[0])}
    np.savez_compressed(HERE / f"{rename or name}.npz", **chosen)


reduce("dcn_op", lambda case: case != "dla_like_64ch")
reduce("ctdet_targets", lambda case: case in TARGETS)
reduce("losses", lambda case: case in LOSSES)
reduce("decode", lambda case: case in DECODE or case.startswith(("snms_", "hardnms_")))
reduce("preprocess", lambda case: case == "affine", rename="affine")
reduce("centerface", lambda case: case in CENTERFACE)
models = {}
for model in ("res_18", "resdcn_18", "dla_34", "dlav0_34", "hourglass", "mmdet_centernet_r18-dcnv2",
              "res_50", "resdcn_101", "mmdet_centernet_r18", "centerface_mobilev2_10", "centerface_mobilev2_10_hc24",
              "mp_dla_34", "mp_resdcn_18", "mp_hourglass"):  # fmt: skip
    folder = FULL / "pose" / "models" if model.startswith("mp_") else FULL / "models"
    entries = json.loads((folder / f"{model}.keys.json").read_text())["entries"]
    models[f"{model}/keys"] = np.array([entry["key"] for entry in entries])
    models[f"{model}/shapes"] = np.array([" ".join(map(str, entry["shape"])) for entry in entries])
    if not (folder / f"{model}.npz").is_file():  # names and shapes alone
        continue
    full = np.load(folder / f"{model}.npz")
    last = json.loads((folder / f"{model}.json").read_text())["eval"][-1]
    models[f"{model}/input_shape"] = np.array(last["input_shape"])
    for head, facts in last["heads"].items():
        classes = slice(None, None, {80: 10, 34: 5, 17: 5}.get(facts["shape"][1], 1))
        models[f"{model}/{head}"] = full[f"{last['tag']}/{head}"][:, classes]
        models[f"{model}/{head}_float32"] = np.array(facts["float32_run_max_abs_diff"])
np.savez_compressed(HERE / "models.npz", **models)
mmdet = {key: value for key, value in np.load(FULL / "mmdet_head.npz").items() if key != "decode_hm_sigmoid"}
heatmaps = np.load(FULL / "mmdet_head.npz")["decode_hm_sigmoid"]
for image, heatmap in enumerate(heatmaps):  # what is below the weakest of the hundred changes no detection
    strong = np.flatnonzero(heatmap >= mmdet[f"decode_img{image}_scores"].min())
    mmdet |= {f"decode_img{image}_idx": strong, f"decode_img{image}_val": heatmap.reshape(-1)[strong]}
mmdet["decode_shape"] = np.array(heatmaps.shape)
np.savez_compressed(HERE / "mmdet_head.npz", **mmdet)
cases = {case["name"]: {k: case[k] for k in ("stride", "padding", "dilation")}
         for case in json.loads((FULL / "dcn_op.json").read_text())}  # fmt: skip
decode = {c["name"]: {k: c.get(k) for k in ("args", "scales", "flip", "nms", "keep", "fix_res_input_hw", "thresh")}
          for c in json.loads((FULL / "decode.json").read_text()) if "name" in c}  # fmt: skip
pose = {}
for kind, (key, chosen) in POSE.items():
    full = np.load(FULL / "pose" / f"mp_{kind}.npz")
    used = (
        ("post", "top_", "hp_", "min_", "kept_", "eval_", "reg_kps", "n_") if kind == "decode" else ("stack", "gt_det")
    )
    small = {name: full[name] for name in full.files
             if name.split("/")[0] in chosen and not any(part.startswith(used) for part in name.split("/")[1:]
                                                         if not part.startswith("hp_offset_patch"))}  # fmt: skip
    np.savez_compressed(HERE / f"pose_{kind}.npz", **small)
    listed = json.loads((FULL / "pose" / f"mp_{kind}.json").read_text())
    dropped = {"margins", "per_scale_margins", "grad_sum", "loss_float32_run"}
    pose[f"pose_{kind}"] = {
        c[key]: {k: v for k, v in c.items() if k not in dropped} for c in listed if c[key] in chosen
    }
(HERE / "cases.json").write_text(json.dumps({"dcn_op": cases, "decode": decode, **pose}) + "\n")
steps = np.load(FULL / "widerface_steps.npz")
np.savez_compressed(HERE / "widerface_steps.npz", **steps)
scored = np.load(FULL / "pose" / "mp_eval.npz")
unused = ("oks", "det_rows", "det_image", "precision_all", "recall", "thresholds")
kept = {key.removeprefix("eval_a/"): value for key, value in scored.items() if key.split("/")[1] not in unused}
np.savez_compressed(HERE / "keypoint_eval.npz", **kept)
