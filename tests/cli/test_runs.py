"""`ctnet runs`, `ctnet` alone, and a recipe after `ctnet bench`."""

import json

import pytest

from ctnet.cli.welcome import next_commands


def made(folder, rows, *, finished=True):
    """Write what a run folder holds of its record."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.pt").touch()
    lines = ["epoch,step,lr,loss,images_per_s,AP,wall_s", *rows]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    (folder / "env.json").write_text(json.dumps({"data": {"train": {"source": "shapes"}}}))
    if finished:
        (folder / "summary.json").write_text(json.dumps({"steps": int(rows[-1].split(",")[1])}))
    return folder


def test_runs_are_listed_with_their_curves(ctnet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = ctnet("runs")
    assert (code, "there are no runs" in err) == (2, True)
    made(
        tmp_path / "runs" / "train" / "a-1", ["1,3,0.1,2.5,20,0.25,60", "2,6,0.1,2.0,21,0.5,120", "3,9,0.1,1.5,22,,180"]
    )
    made(tmp_path / "runs" / "train" / "b-1", ["1,3,0.1,2.5,20,,60"], finished=False)
    code, out, _ = ctnet("runs", "--html", "page.html")
    assert code == 0
    rows = {row["run"]: row for row in json.loads(ctnet("runs", "--json")[1])["runs"]}
    first, second = rows["runs/train/a-1"], rows["runs/train/b-1"]
    assert (first["state"], first["epoch"], first["AP"], first["best AP"], first["hours"]) == (
        "finished", "3", "50.0", "50.0", "0.05")  # fmt: skip
    assert (second["state"], second["AP"], second["data"]) == ("unfinished", "-", "shapes")
    assert all(name in out for name in rows)
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 2
    assert ">a-1<" in page


def test_a_run_that_cannot_be_read_is_named(ctnet, tmp_path):
    good = made(tmp_path / "good", ["1,3,0.1,2.5,20,0.25,60"])
    bad = made(tmp_path / "bad", ["1,many,0.1,2.5,20,0.25,60"], finished=False)
    code, out, err = ctnet("runs", tmp_path)
    assert code == 0
    assert str(good) in out
    assert f"warning: {bad}" in err


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("runs/train/a-1/checkpoints/best.safetensors", "ctnet runs"),
        ("annotations/instances_train.json", "ctnet train --data ."),
        ("data.yaml", "ctnet data check ."),
        ("notes.txt", "ctnet train"),
    ],
)
def test_the_next_commands_suit_the_folder(file, command, tmp_path):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    commands = next_commands(tmp_path)
    assert len(commands) == 3
    assert command in [name for name, _ in commands]


def test_a_recipe_may_stand_after_bench(ctnet):
    code, _, err = ctnet("bench", "centernet_dla34", "--batch-sizes", "none")
    assert code == 2
    assert "--batch-sizes" in err
    assert "No such command" in ctnet("bench", "centernet_dla43")[2]
