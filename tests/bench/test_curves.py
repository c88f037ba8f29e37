"""Loss curves against each other, on numbers that can be checked by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ctnet.bench.curves import Alignment, Inputs, Run, align_document, recorded_run, require_same_inputs
from ctnet.bench.curves_plot import loss_plot
from ctnet.config import Recipe
from ctnet.data.canvas import PALETTE
from ctnet.errors import BenchError, ConfigError

SUBJECT = {"recipe": "demo", "image_size": [96, 64]}
MACHINE = {"versions": {"torch": "2.13.0", "onnxruntime": None}, "processor": "any"}


def run(*totals, device="cpu", precision="fp32", **inputs):
    losses = tuple({"loss": total, "heatmap": 2 * total, "size": 0.0} for total in totals)
    return Run(device, precision, MACHINE, Inputs(**{"weights": 5e4, "order": 7, "pixels": 99.5} | inputs), losses)


def test_errors_are_relative_to_the_first_and_count_whatever_their_sign():
    found = Alignment(run(4.0, 2.0, 1.0), run(4.0, 1.5, 1.5), tolerance=0.25)
    assert found.errors == [0.0, 0.25, 0.5]
    assert found.mean == 0.25
    assert found.passed, "the tolerance itself is allowed"
    facts = found.to_dict()
    assert facts["bias"] == pytest.approx((0 - 0.25 + 0.5) / 3)
    assert (facts["largest_relative_error"], facts["largest_at"], facts["parts_at"]) == (0.5, 3, 3)
    assert facts["of_parts"] == {"heatmap": 0.25, "size": 0.0}
    found.require()


def test_a_loss_that_is_always_lower_does_not_pass():
    found = Alignment(run(4.0, 2.0), run(3.0, 1.0), tolerance=0.3)
    assert found.to_dict()["bias"] == -0.375
    with pytest.raises(BenchError, match=r"mean relative error 0\.38 over 2 steps") as caught:
        found.require()
    assert caught.value.facts["first_above"] == "step 2: 2 on cpu fp32, 1 on cpu fp32"
    assert caught.value.facts["largest"] == "0.5 at step 2"


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (
            run(2.0, 2.0, device="npu:1"),
            "forward pass of an operator differs; python -m ctnet.devices.conformance --device npu finds it",
        ),
        (run(1.0, 9.0, device="npu:1"), "forward passes agree: compare gradients"),
        (run(2.0, 2.0, precision="bf16"), "--precision fp32"),
    ],
    ids=["at once", "later", "other precision"],
)
def test_where_they_part_says_where_to_look(second, words):
    with pytest.raises(BenchError) as caught:
        Alignment(run(1.0, 1.0), second, tolerance=0.1).require()
    assert words in caught.value.hint


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"order": 8}, "different images"),
        ({"weights": 5.0001e4}, "different weights"),
        ({"pixels": 99.7}, "differently augmented"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_runs_of_something_else_are_not_compared(changed, words):
    require_same_inputs(run(1.0), run(2.0, weights=5e4 * (1 + 1e-7), pixels=99.51))
    with pytest.raises(BenchError, match=words):
        require_same_inputs(run(1.0), run(1.0, **changed))


def test_a_document_gives_the_run_back(tmp_path):
    first, file = run(3.0, 2.5, device="cuda:0"), tmp_path / "cuda.json"
    document = align_document(SUBJECT, {}, Recipe(seed=11), [0.1, 0.2], [first], None)
    recipe, again = recorded_run(json.loads(json.dumps(document)), file)
    assert recipe == Recipe(seed=11)
    assert again == replace(first, recorded=True)
    assert again.label == "cuda:0 fp32 (recorded)"
    assert [(row["step"], row["lr"], row["relative_error"]) for row in document["rows"]] == [
        (1, 0.1, None),
        (2, 0.2, None),
    ]


DAMAGE = {
    "no runs": lambda d: d.pop("runs"),
    "no steps": lambda d: d["rows"].clear(),
    "a step without its total": lambda d: d["rows"][1]["first"].pop("loss"),
    "a part that comes and goes": lambda d: d["rows"][1]["first"].pop("size"),
    "a loss that is no number": lambda d: d["rows"][1]["first"].update(loss=float("nan")),
    "a word for a number": lambda d: d["rows"][0]["first"].update(loss="much"),
    "inputs that are none": lambda d: d["runs"]["first"].update(inputs=[1, 2, 3]),
    "no versions": lambda d: d["runs"]["first"]["machine"].clear(),
    "no recipe": lambda d: d.pop("recipe"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_document_is_refused_by_name(damage, tmp_path):
    document = align_document(SUBJECT, {}, Recipe(), [0.1, 0.2], [run(3.0, 2.0)], None)
    damage(document)
    with pytest.raises(BenchError, match="damaged") as caught:
        recorded_run(document, tmp_path / "old.json")
    assert caught.value.facts["file"].endswith("old.json")


def test_a_setting_of_another_version_is_named(tmp_path):
    document = align_document(SUBJECT, {}, Recipe(), [0.1], [run(3.0)], None)
    document["recipe"]["train"]["batchsize"] = 4
    with pytest.raises(ConfigError, match="unknown setting"):
        recorded_run(document, tmp_path / "old.json")


def rows_of(image, color, columns=slice(78, 600)):
    """Return the rows of the plot's panels where many pixels have nearly a colour: edges are softened."""
    return np.flatnonzero((np.abs(image[:, columns] - np.array(color, float)).max(-1) < 70).sum(1) > 100)


def test_the_image_shows_a_difference_where_it_is():
    one, two = run(*[8.0] * 40), run(*[8.0] * 20, *[4.0] * 20)
    image = loss_plot(SUBJECT, [one, two], Alignment(one, two, 0.05))
    left, right = slice(90, 300), slice(380, 590)
    assert len(rows_of(image, PALETTE[0], left)) > 0
    assert np.ptp(rows_of(image, PALETTE[0], right)) < 6, "the first stays"
    fall = rows_of(image[:340], PALETTE[1], right).mean() - rows_of(image, PALETTE[0], right).mean()
    # on the logarithmic axis from 2 to 10, a loss that halves falls by log 2 / log 5 of the panel
    assert fall == pytest.approx(np.log(2) / np.log(5) * (330 - 46), abs=3)
    assert len(rows_of(image[340:], PALETTE[3], right)) > 0, "the tolerance"
    assert image.shape[0] > loss_plot(SUBJECT, [one], None).shape[0]


@pytest.mark.parametrize("totals", [(0.0, 0.0), (3.0,), (1e-9, 1e12)], ids=str)
def test_any_curve_can_be_drawn(totals):
    one = run(*totals)
    assert loss_plot(SUBJECT, [one, one], Alignment(one, one, 0.05)).std() > 0
