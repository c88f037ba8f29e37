"""Every reader of files: valid files to begin with, the ways to spoil them, and the call that reads one."""

import contextlib
import io
import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ctnet.bench import curves, gates
from ctnet.cli.arguments import parse_image_size
from ctnet.config import load_recipe
from ctnet.config.load import to_yaml
from ctnet.config.schema import Recipe
from ctnet.data.checks import check, repair
from ctnet.data.checks.usable import check_usable
from ctnet.data.dataset import open_dataset
from ctnet.data.image_size import read_image_size
from ctnet.engine import run_folder
from ctnet.engine.record import Record
from ctnet.engine.report import RunLog, Silence
from ctnet.engine.train import _read_summary
from ctnet.errors import CtnetError, DataError, WeightsError
from ctnet.eval import widerface
from ctnet.export.about import KEY, About, read_about
from ctnet.export.pt2_format import ExportedProgram
from ctnet.types import Category
from ctnet.weights.containers import read_container
from ctnet.weights.ctnet_file import Weights, is_own, metadata_of, own_weights, read_state, save_weights
from ctnet.weights.foreign import foreign_weights, read_foreign
from fuzz import mutations
from fuzz.mutations import Mutation
from widerfaces import small_truth


@dataclass(frozen=True)
class Reader:
    """`seeds` makes valid files, `mutate` spoils one in one place, and `read(file)` reads it.

    `share` is how many of a thousand cases of all are this reader's. `file` is where in an empty folder the content
    goes, whose other files `around` puts there once.
    """

    name: str
    seeds: Callable[[], list[bytes]]
    mutate: Mutation
    read: Callable[[Path], Any]
    file: str
    share: int = 40
    around: Callable[[Path], None] = lambda folder: None


def image(suffix: str, *options: int, sides: tuple[int, int] = (9, 12)) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 255, (*sides, 3), np.uint8)
    return bytes(cv2.imencode(suffix, pixels, list(options))[1])


def exif(orientation: int, order: str = "II") -> bytes:
    """Return a JPEG segment that turns the image."""
    number = "little" if order == "II" else "big"
    entry = b"".join(v.to_bytes(n, number) for v, n in ((0x0112, 2), (3, 2), (1, 4), (orientation, 2), (0, 2)))
    start = order.encode() + (42).to_bytes(2, number) + (8).to_bytes(4, number) + (1).to_bytes(2, number)
    body = b"Exif\0\0" + start + entry + bytes(4)
    return b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body


def _jpegs() -> list[bytes]:
    plain = image(".jpg")
    return [plain, *(plain[:2] + exif(n, order) + plain[2:] for n, order in ((6, "II"), (8, "MM"), (1, "II")))]


def _pngs() -> list[bytes]:
    plain = image(".png")
    tiff = exif(6)[10:]
    with_exif = plain[:33] + len(tiff).to_bytes(4, "big") + b"eXIf" + tiff + bytes(4) + plain[33:]
    return [plain, with_exif, image(".png", cv2.IMWRITE_PNG_BILEVEL, 1)]


def _other_images() -> list[bytes]:
    return [image(suffix) for suffix in (".bmp", ".webp", ".tiff", ".ppm")]


COCO = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": 12, "height": 9},
        {"id": 5, "file_name": "b.png", "width": 12, "height": 9},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3.5, 4], "area": 14.0, "iscrowd": 0},
        {"id": 2, "image_id": 5, "category_id": 7, "bbox": [0, 0, 12, 9], "segmentation": [[1, 1, 2, 2, 3, 1]]},
    ],
    "categories": [{"id": 2, "name": "cat"}, {"id": 7, "name": "dog"}],
}


POINTED = {
    **COCO,
    "annotations": [{**COCO["annotations"][0], "keypoints": [2, 3, 2, 4, 5, 1, 0, 0, 0], "num_keypoints": 2}],
    "categories": [
        {**COCO["categories"][0], "keypoints": ["nose", "left_eye", "right_eye"], "skeleton": [[1, 2], [1, 3]]},
        {**COCO["categories"][1], "keypoints": ["nose", "left_eye", "right_eye"], "sigmas": [0.1, 0.2, 0.3]},
    ],
}


