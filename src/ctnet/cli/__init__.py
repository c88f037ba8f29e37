"""The command line: arguments to settings, results to text, errors to exit codes. No logic."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `ctnet`. An interrupt during the imports ends it without a traceback."""
    try:
        from ctnet.cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()
