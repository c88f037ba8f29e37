"""bf16 ONNX, which onnxruntime does not run on a processor and OpenVINO does."""

import importlib.util
import json

import onnx


def test_bf16_files_are_proven_and_run_by_openvino(ctnet, narrow, small_set, tmp_path, monkeypatch):
    file, images = tmp_path / "net.onnx", small_set / "images" / "val"
    words = ("export", "onnx", "--weights", narrow, "--out", file, "--precision", "bf16", "--raw")
    code, out, err = ctnet(*words, "--json", "--images", images)
    assert code == 0, err
    proof = json.loads(out)["verification"]
    assert proof["passed"]
    assert all(0 < output["relative"] < 0.05 for output in proof["outputs"])
    model = onnx.load(file)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 22)]
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    deform = [node for node in model.graph.node if node.op_type == "DeformConv"]
    assert {weights[node.input[1]] for node in deform} == {onnx.TensorProto.BFLOAT16}
    assert {value.type.tensor_type.elem_type for value in model.graph.input} == {onnx.TensorProto.FLOAT}
    code, out, err = ctnet("predict", "--weights", file, images, "--json", "--score", 0.1)
    assert (code, "bfloat16" in err) == (0, True), err
    assert any(image["detections"] for image in json.loads(out)["pictures"])
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "openvino" else found(name))
    for command in (words, ("predict", "--weights", file, images)):
        code, _, err = ctnet(*command)
        assert (code, 'pip install "ctnet-toolkit[openvino]"' in err) == (4, True), err
