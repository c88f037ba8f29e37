"""What figures were made on."""

import json

import pytest
import torch

from ctnet.bench import machine
from ctnet.devices import open_device, survey


def test_a_machine_is_described_as_json(monkeypatch):
    found = machine.describe_machine(open_device("cpu"))
    assert json.loads(json.dumps(found)) == found
    assert found["processor"]
    assert found["threads"] == torch.get_num_threads()
    assert found["instruction_sets"][0] == torch.backends.cpu.get_cpu_capability()
    assert found["versions"]["torch"].startswith(torch.__version__.partition("+")[0])
    monkeypatch.setattr(survey, "installed_version", lambda name: None)
    assert machine.describe_machine(open_device("cpu"))["versions"]["openvino"] is None


def test_the_matmul_rate_is_that_of_the_fastest_product(monkeypatch):
    products = []

    def half_a_second_at_best(call, runs):
        call()
        products.append(runs)
        return [0.9, 0.5, 0.7][:runs]

    monkeypatch.setattr(machine, "durations", half_a_second_at_best)
    rates = machine.matmul_rates({"fp32", "bf16"}, open_device("cpu"))
    assert rates == pytest.approx(dict.fromkeys(("bf16", "fp32"), 2 * 2048**3 / 0.5 / 1e9))
    assert sum(products) == 18
