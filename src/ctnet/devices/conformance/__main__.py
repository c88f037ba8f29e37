"""`python -m ctnet.devices.conformance`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import chain
from typing import Any

from ctnet.devices.conformance.members import member_checks
from ctnet.devices.conformance.operators import operator_checks
from ctnet.devices.conformance.processes import process_checks
from ctnet.devices.conformance.result import Result, run
from ctnet.devices.conformance.training import training_checks
from ctnet.devices.registry import OpenDevice, open_device
from ctnet.errors import CtnetError
from ctnet.terminal import guarded

FAILED = 3


def results(device: OpenDevice, processes: int) -> Iterator[Result]:
    """Yield the result of every check, one by one as they are done."""
    checks = (member_checks(device), operator_checks(device), training_checks(device))
    return run(chain(*checks, process_checks(device.plugin.name, processes)))


def main() -> int:
    """Run the checks, print a table or one JSON document, and return the exit code: 0 all right, 3 something failed."""
    parser = argparse.ArgumentParser("python -m ctnet.devices.conformance", description="Check a device plug-in.")
    parser.add_argument("--device", default="cpu", metavar="NAME[:I]", help="device to check (cpu)")
    parser.add_argument("--processes", type=int, metavar="N", help="of the all-reduce (2; 1 where there is one device)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    with guarded():  # plug-ins are somebody else's
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    try:
        device = open_device(options.device)
    except CtnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    probe = device.plugin.probe()
    # one process per accelerator; processes share a CPU
    processes = options.processes or (2 if probe.count > 1 or device.torch_device.type == "cpu" else 1)
    rows = []
    for row in results(device, processes):
        rows.append(row)
        if not options.json:
            print(f"{row.outcome:<8}{row.check:<52}{row.detail}", flush=True)
    failed = [row for row in rows if row.outcome == "failed"]
    if options.json:
        print(json.dumps(_document(device, rows)))
    else:
        where = f"{device.torch_device} ({', '.join(probe.device_names) or probe.reason})"
        print(f"{len(rows) - len(failed)} of {len(rows)} checks without a fault on {where}")
    return FAILED if failed else 0


def _document(device: OpenDevice, rows: list[Result]) -> dict[str, Any]:
    probe = device.plugin.probe()
    return {
        "schema": "ctnet.conformance/1",
        "device": device.plugin.name,
        "device_names": list(probe.device_names),
        "versions": dict(probe.versions),
        "passed": not any(row.outcome == "failed" for row in rows),
        "checks": [row._asdict() for row in rows],
    }


if __name__ == "__main__":
    sys.exit(main())
