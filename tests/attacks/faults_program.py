"""Run commands that commit each fault on purpose, and look whether the watcher sees just these."""

import os
import sys
import time
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

from attacks import running
from attacks.running import Case, run


def _hold_much() -> None:
    held = bytearray(running.MOST_BYTES + (1 << 28))
    time.sleep(len(held))


FAULTS = {
    "executed": lambda: os.system("touch $CTNET_HOSTILE"),
    "outside": lambda: Path("../../../../../outside/x").write_text(""),
    "traceback": lambda: 1 // 0,
    "crash": os.abort,
    "hang": lambda: time.sleep(1000),
    "memory": _hold_much,
    "control": lambda: print("\x1b[2J"),
    "good": lambda: print("a line\twith a tab"),
}


def main() -> int:
    wrong = 0
    for fault, act in FAULTS.items():
        with mock.patch("ctnet.cli.app.main", act):
            outcome = run(Case("watched", fault, lambda place: [], seconds=3), Path(), Path(sys.argv[1], fault))
        expected = [] if fault == "good" else [fault]
        if outcome.faults != expected:
            wrong += 1
            print(f"{fault}: seen {outcome.faults}; {outcome.text}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
