"""ctnet doctor."""

import json

import torch

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
        raise OSError("no compiled kernels: install a C++17 compiler, then ctnet-toolkit again")

    monkeypatch.setattr(native, "library", missing)
    code, out, _ = ctnet("doctor", "--json")
    kernels = json.loads(out)["devices"]["cpu"]["kernels"]
    assert code == 0
    reason = "no compiled kernels: install a C++17 compiler, then ctnet-toolkit again"
    assert kernels["deform_conv2d"] == f"reference ({reason})"


def test_a_forced_instruction_set_that_cannot_run_is_reported_not_raised(ctnet, monkeypatch):
    monkeypatch.setenv(native.ISA_VARIABLE, "sse9")
    code, out, _ = ctnet("doctor")
    assert code == 0
    assert "sse9" in out


def test_says_what_an_issue_needs_to_know(ctnet, tmp_path):
    code, out, _ = ctnet("doctor", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["schema"] == "ctnet.doctor/1"
    assert found["processor"]["cores"] >= 1
    assert found["torch"]["version"] == torch.__version__
    assert found["limits"]["open_files"]["limit"] > 0
    assert found["extras"]["npu"] == {"missing": ["torch_npu"], "install": 'pip install "ctnet-toolkit[npu]"'}
    assert {"cpu", "cuda", "npu", "sdaa"} <= set(found["devices"])
    assert found["devices"]["cpu"]["ddp_backend"] == "gloo"


def test_variables_that_change_numbers_are_told(ctnet, monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "1,2")
    code, out, _ = ctnet("doctor")
    assert code == 0
    assert "NVIDIA_TF32_OVERRIDE=0   (0 forbids TF32" in out
    assert "ASCEND_RT_VISIBLE_DEVICES=1,2" in out


def test_a_bug_report_is_a_file_to_fill_in(ctnet, tmp_path):
    file = tmp_path / "report.md"
    code, out, _ = ctnet("doctor", "--bug-report", file)
    assert code == 0
    assert str(file) in out
    text = file.read_text()
    assert text.startswith("# ctnet bug report")
    document = text.partition("```json")[2].partition("```")[0]
    assert json.loads(document)["schema"] == "ctnet.doctor/1"
    code, _, err = ctnet("doctor", "--bug-report", "/proc/nowhere/report.md")
    assert code == 4
    assert "Traceback" not in err
