"""What users really have, case by case: what is right, and what ctnet does now.

    python tests/cases_table.py [--only PREFIX]

Every case of the folder `cases` in the reference data is copied and goes through the command line or the Python API in
this process. A row is `ok` when what happened is one of the right answers. The last line counts the rows.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

import case_rules
from case_rules import Bench, Rule


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose names begin like this")
    options = parser.parse_args()
    shared = Path(os.environ.get("CTNET_SHARED", Path(__file__).parents[1] / ".." / "shared")).resolve()
    rows = right_answers(shared / "cases" / "README.md")
    right = count = 0
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["CTNET_HOME"] = f"{scratch}/home"
        bench = Bench(Path(scratch), run)
        for name, words in rows.items():
            if not name.startswith(options.only):
                continue
            ok, what = judge(bench, shared / "cases" / name, case_rules.RULES.get(name))
            right, count = right + ok, count + 1
            print(f"{'ok   ' if ok else 'WRONG'} {name}\n      right: {words}\n      now:   {what}", flush=True)
    print(f"{right} of {count} right")
    return 0 if right == count else 1


def judge(bench: Bench, source: Path, rule: Rule | None) -> tuple[bool, str]:
    """Return whether the case has a right answer, and what happened."""
    if rule is None:
        return False, "there is no rule for this case"
    place = bench.scratch / "case"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(source, place / source.name)
    os.chdir(place)
    try:
        ok, what = rule(bench, place / source.name)
    except Exception as error:  # a crash is what the table is there to show
        return False, f"{type(error).__name__}: {error}"
    return ok, " ".join(what.split())[:400]


def right_answers(readme: Path) -> dict[str, str]:
    """Return the right answer of each case of the first table."""
    lines = readme.read_text().partition("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:2] == "| "]
    return {
        row[0]: row[2].partition("Right answer: ")[2].partition("(got")[0] or row[2]
        for row in rows
        if row[0] != "case" and len(row) > 2
    }


def run(*arguments: object) -> tuple[int, str]:
    """Run the command line here and return its exit code and all that it printed."""
    from ctnet.cli.app import main as ctnet

    text = io.StringIO()
    before, sys.argv = sys.argv, ["ctnet", *map(str, arguments)]
    code: object = 0
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            ctnet()
    except SystemExit as leave:
        code = leave.code or 0
    finally:
        sys.argv = before
    return int(code) if isinstance(code, int) else 1, text.getvalue()


if __name__ == "__main__":
    sys.exit(main())
