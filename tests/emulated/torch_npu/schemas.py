"""Schemas of torch_npu's operators, word for word as its library registers them."""

SAMPLING = (
    "int[2] kernel_size, int[] stride, int[] padding, int[4] dilation=[1,1,1,1], int groups=1, "
    "int deformable_groups=1, bool modulated=True"
)
SCHEMAS = {
    "npu_deformable_conv2d": (
        f"npu_deformable_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor? bias, {SAMPLING}) "
        "-> (Tensor, Tensor)"
    ),
    "npu_deformable_conv2dbk": (
        "npu_deformable_conv2dbk(Tensor input, Tensor grad_output, Tensor offset_out, Tensor weight, Tensor offset, "
        f"{SAMPLING}) -> (Tensor, Tensor, Tensor, Tensor)"
    ),
    "npu_roi_align": (
        "npu_roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
        "int sample_num, int roi_end_mode) -> Tensor"
    ),
    "npu_roi_alignbk": (
        "npu_roi_alignbk(Tensor input, Tensor rois, int[] xdiff_shape, int pooled_width, int pooled_height, "
        "float spatial_scale, int sample_num, int? roi_end_mode=None) -> Tensor"
    ),
}
