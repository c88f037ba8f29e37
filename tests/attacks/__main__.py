"""Hostile files of every kind through the command line: `cd tests && python -m attacks`.

Prints, for each family, how many inputs there were and how many executed code, wrote outside of their folder, ended
with a traceback or by a signal, hung for 10 s, held more than 2 GB, or sent control characters to the terminal. Ends
with 1 unless all these counts are 0.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before torch: a pool of threads does not survive a fork
os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")

from attacks.cases import every_case  # noqa: E402
from attacks.material import import_everything, make_material  # noqa: E402
from attacks.running import FAULTS, Outcome, run  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="TEXT", action="append", help="cases whose family/name contains this")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each Nth case")
    parser.add_argument("--material", type=Path, metavar="DIR", help="keep the valid files here, or find them")
    parser.add_argument("--show", action="store_true", help="print what each case said")
    given = parser.parse_args()
    import_everything()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ctnet-attacks-") as folder:
        material = (given.material or Path(folder, "material")).absolute()
        if not (material / "a.xml").exists():
            make_material(material)
        cases = [
            c for c in every_case() if not given.only or any(text in f"{c.family}/{c.name}" for text in given.only)
        ]
        outcomes = []
        for number, case in enumerate(cases[:: given.every]):
            outcome = run(case, material, Path(folder, f"case-{number}"))
            outcomes.append(outcome)
            if outcome.faults or given.show:
                _print(outcome)
    _print_table(outcomes)
    print(f"{len(outcomes)} inputs in {time.monotonic() - began:.0f} s")
    return int(any(outcome.faults for outcome in outcomes))


def _print(outcome: Outcome) -> None:
    last = [line for line in outcome.text.splitlines() if line.strip() and "This is a bug" not in line][
        -6 if not outcome.faults else -1 :
    ]
    print(
        f"{outcome.case.family}/{outcome.case.name}: {', '.join(outcome.faults) or 'good'}; exit {outcome.code}, "
        f"{outcome.seconds:.1f} s, {outcome.bytes >> 20} MB: {ascii(' | '.join(last))[:400]}", flush=True,
    )  # fmt: skip


def _print_table(outcomes: list[Outcome]) -> None:
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        for family in (outcome.case.family, "all"):
            rows[family].update(["inputs", f"exit {outcome.code}", *outcome.faults])
    print(f"\n{'family':<22}{'inputs':>8}" + "".join(f"{name:>11}" for name in FAULTS))
    for family, counts in sorted(rows.items(), key=lambda row: (row[0] == "all", row[0])):
        print(f"{family:<22}{counts['inputs']:>8}" + "".join(f"{counts[name]:>11}" for name in FAULTS))
    print(
        "exit codes:",
        ", ".join(f"{name[5:]}: {n}" for name, n in sorted(rows["all"].items()) if name.startswith("exit ")),
    )


if __name__ == "__main__":
    sys.exit(main())