def _put_images(folder: Path) -> None:
    for name in ("a.png", "b.png", "images/a.png", "JPEGImages/a.png"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(image(".png"))


def _read_set(path: Path, split: str = "train") -> None:
    """Read a data set as training does, and look it over as `ctnet data check` does."""
    try:
        check_usable(open_dataset(path, split))
    except DataError:
        json.dumps(check.check(path, images=False).to_dict())
        raise


def _read_coco(path: Path) -> None:
    repaired = path.with_name("repaired.json")
    repaired.unlink(missing_ok=True)
    try:
        _read_set(path)
    except DataError:
        repair.fix(path, repaired)
        open_dataset(repaired, "train")


VOC = (
    b"<annotation><folder>x</folder><filename>a.png</filename><size><width>12</width><height>9</height><depth>3</depth>"
    b"</size><object><name>cat</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>8</xmax>"
    b"<ymax>7</ymax></bndbox></object><object><name>dog</name><bndbox><xmin>1.5</xmin><ymin>2</ymin><xmax>3</xmax>"
    b"<ymax>4</ymax></bndbox></object></annotation>"
)


def _voc_around(folder: Path) -> None:
    _put_images(folder)
    (folder / "Annotations").mkdir()
    (folder / "Annotations" / "a.xml").write_bytes(VOC)


def _voc_list_around(folder: Path) -> None:
    _voc_around(folder)
    (folder / "ImageSets" / "Main").mkdir(parents=True)


def _yolo_around(folder: Path) -> None:
    _put_images(folder)
    (folder / "labels").mkdir()
    (folder / "labels" / "a.txt").write_text("0 .5 .5 .2 .2\n")
    (folder / "list.txt").write_text("images/a.png\n")
    (folder / "data.yaml").write_text("train: images\nval: list.txt\nnames: [cat, dog]\n")
    (folder / "coco.json").write_text(json.dumps(COCO))


def _tensors() -> dict[str, torch.Tensor]:
    return {
        "a.weight": torch.arange(6.0).reshape(2, 3),
        "b": torch.zeros(0, 4),
        "n": torch.tensor(5),
        "h": torch.ones(3).half(),
    }


def saved(content: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def _checkpoint() -> dict[str, Any]:
    return {"epoch": 3, "state_dict": _tensors(), "meta": {"CLASSES": ("cat", "dog"), "lr": 0.1, "time": "now"}}


def _zips() -> list[bytes]:
    arrays = {"epoch": np.int64(3), "state_dict": {"w": np.ones((2, 3), np.float32)}}
    return [saved(_checkpoint()), saved(_tensors()), saved(arrays), saved(_checkpoint(), pickle_protocol=4)]


def _legacies() -> list[bytes]:
    return [saved(c, _use_new_zipfile_serialization=False) for c in (_checkpoint(), _tensors())]


def _pickles() -> list[bytes]:
    arrays = {"model": {"w": np.ones((2, 3), np.float32), "b": np.arange(4)}, "__author__": "someone"}
    return [pickle.dumps(arrays, protocol=p) for p in (0, 1, 2, 3, 4, 5)]


def _onnxes() -> list[bytes]:
    import onnx
    from onnx import helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, n, 4, 4]) for name, n in (("x", 3), ("y", 2))
    ]
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1], strides=[1, 1])
    graph = helper.make_graph([node], "g", values[:1], values[1:], [weight])
    return [helper.make_model(graph).SerializeToString()]


