"""Stand-ins for Ascend's tools, which exist on its machines only: `atc`, `npu-smi` and the package `ais_bench`.

They are strict about what they are given and keep a record. A made OM holds its command and the graph; `ais_bench`
computes it in onnxruntime, so that numbers mean something. Signatures are those of ais_bench/infer/interface.py in
Ascend/tools (old: `finalize`) and Ascend/msit (new: `free_resource`); tables are what `npu-smi info` printed in public.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

SMI_310P = """\
+--------------------------------------------------------------------------------------------------------+
| npu-smi 25.5.1                                   Version: 25.5.1                                       |
+-------------------------------+-----------------+------------------------------------------------------+
| NPU     Name                  | Health          | Power(W)     Temp(C)           Hugepages-Usage(page) |
| Chip    Device                | Bus-Id          | AICore(%)    Memory-Usage(MB)                        |
+===============================+=================+======================================================+
| 1       310P3                 | OK              | NA           49                0     / 0             |
| 0       0                     | 0000:01:00.0    | 0            1448 / 44278                            |
+-------------------------------+-----------------+------------------------------------------------------+
| 1       310P3                 | Warning         | NA           45                0     / 0             |
| 1       1                     | 0000:01:00.0    | 0            1511 / 43693                            |
+===============================+=================+======================================================+
+-------------------------------+-----------------+------------------------------------------------------+
| NPU     Chip                  | Process id      | Process name             | Process memory(MB)        |
+===============================+=================+======================================================+
| 1       0                     | 92833           | python3                  | 104                       |
+===============================+=================+======================================================+
"""
SMI_910B = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 24.1.1                   Version: 24.1.1                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B4               | OK            | 88.2        30                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          26838/ 32768         |
+===========================+===============+====================================================+
"""

ATC = """
import json, pathlib, sys
known = {"framework", "model", "output", "input_format", "input_shape", "out_nodes", "output_type", "precision_mode",
         "insert_op_conf", "soc_version", "log"}
flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
assert len(flags) == len(sys.argv) - 1 and set(flags) <= known, flags
with open(TOOLS / "atc.calls", "a") as record:
    record.write(json.dumps(sys.argv[1:]) + "\\n")
if flags["soc_version"] != "Ascend310P3":
    print("ATC start working now, please wait for a moment.\\n...\\nATC run failed, Please check the detail log")
    sys.exit("E10001: [PID: 7] Value [%s] for parameter [--soc_version] is invalid." % flags["soc_version"])
aipp = pathlib.Path(flags["insert_op_conf"]).read_text() if "insert_op_conf" in flags else None
graph = str(pathlib.Path(flags["model"]).resolve(strict=True))
pathlib.Path(flags["output"] + ".om").write_text(json.dumps({"flags": flags, "graph": graph, "aipp": aipp}))
print("ATC run success, welcome to the next use.")
"""

INTERFACE = """
import json
import numpy as np
import onnx
import onnxruntime
import torch
from ctnet.export.atc_graph import standard_model

RECORD = []

class InferSession:
    def __init__(self, device_id: int, model_path: str, acl_json_path: str = None, debug: bool = False, loop: int = 1):
        assert type(device_id) is int and type(model_path) is str and loop == 1
        try:
            om = json.load(open(model_path))
        except ValueError:
            raise RuntimeError("[1][ACL: invalid parameter] load model from file failed")
        flags = om["flags"]
        name, _, shape = flags["input_shape"].partition(":")
        self.shape, self.name, self.aipp = tuple(map(int, shape.split(","))), name, om["aipp"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        graph = standard_model(onnx.load(om["graph"]))
        self.session = onnxruntime.InferenceSession(graph.SerializeToString(), options)
        assert len(flags["out_nodes"].split(";")) == len(self.session.get_outputs())
        self.free = False

    def infer(self, feeds, mode="static", custom_sizes=100000NEW):
        assert not self.free and mode == "static" and type(feeds) is list and len(feeds) == 1
        (array,) = feeds
        n, c, h, w = self.shape
        assert type(array) is np.ndarray and array.flags.c_contiguous
        RECORD.append((array.shape, str(array.dtype)))
        if self.aipp:
            assert array.shape == (n, h, w, c) and array.dtype == np.uint8
            array = self.normalised(array)
        assert array.shape == self.shape and array.dtype == np.float32
        return self.session.run(None, {self.name: array})

    def normalised(self, array):
        given = dict(line.strip().split(": ") for line in self.aipp.splitlines()[1:-1])
        assert given.pop("aipp_mode") == "static" and given.pop("input_format") == "RGB888_U8"
        assert given.pop("csc_switch") == "false" and given.pop("related_input_rank") == "0"
        assert (int(given.pop("src_image_size_h")), int(given.pop("src_image_size_w"))) == array.shape[1:3]
        if given.pop("rbuv_swap_switch") == "true":
            array = array[..., ::-1]
        low, scale = ([float(given.pop(f"{k}_chn_{i}")) for i in range(3)] for k in ("min", "var_reci"))
        assert not given
        x = (array - np.array(low)) * np.array(scale)
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2), dtype=np.float32)

    def FREE(self):
        self.free = True
        RECORD.append("free")
"""


class Ascend:
    """A folder of tools that is first on PATH, and the only one of them there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tool(self, name: str, code: str) -> None:
        file = self.folder / name
        file.write_text(f"#!{sys.executable}\nfrom pathlib import Path\nTOOLS = Path({str(self.folder)!r})\n{code}")
        file.chmod(0o755)

    def add_atc(self) -> None:
        self.tool("atc", ATC)

    def add_npu_smi(self, table: str) -> None:
        self.tool("npu-smi", f"import sys\nassert sys.argv[1:] == ['info']\nprint({table!r})")

    def add_ais_bench(self, *, old: bool = False) -> None:
        package = self.folder / "ais_bench" / "infer"
        package.mkdir(parents=True)
        code = INTERFACE.replace("NEW", "" if old else ", out_array=True").replace(
            "FREE", "finalize" if old else "free_resource"
        )
        (package / "interface.py").write_text(code)
        (self.folder / "aclruntime.py").write_text("")

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "atc.calls").read_text().splitlines()]

    def record(self) -> list:
        return sys.modules["ais_bench.infer.interface"].RECORD


@pytest.fixture
def ascend(tmp_path_factory, monkeypatch) -> Ascend:
    folder = tmp_path_factory.mktemp("ascend")
    real = {Path(file).parent for file in map(shutil.which, ("atc", "npu-smi")) if file}
    usual = [entry for entry in os.environ["PATH"].split(os.pathsep) if Path(entry) not in real]
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), *usual]))
    monkeypatch.syspath_prepend(folder)
    for name in ("ais_bench", "ais_bench.infer", "ais_bench.infer.interface", "aclruntime"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield Ascend(folder)
    for name in ("ais_bench", "ais_bench.infer", "ais_bench.infer.interface", "aclruntime"):
        sys.modules.pop(name, None)
