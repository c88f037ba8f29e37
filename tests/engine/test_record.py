"""What a run has recorded, put away and taken up again at any step."""

import json
import random

import pytest
import torch

from ctnet.engine.record import LossSums, Record
from ctnet.engine.report import RunLog, Silence
from ctnet.errors import WeightsError

COLUMNS = ("epoch", "step", "lr", "loss")


def steps(count):
    draw = random.Random(0)
    return [{"loss": torch.tensor(draw.uniform(0, 9)), "size": torch.tensor(draw.gauss(0, 1e4))} for _ in range(count)]


def test_means_are_the_same_wherever_the_record_was_put_away():
    losses = steps(50)
    whole = Record()
    for one in losses:
        whole.add_step(one)
    expected = whole.take_logged()
    assert expected["loss"] == sum(float(one["loss"]) for one in losses) / 50
    for stop in range(1, 50):
        parts = Record()
        for number, one in enumerate(losses):
            parts.add_step(one)
            if number % stop == 0:
                parts = Record.restored(json.loads(json.dumps(parts.content())))
        assert parts.take_logged() == expected
        assert parts.this_epoch == whole.this_epoch
    assert (whole.logged, whole.since_log) == (expected, LossSums())


def test_a_row_of_an_epoch_that_goes_on_is_replaced_and_one_that_is_evaluated_is_completed():
    record = Record()
    record.begin_row(1, step=2, loss=3.0)
    record.complete_row(1, AP=0.5)
    assert record.rows == [{"epoch": 1, "step": 2, "loss": 3.0, "AP": 0.5}]
    record.begin_row(1, step=3, loss=2.0)
    record.begin_row(2, step=6)
    assert record.rows == [{"epoch": 1, "step": 3, "loss": 2.0}, {"epoch": 2, "step": 6}]


@pytest.mark.parametrize(
    "spoil",
    [
        {"rows": None}, {"rows": [{}]}, {"rows": [3]}, {"since_log": []}, {"since_log": ["x", {}]},
        {"this_epoch": [1, [2]]}, {"logged": {"loss": "high"}}, {"wall_s": None}, {"files": {"log.jsonl": "x"}},
        {"files": []},
    ],
)  # fmt: skip
def test_a_record_of_wrong_types_is_refused(spoil):
    with pytest.raises(WeightsError, match="record of the run"):
        Record.restored(Record().content() | spoil)
    for whole in ([], "x", {}, 3):
        with pytest.raises(WeightsError):
            Record.restored(whole)


def test_files_are_cut_to_the_record_and_others_stay(tmp_path):
    record = Record()
    record.begin_row(1, step=1, loss=1.5)
    log = RunLog(tmp_path, record, 0, COLUMNS, Silence())
    log.event("step", step=1)
    log.scalars("train", {"loss": 1.0}, 1)
    record.files = log.sizes()
    assert set(record.files) == {"log.jsonl", *(f"tensorboard/{p.name}" for p in (tmp_path / "tensorboard").iterdir())}
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    log.event("step", step=2)
    log.scalars("train", {"loss": 1.0}, 2)
    log.close()
    (tmp_path / "tensorboard" / "events.out.tfevents.1.later.1.0").write_bytes(b"later")
    (tmp_path / "tensorboard" / "notes.txt").write_text("kept")
    (tmp_path / "metrics.csv").write_text("spoiled")
    RunLog(tmp_path, Record.restored(record.content()), 1, COLUMNS, Silence()).close()
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1].startswith("1,1,,1.5")
    assert {p.name for p in (tmp_path / "tensorboard").iterdir()} >= {"notes.txt"}
    assert not (tmp_path / "tensorboard" / "events.out.tfevents.1.later.1.0").exists()


def test_names_in_a_record_lead_to_no_file(tmp_path):
    outside = tmp_path / "outside.txt"
    outside.write_text("kept as it is")
    (tmp_path / "run").mkdir()
    record = Record(files={"../outside.txt": 0, str(outside): 1})
    RunLog(tmp_path / "run", record, 1, COLUMNS, Silence()).close()
    assert outside.read_text() == "kept as it is"


def test_rows_of_a_state_without_a_record_are_those_of_the_file(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,loss\n1,3,1.5\n2,6,1.25\n")
    (tmp_path / "log.jsonl").write_text('{"step": 3}\n')
    record = Record.restored(None)
    RunLog(tmp_path, record, 3, COLUMNS, Silence()).close()
    assert [row["epoch"] for row in record.rows] == ["1"]
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1:] == ["1,3,1.5,"]
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 3}\n'
