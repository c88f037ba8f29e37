"""The table of operators: whole, read by the conformance suite, and the only source of names."""

import pytest
import torch

from ctnet.devices import cpu, open_device
from ctnet.devices.conformance import operators as conformance
from ctnet.devices.conformance.result import Nonconforming
from ctnet.devices.torch_device import register
from ctnet.ops.table import OPERATORS, REQUIRED


def test_every_declared_operator_has_a_row_and_a_kernel_of_the_cpu():
    declared = {name.removeprefix("ctnet::") for name in torch._C._dispatch_get_all_op_names() if "ctnet::" in name}
    assert set(OPERATORS) == {name.partition(".")[0] for name in declared}
    assert set(cpu.KERNELS) == set(OPERATORS)
    assert set(REQUIRED) == {name for name, row in OPERATORS.items() if not row.fused}


def test_the_conformance_suite_has_cases_of_every_operator():
    covered = {operator for operator, *_ in conformance._cases(())}
    assert covered | {f"{name}_backward" for name in covered} >= set(OPERATORS)


def test_a_tolerance_of_the_table_is_what_the_suite_checks_against(monkeypatch):
    device = open_device("cpu")
    check = dict(conformance.operator_checks(device))["soft_nms, 90 boxes"]
    assert float(check()) < 1e-5
    monkeypatch.setitem(OPERATORS["soft_nms"].tolerances, torch.float32, -1.0)
    with pytest.raises(Nonconforming, match="is allowed"):
        check()


def test_a_kernel_of_an_unknown_operator_is_refused():
    with pytest.raises(RuntimeError, match="ctnet has no operator deform_conv3d"):
        register("CPU", {"deform_conv3d": lambda: None})
