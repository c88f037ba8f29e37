"""What goes wrong around exported files is said in one message, and leaves no half files."""

import importlib.util
import json
from pathlib import Path

import onnx
import pytest

from ctnet.errors import WeightsError
from ctnet.export.about import KEY, read_about


@pytest.fixture
def exported(ctnet, narrow, tmp_path):
    """An unverified ONNX file of one size and batch."""
    file = tmp_path / "net.onnx"
    code, _, err = ctnet("export", "onnx", "--weights", narrow, "--out", file, "--no-verify", "--batch-size", 1)
    assert code == 0, err
    return file


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--batch-size", "0"], 2, "above 0"),
        (["--batch-size", "a,b"], 2, "above 0"),
        (["--image-size", "100"], 2, "multiple of 32"),
        (["--config", "centernet_dla34"], 3, "another network"),
    ],
)
def test_wrong_flags(flags, code, words, ctnet, narrow, tmp_path):
    got, _, err = ctnet("export", "onnx", "--weights", narrow, "--out", tmp_path / "a.onnx", *flags)
    assert (got, words in err, list(tmp_path.glob("*.onnx"))) == (code, True, []), err


def test_a_missing_package_is_named_with_the_command(ctnet, narrow, monkeypatch, exported):
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else found(name))
    for words in (("export", "onnx", "--weights", narrow), ("eval", "--weights", exported)):
        code, _, err = ctnet(*words)
        assert (code, 'pip install "ctnet-toolkit[onnx]"' in err) == (4, True), err


def test_a_folder_that_cannot_be_written(ctnet, narrow, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = ctnet("export", "onnx", "--weights", narrow, "--out", tmp_path / "file" / "net.onnx")
    assert (code, "cannot write there" in err) == (4, True), err


def test_a_file_must_be_known_again_by_its_name(ctnet, narrow, tmp_path):
    other = tmp_path / "notes.txt"
    other.write_text("kept")
    for format, out, word in (
        ("onnx", tmp_path, f"{narrow.stem}.onnx"),
        ("onnx", other, "NAME.onnx"),
        ("openvino", tmp_path / "net.onnx", "NAME.xml"),
    ):
        code, _, err = ctnet("export", format, "--weights", narrow, "--out", out)
        assert (code, word in err) == (2, True), err
    assert other.read_text() == "kept"


def test_an_interrupted_export_leaves_nothing(ctnet, narrow, monkeypatch, tmp_path):
    from ctnet.export import onnx_format

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(onnx_format, "onnx_model", stop)
    code, _, _ = ctnet("export", "onnx", "--weights", narrow, "--out", tmp_path / "net.onnx")
    assert code == 130
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == []


def test_other_sizes_than_the_graph_takes(ctnet, exported, small_set):
    annotations = small_set / "annotations" / "instances_val.json"
    content = json.loads(annotations.read_text())
    content["categories"][0]["name"] = "cup"  # a class that the file knows
    annotations.write_text(json.dumps(content))
    for flags in (("--image-size", "128"), ("--keep-res",)):
        code, _, err = ctnet("eval", "--weights", exported, "--data", small_set, *flags)
        assert (code, "one size" in err) == (2, True), err
    code, _, err = ctnet("predict", "--weights", exported, small_set / "images" / "val", "--device", "cuda")
    assert (code, "runs on the CPU" in err) == (2, True), err


def test_files_without_a_description_and_broken_ones(ctnet, exported, small_set, tmp_path):
    model = onnx.load(exported)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    (tmp_path / "cut.onnx").write_bytes(exported.read_bytes()[:5000])
    (tmp_path / "cut.pt2").write_bytes(b"PK\x03\x04 and then nothing")
    (tmp_path / "text.xml").write_text("<net>")
    for name, words in (
        ("bare.onnx", "does not say what it is"),
        ("cut.onnx", "cannot load"),
        ("cut.pt2", "has not written this one here"),
        ("text.xml", "cannot load"),
        ("absent.onnx", "no such file"),
    ):
        code, _, err = ctnet("predict", "--weights", tmp_path / name, small_set / "images" / "val")
        assert (code, words in err) == (3, True), err


def test_a_description_of_something_else():
    for text in (None, "", "nonsense", "[]", '{"schema": "other/1"}'):
        with pytest.raises(WeightsError, match="does not say what it is"):
            read_about(text, KEY)


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_a_full_disk_has_its_exit_code_and_leaves_nothing(ctnet, narrow, tmp_path, format):
    resource = pytest.importorskip("resource", reason="no limits of file sizes on this system")
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, usual[1]))  # what comes behind is refused, as by a full disk
    try:
        code, _, err = ctnet("export", format, "--weights", narrow, "--out", tmp_path / "out" / f"net.{format}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert (code, "cannot write" in err) == (4, True), err
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_in_another_precision_has_a_name_of_its_own():
    from ctnet.export.formats import format_named

    names = [format_named("onnx").new_file(Path("w.safetensors"), None, p).name for p in (None, "fp32", "fp16", "int8")]
    assert names == ["w.onnx", "w.onnx", "w-fp16.onnx", "w-int8.onnx"]
