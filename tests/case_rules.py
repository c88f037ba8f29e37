"""For every handed case, how to see whether what ctnet does with it is right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tiny import TINY

Answer = tuple[bool, str]
Runner = Callable[..., tuple[int, str]]

WHOLE = "4 images with 8 boxes of 2 classes; evaluation on 2"
SETTINGS = (*TINY, "train.batch_size=2", "schedule.warmup=0")


@dataclass
class Bench:
    """Runs commands in this process; `weights` are those of a short run, made when they are first needed."""

    scratch: Path
    run: Runner
    made: list[Path] = field(default_factory=list)

    def train(self, data: Path, *more: object) -> Answer:
        code, text = self.run("train", "--data", data, "--max-steps", 1, *SETTINGS, *more)
        return code == 0, f"exit {code}: {text[-6000:]}"

    def good(self) -> Path:
        from ctnet.data.demo import write_demo

        folder = self.scratch / "good"
        return folder if folder.exists() else write_demo(folder, images_train=4, images_val=2, size=(96, 120))

    def trained(self) -> Path:
        if not self.made:
            out = self.scratch / "run"
            assert self.train(self.good(), "--out", out)[0]
            self.made.append(out)
        return self.made[0]

    @property
    def weights(self) -> Path:
        return self.trained() / "checkpoints" / "best.safetensors"


Rule = Callable[[Bench, Path], Answer]


def has(text: str, *words: str) -> bool:
    """Return whether each word, or one of `a|b`, is in the text, however lines are broken."""
    flat = "".join(text.split()).casefold()
    return all(any("".join(w.split()).casefold() in flat for w in word.split("|")) for word in words)


def trains(*words: str, data: str = "", split: str = WHOLE) -> Rule:
    """Training begins with everything that is there, and says the words."""

    def rule(bench: Bench, case: Path) -> Answer:
        done, text = bench.train(case / data if data else case)
        return done and has(text, split, *words), text

    return rule


def refused(*words: str, data: str = "") -> Rule:
    """Training ends with exit code 3 before the first step, and with these words."""

    def rule(bench: Bench, case: Path) -> Answer:
        _, text = bench.train(case / data if data else case)
        return text.startswith("exit 3") and has(text, *words) and "step" not in text, text

    return rule


def fixed(boxes: tuple[int, ...] = (8, 4), *, data: str = "", words: tuple[str, ...] = ()) -> Rule:
    """`--fix` makes a folder that passes the check and holds so many boxes a split."""

    def rule(bench: Bench, case: Path) -> Answer:
        source, out = case / data if data else case, case.parent / "repaired"
        _, told = bench.run("data", "check", source, "--fix", out)
        code, text = bench.run("data", "check", out, "--json")
        counts = tuple(split["boxes"] for split in json.loads(text)["splits"]) if code == 0 else ()
        shown = told[told.rfind("errors,") :]
        return code == 0 and counts == boxes and has(told, *words), f"{shown} -> check exit {code}, boxes {counts}"

    return rule


def checks(*words: str) -> Rule:
    """`data check` says these words."""

    def rule(bench: Bench, case: Path) -> Answer:
        code, text = bench.run("data", "check", case, "--json")
        if text.startswith("{"):
            text = " ".join(f"{f['message']} {f['hint']} {f['examples']}" for f in json.loads(text)["findings"])
        return has(text, *words), f"check exit {code}: {text}"

    return rule


def both(*rules: Rule) -> Rule:
    def rule(bench: Bench, case: Path) -> Answer:
        answers = [one(bench, case) for one in rules]
        wrong = [what for ok, what in answers if not ok]
        return not wrong, wrong[0] if wrong else " / ".join(what[-180:] for _, what in answers)

    return rule


def either(*rules: Rule) -> Rule:
    def rule(bench: Bench, case: Path) -> Answer:
        answers = [one(bench, case) for one in rules]
        return next((answer for answer in answers if answer[0]), answers[-1])

    return rule


def evaluation_stops(*words: str) -> Rule:
    def rule(bench: Bench, case: Path) -> Answer:
        code, text = bench.run("eval", "--weights", bench.weights, "--data", case, "--split", "val")
        return code == 3 and has(text, *words), f"eval exit {code}: {text}"

    return rule


def predicted(frames: int | None, *, code: int = 0, complete: bool = True) -> Rule:
    """`predict` on the only file of the case, with so many frames."""

    def rule(bench: Bench, case: Path) -> Answer:
        (file,) = (path for path in case.iterdir() if path.name != "README")
        got, text = bench.run("predict", file, "--weights", bench.weights, "--out", case.parent / "out", "--no-draw")
        document = case.parent / "out" / "predictions.json"
        content = json.loads(document.read_text()) if document.exists() else {"pictures": [], "complete": False}
        count, whole = len(content["pictures"]), content["complete"]
        what = f"exit {got}, {count} frames, complete {whole}: {text}"
        return got == code and (frames is None or count == frames) and whole == complete, what

    return rule


def sees(*names: str) -> Rule:
    """`predict` on the folder has a result or a word for every file."""

    def rule(bench: Bench, case: Path) -> Answer:
        code, text = bench.run("predict", case, "--weights", bench.weights, "--out", case.parent / "out", "--no-draw")
        document = case.parent / "out" / "predictions.json"
        content = document.read_text() if document.exists() else ""
        lost = [name for name in names if name not in content and name not in text]
        return not lost, f"exit {code}, neither found nor named: {', '.join(lost)}" if lost else f"exit {code}: {text}"

    return rule


def images_of(bench: Bench, case: Path) -> Answer:
    """Every file of `p_pictures` is read whole or named, and none becomes dark in silence."""
    from ctnet.data.image import read_image

    names = sorted(path.name for path in case.iterdir() if path.name != "README")
    seen, what = sees(*names)(bench, case)
    _, text = bench.run("predict", case, "--weights", bench.weights, "--out", case.parent / "more", "--no-draw")
    more = ("08_multipage.tif", "14_animated.gif", "14b_animated.webp")
    silent = [name for name in more if text.count(name) == 0]
    dark = [n for n in ("02_gray12in16.png", "02c_gray12in16.tif") if n not in text and read_image(case / n).max() < 64]
    return seen and not silent and not dark, f"dark: {dark}; only the first frame, in silence: {silent}; {what}"


def not_dark(bench: Bench, case: Path) -> Answer:
    from ctnet.data.image import read_image

    done, text = bench.train(case)
    brightest = int(read_image(case / "images" / "p0.png").max())
    return done and (brightest > 64 or has(text, "16 bit|16-bit|value_range")), f"brightest value {brightest}; {text}"


def api(bench: Bench, case: Path) -> Answer:
    environment = {
        **os.environ, "WEIGHTS": str(bench.weights), "RUN": str(bench.trained()),
        "PICTURE": str(next((bench.good() / "images").rglob("*.*g"))),
    }  # fmt: skip
    done = subprocess.run([sys.executable, case / "api.py"], env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    crashes = [line for line in lines if line.startswith("EXC") and "ctnet.errors" not in line]
    ended = done.returncode == 0
    return ended and not crashes, f"{len(lines)} lines, exit {done.returncode}; {crashes or done.stderr[-300:]}"


def changed_data(bench: Bench, case: Path) -> Answer:
    from tiny import edit, train_file

    data, out = case.parent / "data", case.parent / "out"
    import shutil

    shutil.copytree(bench.good(), data)
    assert bench.train(data, "--out", out)[0]
    edit(train_file(data), lambda content: content["annotations"].pop())
    code, text = bench.run("train", "--resume", out, "--max-steps", 2)
    return code == 3 and has(text, "the data set has changed"), f"exit {code}: {text}"


def resumed(bench: Bench, case: Path) -> Answer:
    assert bench.train(bench.good(), "--out", case.parent / "out")[0]
    last = case.parent / "out" / "checkpoints" / "last.pt"
    code, text = bench.run("train", "--resume", last, "--max-steps", 2)
    return code == 0 and has(text, "resumed after step 1"), f"exit {code}: {text}"


def wrapped(bench: Bench, case: Path) -> Answer:
    """Every key and prefix that people wrap a ResNet-18 in."""
    import torch

    from ctnet.config import load_recipe
    from ctnet.families import family_of

    network = family_of(load_recipe("centernet_res18").recipe).build(2)
    body = {k[9:]: v for k, v in network.state_dict().items() if k.startswith("backbone.")}
    names = {f"key_{key}": {key: body} for key in ("model_state_dict", "net", "weights", "state_dict")}
    for prefix in ("net.", "backbone.", "module.encoder_q.", "backbone.body.", "module.", "_orig_mod."):
        names[f"prefix_{prefix}"] = {prefix + k: v for k, v in body.items()}
    wrong = []
    for name, content in names.items():
        torch.save(content, case / "w.pth")
        done, text = bench.train(bench.good(), "--backbone-weights", case / "w.pth")
        wrong += [] if done else [f"{name}: {text[-160:]}"]
    return not wrong, f"{len(names) - len(wrong)} of {len(names)} wrappers load; {wrong}"


_SIZE = both(refused("p0.jpg", "stated 160 x 120"), evaluation_stops("stated 160 x 120"))
_LABELS = trains(split="4 images with 8 boxes")
RULES: dict[str, Rule] = {
    "c01_ids_strings": fixed(),
    "c01b_via_image_id_string": fixed(),
    "c02b_labelbox_all_strings": fixed(),
    "c03_cvat_rle_all_crowd": both(refused("8 crowd regions"), fixed()),
    "c04_iscrowd_string0": trains(),
    "c05_pandas_floats": trains(),
    "c05b_float_sizes": trains(),
    "c07_cvat_default": either(trains(split="4 images with 8 boxes"), refused("data.train_split=default")),
    "c08_cvat_Train_Validation": trains(),
    "c09_labelstudio_coco": trains(split="4 images with 8 boxes"),
    "c13b_fiftyone_splits": trains(),
    "c15_integer_names": fixed(),
    "c19_pictures_half_size": both(_SIZE, fixed()),
    "c19b_pictures_double_size": both(_SIZE, fixed()),
    "c20_exif_turned": both(_SIZE, fixed()),
    "c21_area_zero": both(trains("areas of 0"), checks("areas of 0")),
    "c22_polygons_no_bbox": fixed(),
    "c22b_bbox_empty_list": fixed(),
    "c26b_gbk": both(refused("GBK", "UTF-8"), fixed()),
    "c27_lfs_json": refused("git-lfs pointer", "git lfs pull"),
    "c27b_lfs_picture": checks("git-lfs pointer"),
    "c29_url_file_names": trains(),
    "c30_two_entries_one_file": refused("frame_000000.jpg", "listed more than once"),
    "c34_roboflow_flat": either(
        trains("no evaluation", split="4 images", data="_annotations.coco.json"),
        trains("trained on", split="4 images", data="_annotations.coco.json"),
    ),
    "c36_yaml_list": refused("one file", data="d.yaml"),
    "c38_path_instead_of_file_name": both(refused("file_name"), fixed()),
    "c41_empty_annotations": refused("none has a box"),
    "c43_negative_and_empty": trains("evaluation counts them", "evaluation does not", split="evaluation on 2"),
    "c47_16bit_pictures": not_dark,
    "c48_no_eoi_picture": trains(),
    "c49_png_trailing": trains(),
    "o01_labelme": either(trains(split="4 images with 8 boxes"), refused("LabelMe")),
    "o03_csv": either(trains(split="4 images with 8 boxes"), refused("CSV")),
    "o04_via_json": either(trains(split="4 images with 8 boxes"), refused("VIA")),
    "p_pictures": images_of,
    "python_api": api,
    "resume_data_changed": changed_data,
    "resume_last_pt": resumed,
    "v01_kaggle_lowercase": trains(split="4 images with 8 boxes"),
    "v02_gbk": trains(),
    "v02b_gb2312_ascii_only": trains(),
    "v02c_gbk_undeclared": both(refused("GBK", "UTF-8"), fixed()),
    "v03_utf8_without_hyphen": trains(),
    "v04_spaces_in_names": trains(),
    "v05_cvat_default": either(trains(split="4 images with 8 boxes"), refused("data.train_split=default")),
    "v06_subfolders": trains(),
    "v07c_size_wrong": both(refused("stated 320 x 240, is 160 x 120"), fixed()),
    "v09_lists_with_suffix": trains(),
    "v10_rotated_boxes": both(checks("rotated box"), fixed((9, 4))),
    "v10b_polygon_object": both(checks("polygon"), fixed((9, 4))),
    "v11_VOCdevkit": either(trains(split="8 images with 16 boxes"), refused("VOC2007", "VOC2012", "path of one")),
    "v12_filename_windows_path_other_suffix": trains(),
    "v20_macos": trains(),
    "v21_only_layout": _LABELS,
    "v22_corners_swapped": both(checks("negative width"), fixed(words=("corners were exchanged",))),
    "v26_xml_upper_suffix": trains(),
    "vid_a_hole.mp4": predicted(None, code=3, complete=False),
    "vid_b_cut.avi": predicted(36, code=3, complete=False),
    "vid_c.wmv": predicted(60),
    "vid_e_cut.mkv": predicted(None, code=3, complete=False),
    "vid_f.flv": predicted(60),
    "vid_folder_only_videos": sees("a.mp4"),
    "vid_mixed": sees("a.mp4", "p0.jpg"),
    "weights_wrappers": wrapped,
    "y01b_all_polygons": trains(),
    "y02d_nc_disagrees": trains("nc is 3"),
    "y03_label_bom": trains(),
    "y05_jfif_suffix": trains(),
    "y05b_avif_gif": trains(),
    "y06_path_from_cwd": trains(),
    "y06d_windows_path": refused("single quotes"),
    "y06e_windows_backslash": trains(),
    "y07_labelstudio_yolo": trains(split="6 images with 12 boxes"),
    "y08_cvat_yolo11": trains(split="6 images with 12 boxes"),
    "y08b_cvat_ultralytics": trains(),
    "y09_list_windows": trains(),
    "y10_key_valid": trains(),
    "y16_labels_folder_misnamed": either(_LABELS, refused("labels")),
    "y16b_no_labels": refused("labels/train"),
    "y17_Images_Labels_capital": trains(),
    "y18_same_stem": trains("p1.jpg", "p1.png", "same labels", split="5 images"),
    "y19_duplicate_lines": both(checks("there twice"), fixed()),
    "y20_val_is_train": trains("trained on", split="evaluation on 4"),
    "y35_labels_beside_in_images": trains(),
    "y37_pose_columns": either(trains(), refused("pose")),
    "y38_obb_9_columns": either(trains(), refused("OBB|rotated")),
    "y43_label_upper_TXT": trains(),
    "y44_parent_called_images": trains(data="y44_parent_called_images"),
    "y45": either(_LABELS, refused("train_images")),
    "y46_one_broken_each": checks("p0.jpg|p1.jpg|p2.jpg|p3.jpg", "p100.jpg|p101.jpg"),
}