def _mindspores() -> list[bytes]:
    def value(tag: str, kind: str, dims: list[int], content: bytes) -> bytes:
        sizes = b"".join(b"\x08" + bytes([d]) for d in dims)
        tensor = sizes + b"\x12" + bytes([len(kind)]) + kind.encode() + b"\x1a" + bytes([len(content)]) + content
        body = b"\x0a" + bytes([len(tag)]) + tag.encode() + b"\x12" + bytes([len(tensor)]) + tensor
        return b"\x0a" + bytes([len(body)]) + body

    floats = np.arange(6, dtype="<f4").tobytes()
    return [
        value("a.weight", "Float32", [2, 3], floats) + value("n", "Int64", [0], bytes(8)),
        value("b", "Bool", [2], b"\1\0"),
    ]


@cache
def _weights() -> Weights:
    recipe = load_recipe("centernet_res18_lateral").recipe
    return Weights(_tensors(), recipe, (Category(1, "cat"), Category(7, "dog")), {"step": 5, "metrics": {"AP": 0.5}})


def _safetensors() -> list[bytes]:
    import tempfile

    from safetensors.torch import save

    with tempfile.TemporaryDirectory() as folder:
        save_weights(Path(folder, "a"), _weights())
        return [Path(folder, "a").read_bytes(), save(_tensors(), {"by": "someone"})]


def _abouts() -> list[bytes]:
    about = About(_weights().recipe, _weights().categories, "decoded", 2, (64, 96), info={"step": 5})
    return [about.to_json().encode(), About(Recipe(), (), "raw").to_json().encode()]


@cache
def _states() -> list[bytes]:
    about = {
        "schema": "ctnet.state/1",
        **metadata_of(_weights()),
        "data": "/data",
        "world_size": 1,
        "step": 9,
        "evaluation_due": False,
    }
    state = {
        "best": {"AP": 0.5},
        "model": _tensors(),
        "ema": {},
        "ema_updates": 0,
        "optimizer": {"state": {}},
        "scaler": {},
    }
    random = {"torch": torch.get_rng_state()[:16], "numpy": ["MT19937", [1, 2], 3, 0, 0.0], "python": [3, [1], None]}
    return [saved({**about, **state, "rng": random})]


def _read_weights(path: Path) -> None:
    container = read_container(path)
    with contextlib.suppress(WeightsError):  # the tensors of these files are of no network
        own_weights(container, path) if is_own(container) else foreign_weights(read_foreign(container, path), path)


def _read_last(path: Path) -> None:
    read_state(path)
    _read_weights(path)


class _Scaled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        return (images.flatten(1).sum(1) * self.weight.sum(),)


@cache
def _programs() -> list[bytes]:
    """Return a program of torch for a batch of any size."""
    shapes = ({0: torch.export.Dim("batch", max=8)},)
    program = torch.export.export(_Scaled(), (torch.zeros(2, 3, 4, 4),), dynamic_shapes=shapes)
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={KEY: _abouts()[0].decode()})
    return [content.getvalue()]


def _program_part(content: bytes, choices: mutations.Choices) -> bytes:
    return mutations.json_tree(content, choices) if content[:1] == b"{" else mutations.mutate_bytes(content, choices)


BASELINE = {
    "schema": "ctnet.bench/1",
    "kind": "inference",
    "subject": {"recipe": "a", "image_size": [64, 64], "classes": 2},
    "settings": {"warmup": 1},
    "machine": {"processor": "x", "cores": 2, "device": "cpu"},
    "rows": [
        {"runtime": "torch", "batch": 1, "precision": "fp32", "images_per_s": 10.5, "latency_ms": {"p50": 1.0}},
        {"runtime": "onnx", "batch": 8, "precision": None, "images_per_s": None, "failure": "no"},
    ],
}


def _read_baseline(path: Path) -> None:
    baseline = gates.read_baseline(path, "inference")
    gates.require_same_subject(baseline, BASELINE["subject"])
    gates.other_machine(baseline, BASELINE["machine"])
    gate = gates.compare(baseline, BASELINE, 0.05)
    json.dumps(gate.to_dict())
    gate.require()


