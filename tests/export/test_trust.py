"""Exported files from elsewhere: programs run only when ctnet wrote them here or the user trusts them, code never."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
import torch

import forged
from ctnet.detect.opening import load_detector
from ctnet.errors import WeightsError
from ctnet.export import pt2_format
from ctnet.export.pt2_check import check_expression, checked_copy
from ctnet.export.trust import remember, require_trusted


@pytest.fixture(scope="module")
def program(trained_like, tmp_path_factory):
    """A `.pt2` of a small network, of any batch size."""
    from ctnet.export.export import export
    from ctnet.export.formats import format_named
    from ctnet.export.options import ExportOptions
    from ctnet.weights.opening import load_network, open_weights

    weights = open_weights(trained_like("centernet_res18_lateral", "model.neck_channels=[16,16,16]"))
    network, _ = load_network(weights, "net")
    file = tmp_path_factory.mktemp("program") / "net.pt2"
    export(network, weights, format_named("pt2"), file, ExportOptions("raw", batch=2), [])
    return file


@pytest.fixture
def forgeries(program, tmp_path):
    return dict(forged.forged_programs(program, tmp_path))


def test_no_way_into_a_program_executes_anything(forgeries, tmp_path):
    """With and without trust; the last check before torch sees the file is that of its content."""
    for what, file in forgeries.items():
        for trust in (False, True):
            with pytest.raises(WeightsError) as caught:
                load_detector(file, trust=trust)
            assert caught.value.exit_code == 3
            assert ("not written this one here" in str(caught.value)) != trust, what
        assert not Path("executed").exists(), what


def test_torch_itself_executes_such_files(forgeries):
    """Else the test above would show nothing."""
    ran = set()
    for what in ("expression", "guard", "node_name", "pickled_weight", "opaque_constant", "example_inputs"):
        with contextlib.suppress(Exception):
            torch.export.load(forgeries[what]).module()(torch.zeros(2, 3, 64, 96))
        if Path("executed").exists():
            ran.add(what)
            Path("executed").unlink()
    assert {"expression", "guard", "pickled_weight", "opaque_constant", "example_inputs"} <= ran, ran


def test_a_program_runs_where_it_was_written_and_with_trust(program, ctnet, small_set, monkeypatch):
    pictures = small_set / "images" / "val"
    code, _, err = ctnet("predict", "--weights", program, pictures, "--json")
    assert code == 3
    assert "--trust" in err
    assert "ctnet export wrote" in err
    code, out, err = ctnet("predict", "--weights", program, pictures, "--json", "--trust")
    assert (code, json.loads(out)["complete"]) == (0, True), err
    for words in (("eval", "--data", small_set), ("bench", "--batch-sizes", "1", "--iterations", "1")):
        code, _, err = ctnet(words[0], "--weights", program, *words[1:])
        assert (code, "--trust" in err) == (3, True), err
    assert remember([program])
    require_trusted(program, "torch.export", trust=False)


def test_what_is_noted_is_the_content(program, tmp_path, monkeypatch):
    copy = Path(shutil.copy(program, tmp_path / "copy.pt2"))
    assert remember([copy])
    require_trusted(program, "", trust=False)
    with copy.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(WeightsError, match="not written this one"):
        require_trusted(copy, "", trust=False)
    (noted,) = (tmp_path / "home").iterdir()
    assert noted.stat().st_mode & 0o777 == 0o700
    noted.chmod(0o777)  # anybody could have noted the file there
    with pytest.raises(WeightsError, match="not written this one"):
        require_trusted(program, "", trust=False)
    assert not remember([program])
    monkeypatch.setenv("CTNET_HOME", "/proc/none")
    assert not remember([program])


def test_the_copy_that_torch_gets_is_the_network(program):
    file, text = checked_copy(program)
    assert json.loads(text)["schema"] == "ctnet.export/1"
    images = torch.randn(2, 3, 64, 96)
    ours = pt2_format.load(program, None)(images)
    theirs = torch.export.load(program).module()(images)
    for mine, other in zip(ours.values(), theirs, strict=True):
        assert torch.equal(mine, other)
    assert b"stack_trace" not in file.getvalue()
    assert str(Path(__file__).parents[2]).encode() not in program.read_bytes()  # no folders of this machine


@pytest.mark.parametrize(
    "text",
    [
        "Mul(Integer(16), Symbol('s42', positive=True, integer=True))", "2*s0 + 1", "s0 // 4 % 3 - -1", "32*s87",
        "Min(Integer(2), FloorDiv(Add(Symbol('s1'), Integer(3)), Integer(2)))", "s0 >= 2", "Pow(s0, 2)",
    ],
)  # fmt: skip
def test_expressions_of_shapes_are_read(text):
    check_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "__import__('os')", "s0.__class__", "(lambda: 1)()", "[s0]", "s0 if s0 else 1", "f'{s0}'", "9**9",
        "s0 @ s1", "exit()", "Symbol('a b')", "Symbol('s0', assumptions=exit)", "Symbol(s0)", "Integer('5')",
        "Min(*s0)", "Pow(Pow(s0, 8), 8)", "Pow(2, 10000)", "1 #", "1\n", "(1)(2)", "s0 := 1", "1" * 30, "-" * 100 + "1",
        "exit", "Min(Min)", "s0 and exit()", "__builtins__", "1e400", "True",
    ],
)  # fmt: skip
def test_anything_else_is_no_expression(text):
    with pytest.raises(ValueError, match="expression"):
        check_expression(text)


def test_onnx_has_standard_operators_and_its_numbers_within(ctnet, narrow, small_set, tmp_path):
    pytest.importorskip("onnxruntime")
    sound = tmp_path / "net.onnx"
    code, _, err = ctnet("export", "onnx", "--weights", narrow, "--out", sound, "--no-verify", "--raw")
    assert code == 0, err
    for what, file in forged.forged_onnx(sound, tmp_path):
        code, _, err = ctnet("predict", "--weights", file, small_set / "images" / "val", "--json")
        assert (code, "not one that ctnet writes" in err) == (3, True), (what, err)
    about = tmp_path / "about.onnx"
    import onnx

    model = onnx.load(sound)
    text = json.loads(next(entry.value for entry in model.metadata_props if entry.key == "ctnet"))
    for key, value in (("batch", -1), ("size", [1, 2]), ("precision", None), ("output", "x"), ("pixels", 3)):
        onnx.helper.set_model_props(model, {"ctnet": json.dumps({**text, key: value})})
        onnx.save(model, about)
        code, _, err = ctnet("predict", "--weights", about, small_set / "images" / "val", "--json")
        assert (code, "metadata" in err, key in err) == (3, True, True), err


def test_openvino_refuses_layers_of_strangers_and_numbers_that_are_not_there(ctnet, narrow, tmp_path):
    pytest.importorskip("openvino")
    sound = tmp_path / "net.xml"
    code, _, err = ctnet("export", "openvino", "--weights", narrow, "--out", sound, "--no-verify", "--raw")
    assert code == 0, err
    for _what, file in forged.forged_openvino(sound, tmp_path):
        with pytest.raises(WeightsError, match="OpenVINO cannot load"):
            load_detector(file)
