"""Fuzz all readers, or some, for long: `cd tests && python -m fuzz --cases 200000`, or `--minutes 60`.

Prints cases, those taken, cases per second and the result for each reader; what got through is written to
`found/READER/`, for an entry in `found.py`. Ends with 1 when anything did.
"""

import argparse
import contextlib
import hashlib
import sys
import time
from pathlib import Path

import torch

from fuzz.readers import READERS, Reader
from fuzz.running import Fault, bench_for, fuzz

AT_ONCE = 500  # cases of one seed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=200_000, help="of all readers together")
    parser.add_argument("--minutes", type=float, help="instead of --cases")
    parser.add_argument("--seed", type=int, default=1, help="another one makes other cases")
    parser.add_argument("readers", nargs="*", metavar="READER", help=", ".join(reader.name for reader in READERS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [reader for reader in READERS if not given.readers or reader.name in given.readers]
    shares = sum(reader.share for reader in chosen)
    print(f"{'reader':<18}{'cases':>9}{'taken':>9}{'per s':>8}  result")
    total, faults, began = 0, 0, time.perf_counter()
    for reader in chosen:
        seconds = None if given.minutes is None else 60 * given.minutes * reader.share / shares
        cases, found = _one(reader, given.seed, -(-given.cases * reader.share // shares), seconds)
        total, faults = total + cases, faults + found
    took = time.perf_counter() - began
    print(f"{total} cases in {took:.0f} s, {total / took:.0f} a second: {faults} faults")
    return min(faults, 1)


def _one(reader: Reader, seed: int, wanted: int, seconds: float | None) -> tuple[int, int]:
    """Run a reader's cases, printing a row, and return their number and that of the faults."""
    began, messages = time.perf_counter(), {}
    with bench_for(reader) as bench:
        while bench.cases < wanted if seconds is None else time.perf_counter() - began < seconds:
            try:
                fuzz(bench, AT_ONCE if seconds is not None else min(AT_ONCE, wanted - bench.cases), seed)
            except Fault as fault:
                if _kind(fault) not in messages:
                    messages[_kind(fault)] = _keep(reader, fault.content)
            seed += 1
    rate = bench.cases / (time.perf_counter() - began)
    result = f"{len(messages)} faults" if messages else "good"
    print(f"{reader.name:<18}{bench.cases:>9}{bench.taken:>9}{rate:>8.0f}  {result}")
    for message, name in messages.items():
        print(f"    {message}\n        {name}")
    sys.stdout.flush()
    return bench.cases, len(messages)


def _kind(fault: Fault) -> str:
    """Return what tells faults apart: the error and the place it comes from."""
    error, place = fault.__cause__ or fault, ""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        place = (
            f"{code.co_filename.rpartition('ctnet/')[2]}:{trace.tb_lineno}" if "ctnet/" in code.co_filename else place
        )
        trace = trace.tb_next
    return f"{str(fault).splitlines()[0][:160]} [{place}]"


def _keep(reader: Reader, content: bytes) -> str:
    file = Path("found") / reader.name / hashlib.sha1(content, usedforsecurity=False).hexdigest()[:10]
    with contextlib.suppress(FileExistsError):
        file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return f"{file.parent.name}/{file.name}, {len(content)} bytes"


if __name__ == "__main__":
    sys.exit(main())