def _curves() -> list[bytes]:
    recipe = _weights().recipe
    machine = {"processor": "x", "versions": {"torch": "2.9", "ctnet": "1"}}
    run = curves.Run("cpu", "fp32", machine, curves.Inputs(0.5, 7, 99.5), ({"loss": 1.0, "heatmap": 0.5},))
    return [json.dumps(curves.align_document({"recipe": "a"}, {}, recipe, [0.1], [run], None)).encode()]


def _read_text(read: Callable[[str], Any]) -> Callable[[Path], None]:
    def from_file(path: Path) -> None:
        read(path.read_bytes().decode("utf-8", "surrogateescape"))

    return from_file


def _read_metrics(path: Path) -> None:
    record = Record(files=None)
    log = RunLog(path.parent, record, 3, ("epoch", "step", "loss"), Silence())
    record.begin_row(2, step=9, loss=0.5)
    log.epochs()
    log.close()


def _read_environment(path: Path) -> None:
    with run_folder.new_run_folder("x", path.parent):
        pass


def _read_end(path: Path) -> None:
    if _read_summary(path.parent, 6) is None:
        raise DataError("no summary of that step")


def _truths() -> list[bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return [(small_truth(Path(folder)) / widerface.GROUND_TRUTH).read_bytes()]


def _settings() -> Iterator[bytes]:
    for text in (
        "optimizer.lr=5e-4",
        "data.image_size=[64,96]",
        "model.neck_channels=[8,8,8]",
        "name=x",
        "train.amp=off",
        "evaluation.scales=[0.5,1]",
        "data.mean=[0.1,0.2,0.3]",
        "augment.scale=[0.5,1.5]",
    ):
        yield text.encode()


def _options(text: str) -> None:
    with contextlib.suppress(CtnetError):
        parse_image_size(text)
    gates.parse_max_regress(text)


def _around_run(folder: Path) -> None:
    (folder / "log.jsonl").write_text("")


YOLO_YAML = b"path: .\ntrain: images\nval: [images, list.txt]\nnames:\n  0: cat\n  1: dog\nnc: 2\n"
POINTS_YAML = YOLO_YAML + b"kpt_shape: [3, 3]\nflip_idx: [0, 2, 1]\nkpt_names: {0: [a, b, c], 1: [a, b, c]}\n"
FACES = b"a.png\n2\n1 2 5 4 0 0 0 0 0 0\n3 1 0 2 0 0 0 1 0 0\nb.png\n0\n0 0 0 0 0 0 0 0 0 0\n"
LANDMARKS = b"# a.png\n1 2 5 4 2 3 0.0 4 3 0.0 3 4 1.0 2 5 -1.0 4 5 0.0 0.8\n# b.png\n1 1 4 4\n"
SPLITS_YAML = b"train: {annotations: coco.json, images: images}\nval:\n  annotations: coco.json\n  images: .\n"
METRICS = b"epoch,step,lr,loss,heatmap,size,offset,AP\n1,3,0.1,2.5,1,1,0.5,0.2\n2,6,0.1,2,1,1,0,\n"
ENVIRONMENT = b'{"schema": "ctnet.env/1", "ctnet": "1", "data": {"train": {"sha256": "ab", "images": 3}}}'
SUMMARY = b'{"steps": 6, "epochs": 2, "best": {"AP": 0.5}, "report": null}'

READERS = (
    Reader("coco", lambda: [json.dumps(content).encode() for content in (COCO, POINTED)], mutations.json_tree,
            _read_coco, "coco.json", 80, _put_images),
    Reader("voc-xml", lambda: [VOC], mutations.xml, lambda p: _read_set(p.parents[1]), "Annotations/a.xml", 70,
            _put_images),
    Reader("voc-list", lambda: [b"a\n", b"a 1\na -1\n"], mutations.lines, lambda p: _read_set(p.parents[2]),
            "ImageSets/Main/train.txt", 25, _voc_list_around),
    Reader("yolo-labels", lambda: [b"0 .5 .5 .2 .2\n1 0.1 0.2 0.05 0.1\n"], mutations.lines,
            lambda p: _read_set(p.parents[1] / "data.yaml"), "labels/a.txt", 50, _yolo_around),
    Reader("yolo-list", lambda: [b"images/a.png\n./a.png\n"], mutations.lines,
            lambda p: _read_set(p.with_name("data.yaml"), "val"), "list.txt", 25, _yolo_around),
    Reader("data-yaml", lambda: [YOLO_YAML, POINTS_YAML, SPLITS_YAML], mutations.yaml_tree, _read_set, "data.yaml", 60,
            _yolo_around),
    Reader("wider-faces", lambda: [FACES], mutations.lines, _read_set, "wider_face_train_bbx_gt.txt", 25, _put_images),
    Reader("wider-landmarks", lambda: [LANDMARKS], mutations.lines, lambda p: _read_set(p.parents[1]),
            "train/label.txt", 25, _put_images),
    Reader("wider-truth", _truths, mutations.mutate_bytes, lambda p: widerface.read_ground_truth(p.parent),
            widerface.GROUND_TRUTH, 12, lambda folder: small_truth(folder)),
    Reader("wider-results", lambda: [b"a\n2\n1 2 3 4 0.5\n5 6 7 8.5 0.25\n"], mutations.lines,
            lambda p: widerface.read_results(p.parents[1], [("0--Parade", "a")]), "0--Parade/a.txt", 20),
    Reader("recipe", lambda: [to_yaml(_weights().recipe).encode(), b"extends: demo\nschedule: {epochs: 3}\nname: x\n"],
            mutations.yaml_tree, lambda p: to_yaml(load_recipe(str(p)).recipe), "recipe.yaml", 40),
    Reader("overrides", lambda: [*_settings()], mutations.yaml_words,
            _read_text(lambda text: to_yaml(load_recipe("demo", [text]).recipe)), "override", 30),
    Reader("options", lambda: [b"512", b"384x512", b"5%", b"0.05"], mutations.lines, _read_text(_options),
            "option", 20),
    Reader("torch-zip", _zips, mutations.zipped(mutations.pickled, ".pkl"), _read_weights, "a.pth", 80),
    Reader("torch-legacy", _legacies, mutations.pickled, _read_weights, "a.pth", 60),
    Reader("pickle", _pickles, mutations.pickled, _read_weights, "a.pkl", 70),
    Reader("onnx", _onnxes, mutations.mutate_bytes, _read_weights, "a.onnx", 60),
    Reader("mindspore", _mindspores, mutations.mutate_bytes, _read_weights, "a.ckpt", 60),
    Reader("safetensors", _safetensors, mutations.safetensors, _read_weights, "a.safetensors", 60),
    Reader("export-about", _abouts, mutations.json_tree,
            _read_text(lambda text: read_about(text, "a.onnx").to_json()), "a", 40),
    Reader("exported-program", _programs, mutations.zipped(_program_part, ".json"), ExportedProgram, "a.pt2", 4),
    Reader("jpeg", _jpegs, mutations.jpeg, read_image_size, "a.jpg", 70),
    Reader("png", _pngs, mutations.png, read_image_size, "a.png", 40),
    Reader("other-images", _other_images, mutations.mutate_bytes, read_image_size, "a.bmp", 30),
    Reader("last.pt", _states, mutations.zipped(mutations.pickled, ".pkl"), _read_last, "checkpoints/last.pt", 30),
    Reader("metrics.csv", lambda: [METRICS], mutations.csv_words, _read_metrics, "metrics.csv", 20, _around_run),
    Reader("env.json", lambda: [ENVIRONMENT], mutations.json_tree, _read_environment, "env.json", 10),
    Reader("summary.json", lambda: [SUMMARY], mutations.json_tree, _read_end, "summary.json", 10),
    Reader("bench-baseline", lambda: [json.dumps(BASELINE).encode()], mutations.json_tree, _read_baseline,
            "bench.json", 40),
    Reader("bench-curves", _curves, mutations.json_tree,
            lambda p: curves.recorded_run(gates.read_baseline(p, curves.KIND), p), "align.json", 20),
)  # fmt: skip
