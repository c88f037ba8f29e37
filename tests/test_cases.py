"""The handed cases of the reference data: `python tests/cases_table.py` prints them all."""

import os

import pytest

from case_rules import RULES, Bench
from cases_table import judge, right_answers, run

QUICK = [
    "c01_ids_strings", "c01b_via_image_id_string", "c02b_labelbox_all_strings", "c15_integer_names",
    "c22_polygons_no_bbox", "c22b_bbox_empty_list", "c27b_lfs_picture", "y46_one_broken_each",
]  # fmt: skip
"""cases without a training"""


@pytest.fixture
def bench(tmp_path):
    here = os.getcwd()  # noqa: PTH109
    yield Bench(tmp_path, run)
    os.chdir(here)


def test_every_case_has_a_rule(shared):
    cases = set(right_answers(shared / "cases" / "README.md"))
    assert cases == set(RULES)
    assert cases <= {path.name for path in (shared / "cases").iterdir()}


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in RULES if name not in QUICK)]
)
def test_the_right_answer_is_given(shared, bench, name):
    ok, what = judge(bench, shared / "cases" / name, RULES[name])
    assert ok, what
