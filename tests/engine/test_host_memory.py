"""Memory that a step frees serves the next one."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from ctnet.engine.host_memory import keep_freed_memory

if "keep" in sys.argv and not keep_freed_memory():
    sys.exit(77)
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(64 << 20, np.uint8)
before = faults()
for _ in range(5):
    np.ones(64 << 20, np.uint8)
print(faults() - before)
"""


def page_faults(*words):
    done = subprocess.run([sys.executable, "-c", FAULTS, *words], capture_output=True, text=True, timeout=60)
    if done.returncode == 77:
        pytest.skip("this C library has no mallopt")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_freed_memory_is_not_mapped_again():
    kept = page_faults("keep")
    assert kept < 1000, "five times 64 MB of pages"
    assert page_faults() > 2 * kept, "without it there are faults to save"
