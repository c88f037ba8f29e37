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


def reduce(name, keep, rename=None):
    full = np.load(FULL / f"{name}.npz")
    chosen = {key: full[key] for key in full.files if keep(key.split("/")[0])}
    np.savez_compressed(HERE / f"{rename or name}.npz", **chosen)


reduce("dcn_op", lambda case: case != "dla_like_64ch")
reduce("ctdet_targets", lambda case: case in TARGETS)
reduce("losses", lambda case: case in LOSSES)
reduce("decode", lambda case: case in DECODE or case.startswith(("snms_", "hardnms_")))
reduce("preprocess", lambda case: case == "affine", rename="affine")
models = {}
for model in ("res_18", "resdcn_18", "dla_34"):
    full = np.load(FULL / "models" / f"{model}.npz")
    models |= {f"{model}/{head}": full[f"2x3x96x160/{head}"] for head in ("hm", "wh", "reg")}
    models[f"{model}/hm"] = models[f"{model}/hm"][:, ::10]
    keys = json.loads((FULL / "models" / f"{model}.keys.json").read_text())["entries"]
    models[f"{model}/keys"] = np.array([entry["key"] if isinstance(entry, dict) else entry[0] for entry in keys])
np.savez_compressed(HERE / "models.npz", **models)
cases = {case["name"]: {k: case[k] for k in ("stride", "padding", "dilation")}
         for case in json.loads((FULL / "dcn_op.json").read_text())}  # fmt: skip
decode = {c["name"]: {k: c.get(k) for k in ("args", "scales", "flip", "nms", "keep", "fix_res_input_hw", "thresh")}
          for c in json.loads((FULL / "decode.json").read_text()) if "name" in c}  # fmt: skip
(HERE / "cases.json").write_text(json.dumps({"dcn_op": cases, "decode": decode}) + "\n")
shapes = {}
for model in ("res_18", "resdcn_18", "dla_34", "dlav0_34", "mmdet_centernet_r18-dcnv2"):
    entries = json.loads((FULL / "models" / f"{model}.keys.json").read_text())["entries"]
    shapes[model] = {entry["key"]: entry["shape"] for entry in entries}
(HERE / "shapes.json").write_text(json.dumps(shapes, separators=(",", ":")) + "\n")
