"""Valid files to make hostile ones of: a data set, a run of a tiny network, its weights and exports."""

import json
import os
from pathlib import Path

from attacks.running import _ran

TINY = ("centernet_mobilenetv2", "model.neck_channels=[8,8,8]", "model.head_channels=8", "data.workers=0")
EXPORTS = {"onnx": "a.onnx", "pt2": "a.pt2", "openvino": "a.xml"}


def import_everything() -> None:
    """Import what commands import, so that a forked child starts at once; no thread may run before a fork."""
    import cv2
    import onnxruntime  # noqa: F401
    import torch

    import ctnet.cli.app
    import ctnet.data.checks.check
    import ctnet.data.checks.repair
    import ctnet.engine.train
    import ctnet.eval.report
    import ctnet.export.runtime
    import ctnet.predict.pipeline
    import ctnet.weights.inspect  # noqa: F401

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def make_material(folder: Path, exports: bool = True) -> None:
    """Write the set `set/`, the run `run/`, `best.safetensors`, `a.jpg`, `a.png`, and one file of each export."""
    folder.mkdir(parents=True, exist_ok=True)
    _command(folder, "data", "demo", "--out", "set", "--images-train", "4", "--images-val", "2")
    _command(
        folder,
        "train",
        *TINY,
        "data.path=set",
        "--image-size",
        "64",
        "--batch-size",
        "2",
        "--epochs",
        "1",
        "--out",
        "run",
    )
    (folder / "best.safetensors").write_bytes((folder / "run/checkpoints/best.safetensors").read_bytes())
    for path in (*(folder / "run/checkpoints").glob("step_*"), *(folder / "run/tensorboard").glob("*")):
        path.unlink()
    image = sorted((folder / "set/images/val").iterdir())[0]
    (folder / "a.jpg").write_bytes(image.read_bytes())
    import cv2

    cv2.imwrite(str(folder / "a.png"), cv2.imread(str(image))[:40, :50])
    for name, file in EXPORTS.items() if exports else ():
        _command(folder, "export", name, "--weights", "best.safetensors", "--out", file)
    images = json.loads((folder / "set/annotations/instances_train.json").read_text())
    assert images["images"]


def _command(folder: Path, *arguments: str) -> None:
    """Run a command that must succeed, in a child."""
    import sys

    pid = os.fork()
    if not pid:
        code = 70
        try:
            os.chdir(folder)
            os.environ["CTNET_HOME"] = str(folder / "home")
            log = os.open("log.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.argv = ["ctnet", *arguments]
            code = _ran()
            sys.stdout.flush()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"{arguments}: {(folder / 'log.txt').read_text()[-2000:]}")
