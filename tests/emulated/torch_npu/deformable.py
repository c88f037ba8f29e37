"""The vendor's deformable convolution, in the vendor's layout, written apart from ctnet's.

Offsets hold all x, then all y, then the mask: (N,3*G*T,Ho,Wo). Columns are (N,C,Ho*kh,Wo*kw), which an ordinary
convolution of stride kh,kw turns into the result. Everything is computed and returned in float32.
"""

import torch
import torch.nn.functional as F

from emulation.tensor import CALLS, CardTensor, to_host


def npu_deformable_conv2d(
    input, weight, offset, bias, kernel_size, stride, padding, dilation=(1, 1, 1, 1), groups=1, deformable_groups=1,
    modulated=True,
):  # fmt: skip
    CALLS["npu_deformable_conv2d"] += 1
    _check(offset, kernel_size, stride, padding, dilation, deformable_groups, modulated)
    x, w, o = _float_hosts(input, weight, offset)
    b = None if bias is None else to_host(bias).float()
    columns = 0
    for corner in _corners(x, o, kernel_size, stride, padding, dilation, deformable_groups):
        columns = columns + corner.values * (corner.weight * corner.mask)[:, :, None]
    columns = _spread(columns, x.shape[1], kernel_size)
    result = F.conv2d(columns, w, b, stride=tuple(kernel_size), groups=groups)
    return CardTensor(result), CardTensor(columns)


def npu_deformable_conv2dbk(
    input, grad_output, offset_out, weight, offset, kernel_size, stride, padding, dilation=(1, 1, 1, 1), groups=1,
    deformable_groups=1, modulated=True,
):  # fmt: skip
    CALLS["npu_deformable_conv2dbk"] += 1
    _check(offset, kernel_size, stride, padding, dilation, deformable_groups, modulated)
    x, grad, columns, w, o = _float_hosts(input, grad_output, offset_out, weight, offset)
    grad_columns, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        grad, columns, w, [w.shape[0]], list(kernel_size), [0, 0], [1, 1], False, [0, 0], groups, [True] * 3
    )
    grad_samples = _gather(grad_columns, kernel_size, deformable_groups)
    grad_x = torch.zeros(x.shape[0], deformable_groups, x.shape[1] // deformable_groups, x[0, 0].numel())
    grad_dx = grad_dy = grad_mask = 0
    for corner in _corners(x, o, kernel_size, stride, padding, dilation, deformable_groups):
        along = (grad_samples * corner.values).sum(2)
        grad_dy = grad_dy + along * corner.slope_y * corner.mask
        grad_dx = grad_dx + along * corner.slope_x * corner.mask
        grad_mask = grad_mask + along * corner.weight
        share = grad_samples * (corner.weight * corner.mask)[:, :, None]
        grad_x.scatter_add_(3, corner.index.flatten(3), share.flatten(3))
    grad_offset = torch.stack([grad_dx, grad_dy, grad_mask], 1).reshape(o.shape)
    return tuple(CardTensor(t) for t in (grad_x.reshape(x.shape), grad_weight, grad_offset, grad_bias))


def _check(offset, kernel_size, stride, padding, dilation, deformable_groups, modulated):
    taps = kernel_size[0] * kernel_size[1]
    if not modulated or offset.shape[1] != 3 * deformable_groups * taps or taps > 2048:
        raise RuntimeError(f"deformable_conv2d: offset of {tuple(offset.shape)} for {taps} taps, {modulated=}")
    if not len(stride) == len(padding) == len(dilation) == 4:
        raise RuntimeError("deformable_conv2d: stride, padding and dilation are lists of four")


def _float_hosts(*tensors):
    for tensor in tensors:
        if not isinstance(tensor, CardTensor) or tensor.numel() == 0:
            raise RuntimeError("deformable_conv2d: tensors on the card with at least one element are expected")
    return [tensor.host.float() for tensor in tensors]


class _Corner:
    """One of the four map cells around each sample: tensors (N,G,T,Ho,Wo), with channels (N,G,C/G,T,Ho,Wo)."""

    def __init__(self, x, row, column, weight, slope_y, slope_x, mask, groups):
        height, width = x.shape[2:]
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        cell = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
        table = x.reshape(x.shape[0], groups, -1, height * width)
        self.index = cell[:, :, None].expand(-1, -1, table.shape[2], -1, -1, -1)
        read = table.gather(3, self.index.flatten(3)).reshape(self.index.shape)
        self.values = torch.where(inside[:, :, None], read, 0)  # nothing is read beside the map
        self.weight, self.slope_y, self.slope_x = weight * inside, slope_y * inside, slope_x * inside
        self.mask = mask


def _corners(x, offset, kernel_size, stride, padding, dilation, groups):
    kh, kw = kernel_size
    n, _, out_h, out_w = offset.shape
    dx, dy, mask = offset.reshape(n, 3, groups, kh * kw, out_h, out_w).unbind(1)
    tap = torch.arange(kh * kw)
    y = dy + (torch.arange(out_h) * stride[2] - padding[0])[:, None] + (tap // kw * dilation[2])[:, None, None]
    x_ = dx + (torch.arange(out_w) * stride[3] - padding[2]) + (tap % kw * dilation[3])[:, None, None]
    near = (y > -1) & (y < x.shape[2]) & (x_ > -1) & (x_ < x.shape[3])
    y, x_ = torch.where(near, y, -9), torch.where(near, x_, -9)
    top, left = y.floor(), x_.floor()
    fy, fx = y - top, x_ - left
    for down in (0, 1):
        for right in (0, 1):
            wy, wx = (fy if down else 1 - fy), (fx if right else 1 - fx)
            sy, sx = (2 * down - 1) * wx, (2 * right - 1) * wy
            yield _Corner(x, top + down, left + right, wy * wx, sy, sx, mask, groups)


def _spread(samples, channels, kernel_size):
    """Return samples (N,G,C/G,T,Ho,Wo) as columns (N,C,Ho*kh,Wo*kw)."""
    n, _, _, _, out_h, out_w = samples.shape
    split = samples.reshape(n, channels, *kernel_size, out_h, out_w).permute(0, 1, 4, 2, 5, 3)
    return split.reshape(n, channels, out_h * kernel_size[0], out_w * kernel_size[1])


def _gather(columns, kernel_size, groups):
    """Return columns as samples, the inverse of `_spread`."""
    n, channels, height, width = columns.shape
    kh, kw = kernel_size
    split = columns.reshape(n, channels, height // kh, kh, width // kw, kw).permute(0, 1, 3, 5, 2, 4)
    return split.reshape(n, groups, channels // groups, kh * kw, height // kh, width // kw)
