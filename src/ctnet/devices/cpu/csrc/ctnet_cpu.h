/* The C interface of ctnet's kernels for CPUs. No torch, no Python: pointers, sizes and strides.
 *
 * Element types are numbered: 0 float32, 1 bfloat16, 2 float64. Strides count elements. Every function that takes
 * `threads` splits its work over at most that many and returns when all is done.
 */
#pragma once

#include <stdint.h>

#if defined(_WIN32)
#define CTNET_API extern "C" __declspec(dllexport)
#else
#define CTNET_API extern "C" __attribute__((visibility("default")))
#endif

enum ctnet_type { CTNET_FLOAT32 = 0, CTNET_BFLOAT16 = 1, CTNET_FLOAT64 = 2 };

/* Geometry of a deformable convolution. The map is NHWC without gaps; its channels split evenly into `groups`
 * (of the weight) and into `deform_groups` (of the offsets). Offset and mask have any strides. */
struct ctnet_deform_shape {
    int64_t images, channels, height, width;
    int64_t out_height, out_width;
    int64_t kernel_h, kernel_w;
    int64_t stride_h, stride_w;
    int64_t padding_h, padding_w;
    int64_t dilation_h, dilation_w;
    int64_t groups, deform_groups;
    int64_t offset_stride[4]; /* image, channel, row, column */
    int64_t mask_stride[4];
};

/* Geometry of square windows over NHWC maps without gaps. */
struct ctnet_window_shape {
    int64_t images, channels, height, width;
    int64_t out_height, out_width;
    int64_t kernel, stride, padding;
};

/* Boxes on the levels of a pyramid, each an NHWC map without gaps of `images` images; `sides` are the height and width of
 * one level after the other. `boxes` has six numbers of each, float64 for float64 maps, else float32: begin of the first
 * bin, side of a bin in cells, samples along it; of each first y, then x. One without samples may name any map. */
struct ctnet_roi_shape {
    int64_t rois, channels, size;
    const int64_t *sides, *image, *level;
    const void *boxes;
};

/* Best instruction set of this machine that the binary has code for, or the one selected. */
CTNET_API const char *ctnet_isa(void);
/* Select one by name; returns 0, or 1 when this machine or binary lacks it. */
CTNET_API int ctnet_select_isa(const char *name);
/* Run parallel work through `GOMP_parallel` of the OpenMP runtime that torch has loaded; null starts own threads. */
CTNET_API void ctnet_set_parallel(void *gomp_parallel);

/* The deformable convolution: `weight` (filters, C/groups, kernel_h, kernel_w) with the given strides, `bias` of
 * `filters` or null, `out` rows of `filters`, one a cell. Weight, bias and out have the map's type. */
CTNET_API int ctnet_deform_conv(const struct ctnet_deform_shape *shape, int type, const void *map, int side_type,
                                const void *offset, const void *mask, const void *weight,
                                const int64_t weight_stride[4], const void *bias, int64_t filters, void *out,
                                int threads);

/* Its gradients. `weight` and `grad_weight` lie as (filters, kernel_h, kernel_w, C/groups), `grad_out` as `out` does, all
 * without gaps and of the map's type, as `grad_map` is; `grad_offset` and `grad_mask` are of `side_type` and have the
 * strides of `grad_shape`. Cells are worked on in tiles whose columns take about `tile_bytes`; `scratch` holds
 * ctnet_deform_conv_scratch(...) bytes. Sums are taken in an order that depends on sizes and `threads` alone. */
CTNET_API int ctnet_deform_conv_backward(const struct ctnet_deform_shape *shape, int type, const void *map,
                                         int side_type, const void *offset, const void *mask, const void *weight,
                                         int64_t filters, const void *grad_out,
                                         const struct ctnet_deform_shape *grad_shape, void *grad_map,
                                         void *grad_offset, void *grad_mask, void *grad_weight, int64_t tile_bytes,
                                         void *scratch, int threads);
CTNET_API int64_t ctnet_deform_conv_scratch(const struct ctnet_deform_shape *shape, int type, int64_t filters,
                                            int64_t tile_bytes, int threads);

