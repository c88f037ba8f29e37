"""Names and lists of the command line, and the precision that each runtime is opened in."""

import pytest
import torch

from ctnet.bench.runtimes import DEFAULT_RUNTIMES, RUNTIMES, format_for, parse_counts, parse_runtimes, precision_for
from ctnet.bench.runtimes import runtime_of as runtime_of_format
from ctnet.devices import open_device
from ctnet.errors import ConfigError
from ctnet.export.formats import FORMATS


def test_every_exported_format_has_a_runtime():
    here = [format for format in FORMATS if format.name != "om"]  # made by a tool and run on a card: --weights FILE.om
    assert {runtime_of_format(format) for format in here} == {name for name, f in RUNTIMES.items() if f}
    assert set(DEFAULT_RUNTIMES) < set(RUNTIMES)
    assert format_for("torch") is None


def test_lists_are_split_stripped_and_each_entry_kept_once():
    assert parse_runtimes("openvino, torch,openvino") == ("openvino", "torch")
    assert parse_counts("8,1,8, 2", "--batch-sizes") == (1, 2, 8)
    assert parse_counts("0,2", "--workers", least=0) == (0, 2)


@pytest.mark.parametrize("text", ["", ",", "0", "a,b", "1,,2", "-1", "1.5", "1;2", "1,0"])
def test_wrong_batch_sizes_are_refused(text):
    with pytest.raises(ConfigError, match="--batch-sizes"):
        parse_counts(text, "--batch-sizes")


def test_an_unknown_runtime_is_answered_with_the_nearest():
    with pytest.raises(ConfigError) as caught:
        parse_runtimes("torch,onxruntime")
    assert caught.value.facts["nearest"] == "onnxruntime"
    with pytest.raises(ConfigError, match="--runtimes"):
        parse_runtimes("torch,")


@pytest.mark.parametrize("fast", [torch.bfloat16, None])
def test_auto_takes_what_is_fast_here_where_the_runtime_has_it(fast, monkeypatch):
    device = open_device("cpu")
    monkeypatch.setattr(device.plugin, "fast_dtype", lambda: (fast, "a test says so"))
    assert precision_for("openvino", "auto", device) == ("bf16" if fast else "fp32")
    assert precision_for("onnxruntime", "auto", device) == "fp32"
    assert precision_for("torch", "auto", device) == "auto", "the device chooses by itself"
    assert precision_for("onnxruntime", "bf16", device) == "bf16", "an explicit choice is refused later, not changed"
