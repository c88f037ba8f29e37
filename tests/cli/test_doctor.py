"""ctnet doctor."""

import json

from ctnet.devices.cpu import native


def test_says_which_kernel_runs_each_operator_and_why(ctnet):
    code, out, _ = ctnet("doctor")
    assert code == 0
    expected = native.select()
    line = next(line for line in out.splitlines() if line.split()[:1] == ["deform_conv2d"])
    assert (expected.isa or "reference") in line
    assert expected.reason in line
    assert "cuda" in out


def test_without_compiled_kernels_it_says_that_the_references_run(ctnet, monkeypatch):
    def missing():
        raise OSError("no compiled kernels: install a C++17 compiler, then ctnet again")

    monkeypatch.setattr(native, "library", missing)
    code, out, _ = ctnet("doctor", "--json")
    kernels = json.loads(out)["devices"]["cpu"]["kernels"]
    assert code == 0
    assert kernels["deform_conv2d"] == "reference (no compiled kernels: install a C++17 compiler, then ctnet again)"


def test_a_forced_instruction_set_that_cannot_run_is_reported_not_raised(ctnet, monkeypatch):
    monkeypatch.setenv(native.ISA_VARIABLE, "sse9")
    code, out, _ = ctnet("doctor")
    assert code == 0
    assert "sse9" in out
