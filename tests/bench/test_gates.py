"""Baselines: what passes, what does not, and what cannot be compared at all."""

import json

import pytest

from ctnet.bench import gates
from ctnet.errors import BenchError, ConfigError


def document(*rows, **more):
    names = ("runtime", "batch", "precision", "images_per_s")
    subject = {"recipe": "r", "image_size": [64, 64], "classes": 3}
    return {
        "schema": "ctnet.bench/1",
        "kind": "inference",
        "subject": subject,
        "machine": {"processor": "P", "threads": 2},
        "rows": [dict(zip(names, row, strict=True)) for row in rows],
        **more,
    }


@pytest.mark.parametrize(("text", "value"), [("5%", 0.05), ("0.05", 0.05), ("0", 0), ("12.5%", 0.125)])
def test_a_tolerance_is_a_part_or_a_percentage(text, value):
    assert gates.parse_max_regress(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "%", "five", "-1%", "1", "100%", "nan", "5 % slower"])
def test_other_tolerances_are_refused(text):
    with pytest.raises(ConfigError, match="--max-regress"):
        gates.parse_max_regress(text)


def test_rows_are_compared_by_runtime_batch_and_precision():
    before = document(("torch", 1, "fp32", 100.0), ("torch", 8, "fp32", 200.0), ("openvino", 1, "bf16", 50.0))
    now = document(("torch", 8, "fp32", 195.0), ("torch", 1, "fp32", 94.0), ("openvino", 1, "bf16", 60.0))
    gate = gates.compare(before, now, 0.05)
    assert [row.passed for row in gate.comparisons] == [False, True, True]
    assert gate.comparisons[0].change == pytest.approx(-0.06)
    with pytest.raises(BenchError) as caught:
        gate.require()
    assert caught.value.exit_code == 3
    assert "1 of 3" in caught.value.message
    assert "torch at 1: 94.00 images/s, was 100.00 (-6.0 %)" in caught.value.facts["got"]
    gates.compare(before, now, 0.07).require()


@pytest.mark.parametrize(
    "now", [[], [("torch", 1, "fp32", None)], [("torch", 1, "bf16", 900.0)], [("torch", 2, "fp32", 900.0)]],
    ids=["missing", "failed", "other precision", "other batch"],
)  # fmt: skip
def test_a_row_that_is_missing_does_not_pass(now):
    gate = gates.compare(document(("torch", 1, "fp32", 100.0)), document(*now), 0.5)
    assert not gate.passed
    with pytest.raises(BenchError, match="not reached") as caught:
        gate.require()
    assert "torch at 1: not measured" in caught.value.facts["got"]


def test_rows_that_failed_then_or_are_new_are_not_asked_for():
    before = document(("torch", 1, "fp32", 100.0), ("openvino", 1, None, None))
    gate = gates.compare(before, document(("torch", 1, "fp32", 99.0), ("pt2", 1, "fp32", 1.0)), 0.05)
    assert [row.runtime for row in gate.comparisons] == ["torch"]
    assert gate.passed
    assert gate.to_dict()["rows"][0]["change"] == pytest.approx(-0.01)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read"),
        ("not json", "not JSON"),
        ("[1]", "not written by ctnet bench"),
        ('{"schema": "ctnet.eval/1"}', "not written by ctnet bench"),
        (json.dumps(document(kind="train")), "something else"),
    ],
)
def test_a_file_that_is_no_baseline_is_refused(content, words, tmp_path):
    file = tmp_path / "before.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(BenchError, match=words) as caught:
        gates.read_baseline(file, "inference")
    assert caught.value.facts["file"] == str(file)


def test_a_baseline_of_another_network_or_size_is_refused(tmp_path):
    file = tmp_path / "before.json"
    file.write_text(json.dumps(document()))
    before = gates.read_baseline(file, "inference")
    gates.require_same_subject(before, before["subject"])
    with pytest.raises(BenchError, match="another image size"):
        gates.require_same_subject(before, {**before["subject"], "image_size": [96, 64]})


def test_another_machine_is_told_from_this_one():
    before = document()
    assert gates.other_machine(before, {"processor": "P", "threads": 2, "versions": {"torch": "9"}}) == []
    assert gates.other_machine(before, {"processor": "P", "threads": 4}) == ["threads 2 there, 4 here"]


@pytest.mark.parametrize(
    ("changes", "at"),
    [
        ({"rows": None}, "rows"), ({"rows": [5]}, "rows.0"), ({"subject": []}, "subject"), ({"machine": 5}, "machine"),
        ({"rows": [{"runtime": "t", "batch": 1, "precision": [], "images_per_s": 1}]}, "rows.0.precision"),
        *(({"rows": [{"runtime": "t", "batch": 1, "precision": None, "images_per_s": speed}]}, "rows.0.images_per_s")
          for speed in ("9", 0, -1, float("nan"), float("inf"), True, [])),
    ],
)  # fmt: skip
def test_a_baseline_whose_parts_are_not_as_they_must_be_is_refused(changes, at, tmp_path):
    file = tmp_path / "before.json"
    file.write_text(json.dumps(document(**changes)))
    with pytest.raises(BenchError, match="damaged") as caught:
        gates.read_baseline(file, "inference")
    assert caught.value.facts["at"] == at


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_a_baseline_that_is_nested_too_deep_is_refused(text, tmp_path):
    (tmp_path / "before.json").write_text(text)
    with pytest.raises(BenchError, match="not JSON"):
        gates.read_baseline(tmp_path / "before.json", "align")
