"""Spoiled files of every kind; `CTNET_FUZZ=10` takes ten times as many, `python -m fuzz` any number."""

import os

import pytest

from fuzz.found import NAMES, found
from fuzz.readers import READERS
from fuzz.running import Bench, fuzz

CASES = int(21_000 * float(os.environ.get("CTNET_FUZZ", "1")))


@pytest.mark.parametrize("reader", READERS, ids=NAMES)
def test_a_spoiled_file_is_read_or_refused(reader, tmp_path):
    cases = CASES * reader.share // 1000
    bench = Bench(reader, tmp_path)
    fuzz(bench, cases)
    assert 0 < bench.taken < bench.cases, "the mutations do not reach the reader, or nothing else does"


@pytest.mark.parametrize("reader", READERS, ids=NAMES)
def test_files_that_are_spoiled_are_valid_before(reader, tmp_path):
    bench = Bench(reader, tmp_path)
    for content in bench.seeds:
        bench.read(content)


FOUND = [pytest.param(reader, content, id=f"{reader.name}: {name}") for reader, name, content in found()]


@pytest.mark.parametrize(("reader", "content"), FOUND)
def test_what_once_got_through_does_no_more(reader, content, tmp_path):
    Bench(reader, tmp_path).read(content)
