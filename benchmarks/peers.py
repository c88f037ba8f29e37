"""Other ways to compute the same: torch formulations, onnxruntime, OpenVINO. Each returns a call without arguments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Call = Callable[[], object]


def grid_sample_deform_conv(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return a 3x3 deformable convolution, padding 1, in the formulation that plain torch allows.

    Each tap is a `grid_sample` of the map; their stack is multiplied by the weight as a 1x1 convolution.
    """
    images, channels, height, width = x.shape
    count = partial(torch.arange, dtype=torch.float32, device=x.device)
    rows, columns = count(height).view(1, 1, -1, 1), count(width).view(1, 1, 1, -1)
    tap_y = count(3).repeat_interleave(3).view(1, 9, 1, 1) - 1
    tap_x = count(3).repeat(3).view(1, 9, 1, 1) - 1
    y = rows + tap_y + offset[:, 0::2].float()
    x_at = columns + tap_x + offset[:, 1::2].float()
    grid = torch.stack([(2 * x_at + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    grid = grid.reshape(images, 9 * height, width, 2).to(x.dtype)
    sampled = F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)
    sampled = sampled.reshape(images, channels, 9, height, width) * mask[:, None].to(x.dtype)
    flat = sampled.reshape(images, channels * 9, height, width)
    return F.conv2d(flat, weight.reshape(weight.shape[0], -1, 1, 1), bias)


def onnxruntime_deform_conv(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, threads: int) -> Call | None:
    """Return a call of onnxruntime's DeformConv in float32, or None without onnxruntime."""
    try:
        import onnx
        import onnxruntime
    except ImportError:
        return None
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node("DeformConv", ["x", "w", "o", "", "m"], ["y"], pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    inputs = {"x": x, "o": offset, "m": mask}
    graph = helper.make_graph(
        [node],
        "deform",
        [helper.make_tensor_value_info(name, kind, list(t.shape)) for name, t in inputs.items()],
        [helper.make_tensor_value_info("y", kind, [x.shape[0], weight.shape[0], *offset.shape[2:]])],
        [onnx.numpy_helper.from_array(weight.float().contiguous().numpy(), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), onnxruntime_options(threads))
    feeds = {name: t.float().contiguous().numpy() for name, t in inputs.items()}
    return lambda: session.run(None, feeds)[0]


def onnxruntime_roi_align(
    levels: list[Tensor], boxes: Tensor, images: Tensor, level: Tensor, strides: list[float], size: int, threads: int
) -> Call | None:
    """Return a call of onnxruntime's RoiAlign, one a level on its own boxes, put together as they came; or None."""
    try:
        import onnx
        import onnxruntime
    except ImportError:
        return None
    helper, kind, whole = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    nodes, inputs, feeds, used = [], [], {}, [i for i in range(len(levels)) if (level == i).any()]
    for i in used:
        mine = level == i
        feeds |= {f"x{i}": levels[i], f"b{i}": boxes[mine], f"n{i}": images[mine]}
        settings = {"output_height": size, "output_width": size, "sampling_ratio": 0, "spatial_scale": 1 / strides[i],
                    "coordinate_transformation_mode": "half_pixel", "mode": "avg"}  # fmt: skip
        nodes.append(helper.make_node("RoiAlign", [f"x{i}", f"b{i}", f"n{i}"], [f"y{i}"], **settings))
    feeds["order"] = torch.cat([torch.where(level == i)[0] for i in used]).argsort()
    nodes.append(helper.make_node("Concat", [f"y{i}" for i in used], ["all"], axis=0))
    nodes.append(helper.make_node("Gather", ["all", "order"], ["y"], axis=0))
    for name, tensor in feeds.items():
        inputs.append(
            helper.make_tensor_value_info(name, kind if tensor.is_floating_point() else whole, list(tensor.shape))
        )
    shape = [len(boxes), levels[0].shape[1], size, size]
    graph = helper.make_graph(nodes, "roi", inputs, [helper.make_tensor_value_info("y", kind, shape)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), onnxruntime_options(threads))
    arrays = {name: tensor.contiguous().numpy() for name, tensor in feeds.items()}
    return lambda: session.run(None, arrays)[0]


def onnxruntime_nms(boxes: Tensor, scores: Tensor, images: int, iou: float, limit: int, threads: int) -> Call | None:
    """Return a call of onnxruntime's NonMaxSuppression for boxes of `images` images, as many of each; or None."""
    try:
        import onnx
        import onnxruntime
    except ImportError:
        return None
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    feeds = {"b": boxes.reshape(images, -1, 4), "s": scores.reshape(images, 1, -1)}
    graph = helper.make_graph(
        [helper.make_node("NonMaxSuppression", ["b", "s", "m", "t"], ["y"])],
        "nms",
        [helper.make_tensor_value_info(name, kind, list(t.shape)) for name, t in feeds.items()],
        [helper.make_tensor_value_info("y", onnx.TensorProto.INT64, [None, 3])],
        [helper.make_tensor("m", onnx.TensorProto.INT64, [1], [limit]), helper.make_tensor("t", kind, [1], [iou])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), onnxruntime_options(threads))
    arrays = {name: tensor.contiguous().numpy() for name, tensor in feeds.items()}
    return lambda: session.run(None, arrays)[0]


def onnxruntime_options(threads: int) -> object:
    """Return session options with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return options


def openvino_deform_conv(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, threads: int, precision: str
) -> Call | None:
    """Return a call of OpenVINO's DeformableConvolution-8, or None without OpenVINO."""
    try:
        import openvino as ov
        from openvino import opset8
    except ImportError:
        return None
    tensors = [t.float().contiguous().numpy() for t in (x, offset, weight, mask)]
    names = [opset8.parameter(t.shape, np.float32) for t in tensors]
    node = opset8.deformable_convolution(
        names[0], names[1], opset8.constant(tensors[2]), [1, 1], [1, 1], [1, 1], [1, 1], mask=names[3],
        bilinear_interpolation_pad=True,
    )  # fmt: skip
    model = ov.Model([node], [names[0], names[1], names[3]], "deform")
    return openvino_call(model, [tensors[0], tensors[1], tensors[3]], threads, precision)


def openvino_call(model: object, inputs: list[np.ndarray], threads: int, precision: str) -> Call:
    """Return a call of a compiled OpenVINO model on fixed inputs; `precision` is f32 or bf16."""
    import openvino as ov

    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer(inputs)[0]