/* Keep the `top_k` largest local maxima (3x3, no neighbour larger) of each image of a (B,C,H,W) map of logits with the
 * given strides (image, class, row, column; the column's or the class's is 1). Order: falling logit, then rising flat
 * index. Missing ones have score 0, label 0, cell 0. */
CTNET_API int ctnet_decode_peaks(int type, const void *logits, const int64_t sizes[4], const int64_t strides[4],
                                 int64_t top_k, float *scores, int64_t *labels, int64_t *cells, int threads);

/* Greedy NMS within labels of the `n` boxes that `order` names, strongest first. `boxes` are xyxy; writes 1 in
 * `keep[i]` for survivors, i as in `boxes`, and 0 for the others of `order`. A label has no more survivors than `limit`
 * and those whose score equals the last of them; below 0 it has as many as there are. */
CTNET_API int ctnet_nms(int64_t n, const double *boxes, const double *scores, const int64_t *labels,
                        const int64_t *order, double threshold, double extra, int64_t limit, uint8_t *keep, int threads);
/* Soft-NMS of one class, scores decayed in place, NaN left as it is; gaussian if `gaussian`, else linear above the threshold. */
CTNET_API int ctnet_soft_nms(int64_t n, const double *boxes, double *scores, int gaussian, double sigma,
                             double threshold, double floor, double extra);

/* Depthwise transposed convolution, whose weight is (kernel, kernel, C), and its gradients; `grad_weight` is float64 for float64 maps, else float32. */
CTNET_API int ctnet_upsample(const struct ctnet_window_shape *shape, int type, const void *map, const void *weight,
                             void *out, int threads);
CTNET_API int ctnet_upsample_grad_map(const struct ctnet_window_shape *shape, int type, const void *grad_out,
                                      const void *weight, void *grad_map, int threads);
CTNET_API int ctnet_upsample_grad_weight(const struct ctnet_window_shape *shape, int type, const void *map,
                                         const void *grad_out, void *grad_weight, int threads);

/* Max-pooling: each window's largest value, and which of its taps that is. The gradient goes to those taps. */
CTNET_API int ctnet_max_pool(const struct ctnet_window_shape *shape, int type, const void *map, void *out,
                             uint8_t *taps, int threads);
CTNET_API int ctnet_max_pool_backward(const struct ctnet_window_shape *shape, int type, const void *grad_out,
                                      const uint8_t *taps, void *grad_map, int threads);

/* RoIAlign: `out` is (rois, channels, size, size). Its gradient is added to `sums`, which lie as the maps do and are
 * float64 for float64 gradients, else float32; their order depends on the boxes alone. */
CTNET_API int ctnet_roi_align(const struct ctnet_roi_shape *shape, int type, const void *const *maps, void *out,
                              int threads);
CTNET_API int ctnet_roi_align_backward(const struct ctnet_roi_shape *shape, int type, const void *grad_out,
                                       void *const *sums, int threads);

/* Batch normalisation by the batch's own statistics over `rows` cells of `channels`, plus `shortcut` where it is not
 * null, then a ReLU if `relu`. Vectors are of `channels`, float64 for float64 maps, else float32; `variance` is the
 * biased one. Sums are taken in an order that depends on the sizes alone. */
CTNET_API int ctnet_batch_norm(int64_t rows, int64_t channels, int type, const void *x, const void *weight,
                               const void *bias, const void *shortcut, int relu, double eps, void *out, void *mean,
                               void *variance, int threads);
/* Its gradients. `out`, what the norm returned, is read where there was a shortcut before a ReLU, and may be null
 * elsewhere; `grad_shortcut` is null where there was no shortcut. */
CTNET_API int ctnet_batch_norm_backward(int64_t rows, int64_t channels, int type, const void *grad_out, const void *x,
                                        const void *out, const void *weight, const void *bias, const void *mean,
                                        const void *variance, int relu, double eps, void *grad_x, void *grad_weight,
                                        void *grad_bias, void *grad_shortcut, int threads);
