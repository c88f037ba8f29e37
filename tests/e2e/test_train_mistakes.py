"""`ctnet train`: what users get wrong, and what a failed run leaves behind."""

import json
from pathlib import Path

import pytest

from ctnet.weights.ctnet_file import read_weights
from tiny import TINY, edit, file_names, train_file, val_file


def test_weights_that_explode_end_the_run_with_the_batch_on_disk(ctnet, small_set, tmp_path):
    wild = (
        "--lr",
        "1e6",
        "optimizer.name=sgd",
        "optimizer.clip_norm=0",
        "schedule.warmup=0",
        "train.save_every_steps=1",
    )
    out = tmp_path / "run"
    code, _, stderr = ctnet("train", "--data", small_set, "--epochs", 3, "--out", out, *TINY, *wild)
    assert code == 5, stderr
    assert "not finite" in stderr
    dump = next((out / "nonfinite").glob("*.pt"))
    assert dump.name in stderr
    last = out / "checkpoints" / "last.pt"
    if last.exists():
        tensors = read_weights(last).tensors
        assert all(t.isfinite().all() for t in tensors.values() if t.is_floating_point())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["optimizer.lrr=1"], 2, ["unknown setting", "optimizer.lr"]),
        (["centernet_resdn18"], 2, ["no recipe named", "centernet_resdcn18"]),
        (["--image-size", "big"], 2, ["N or HEIGHTxWIDTH"]),
        (["--image-size", "100"], 2, ["multiple of 32"]),
        (["--device", "cpuu"], 2, ["unknown device", "cpu"]),
        (["--data", "absent"], 3, ["absent"]),
        (["--weights", "absent.safetensors"], 3, ["absent.safetensors"]),
        (["--resume", "absent"], 2, ["no run to resume", "absent"]),
        (["--resume", "last"], 2, ["no run to resume"]),
        (["--resume", "last", "--lr", "1e-3"], 2, ["keeps its settings", "--lr"]),
        (["--frobnicate"], 2, ["frobnicate"]),
        (["--seed", "9" * 30], 2, ["seed"]),
        (["--node-rank", "1"], 2, ["go with --nproc"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_have_a_message_and_an_exit_code(ctnet, small_set, arguments, code, words):
    data = [] if "--data" in arguments or "--resume" in arguments else ["--data", str(small_set)]
    got, _, stderr = ctnet("train", *arguments, *data)
    assert got == code, stderr
    assert all(word in " ".join(stderr.split()) for word in words), stderr
    assert list(Path("runs/train").glob("*")) == [], "a mistake leaves nothing behind"
    assert "Traceback" not in stderr


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "xyxy", "no coco", "category"])
def test_unusable_data_is_refused_by_name(ctnet, small_set, tmp_path, damage):
    file = train_file(small_set)
    content = json.loads(file.read_text())
    victim = next(i for i in content["images"] if any(a["image_id"] == i["id"] for a in content["annotations"]))
    image = next((small_set / "images").rglob(victim["file_name"].split("/")[-1]))
    named = image.name
    if damage == "missing":
        image.unlink()
    elif damage == "truncated":
        image.write_bytes(image.read_bytes()[:400])
    elif damage == "text":
        image.write_text("no picture")
    elif damage == "no coco":
        file.write_text('{"hello": 1}')
        named = file.name
    elif damage == "category":
        content["annotations"][0]["category_id"] = 4711
        file.write_text(json.dumps(content))
        named = "4711"
    else:
        for a in content["annotations"]:
            x, y, w, h = a["bbox"]
            a["bbox"] = [x + 20, y + 20, x + 20 + w, y + 20 + h]
        file.write_text(json.dumps(content))
        named = "xyxy"
    workers = "data.workers=1" if damage == "truncated" else "data.workers=0"
    code, _, stderr = ctnet(
        "train",
        "--data",
        small_set,
        "--epochs",
        1,
        "--out",
        tmp_path / "run",
        *TINY,
        workers,
        "data.on_bad_image=error",
    )
    assert code == 3, stderr
    assert named in stderr
    assert "Traceback" not in stderr


def test_a_run_folder_is_never_overwritten(ctnet, small_set, tmp_path):
    arguments = ("--data", small_set, "--max-steps", 1, *TINY)
    assert ctnet("train", *arguments, "--out", tmp_path / "run")[0] == 0
    code, _, stderr = ctnet("train", *arguments, "--out", tmp_path / "run")
    assert code == 2
    assert "already holds a run" in stderr
    assert ctnet("train", *arguments)[0] == 0
    assert ctnet("train", *arguments)[0] == 0
    assert sorted(p.name for p in Path("runs/train").iterdir()) == [f"centernet_res18_lateral-{n}" for n in (1, 2)]


def test_a_broken_validation_file_is_an_error_and_leaves_no_folder(ctnet, small_set):
    def others(content):
        for category in content["categories"]:
            category["name"] += "?"

    for spoil in (lambda path: path.write_text(path.read_text()[:200]), lambda path: edit(path, others)):
        before = val_file(small_set).read_text()
        spoil(val_file(small_set))
        code, _, stderr = ctnet("train", "--data", small_set, "--epochs", 1, *TINY)
        assert (code, "Traceback" in stderr) == (3, False), stderr
        assert not list(Path("runs/train").glob("*"))
        val_file(small_set).write_text(before)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_log_that_cannot_be_written_ends_the_run_with_its_exit_code(ctnet, small_set, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "env.json").write_text('{"schema": "ctnet.env/1"}')
    (tmp_path / "run" / "log.jsonl").mkdir()
    code, _, stderr = ctnet("train", "--data", small_set, "--epochs", 1, "--out", tmp_path / "run", *TINY)
    assert (code, "cannot write the file" in stderr, "log.jsonl" in stderr) == (4, True, True), stderr


def test_a_folder_of_other_files_is_refused_and_one_of_a_run_that_saved_nothing_is_begun_anew(
    ctnet, small_set, tmp_path
):
    arguments = ("train", "--data", small_set, "--max-steps", 1, "--out", tmp_path / "mine", *TINY)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    code, _, stderr = ctnet(*arguments)
    assert (code, "notes.txt" in stderr) == (2, True), stderr
    assert file_names(tmp_path / "mine") == ["notes.txt"]
    (tmp_path / "mine" / "notes.txt").unlink()
    (tmp_path / "mine" / "config.yaml").write_text("name: mine")  # of the name that a run's has, and yet nobody's run
    assert ctnet(*arguments)[0] == 2
    (tmp_path / "mine" / "env.json").write_text('{"schema": "ctnet.env/1"}')
    (tmp_path / "mine" / "checkpoints").mkdir()
    assert ctnet(*arguments)[0] == 0


def test_a_finished_run_is_left_as_it_is(ctnet, small_set, tmp_path):
    out = tmp_path / "run"
    assert ctnet("train", "--data", small_set, "--max-steps", 2, "--out", out, *TINY)[0] == 0
    before = (out / "summary.json").read_text()
    code, stdout, stderr = ctnet("train", "--resume", out, "--json")
    assert (code, "complete since step" in stderr) == (0, True), stderr
    assert json.loads(stdout) == json.loads(before)
    assert (out / "summary.json").read_text() == before
