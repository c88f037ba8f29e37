// What every instruction set provides, as a table of functions; `type` and `side_type` are chosen inside.
#pragma once

#include "ctnet_cpu.h"

namespace ctnet {

// The channels of one thread's share of a scatter, and where its products go.
struct Share {
    int64_t first, count; // cells
    int64_t low, high;    // channels
    void *dots, *off_map;
    int64_t corner_stride; // between the products with one corner and the next
};

// How the weight of a deformable convolution is packed, and what multiplying with it takes.
struct PackedSize {
    int64_t panels;     // of each group, packed one by one
    int64_t bytes;      // of all
    int64_t row_bytes;  // of a cell's columns
    int64_t sum_bytes;  // of a cell's sums with a panel
    int64_t block_rows; // cells multiplied together
};

// What the gradients of a deformable convolution take beside columns, of tiles of so many cells.
struct GradientSize {
    int64_t panels;       // of columns, of each group
    int64_t packed_bytes; // the weight, as the columns' gradient meets it
    int64_t turned_bytes; // a tile's gradient of the output, filters by cells
    int64_t sum_bytes;    // the weight's gradient
    int64_t cell_bytes;   // multiplying one cell more
    int64_t panel_bytes;  // a packed panel of a tile's columns
    int64_t block_rows;   // cells multiplied together
};

// Cells begin .. end-1 of a tile of `cells`. What is computed for them lies where the tile's lies.
struct TilePart {
    int64_t begin, end, cells;
};

struct FoundPeak {
    float logit;
    int64_t index; // class * area + row * width + column
};

// Falling logit, then rising index. A heap in this order has the weakest on top.
inline bool stronger(const FoundPeak &a, const FoundPeak &b) {
    return a.logit > b.logit || (a.logit == b.logit && a.index < b.index);
}

// Cells of a batch normalisation. `shortcut` and `grad_shortcut` may be null; `relu`: whether `out` ends in a ReLU.
struct NormRows {
    int64_t rows, channels;
    bool relu;
    const void *x, *shortcut, *grad_out;
    void *out, *grad_x, *grad_shortcut;
};

// By channel: the norm is x * scale + offset, its gradient by_grad * gradient + by_x * x + rest.
template <class W> struct NormFactors {
    const W *scale, *offset, *by_grad, *by_x, *rest;
};

// Corners of a box's samples along one axis: those of bin i are begin[i] .. begin[i + 1] - 1, each a place and a weight.
struct RoiAxis {
    const int32_t *begin;
    const int64_t *place;
    const void *weight;
};

constexpr int64_t kPooled = 64; // channels pooled at a time, which stay in registers or next to them

// A box on its map. Places along y are elements of the map; those along x are elements of a line of `columns` blocks of
// channels, which are those at the elements `column` of each row.
struct RoiBox {
    int64_t size, channels;
    RoiAxis y, x;
    const int64_t *column;
    int64_t columns;
};

constexpr int64_t kSuspects = 32; // boxes looked at together

struct Kernels {
    const char *name;
    bool (*supported)();
    void (*columns)(const ctnet_deform_shape &, int type, const void *map, int side_type, const void *offset,
                    const void *mask, int64_t first, int64_t count, void *columns);
    PackedSize (*packed_size)(const ctnet_deform_shape &, int type, int64_t filters);
    void (*pack)(const ctnet_deform_shape &, int type, const void *weight, const int64_t stride[4], int64_t filters,
                 int64_t group_and_panel, void *packed);
    void (*convolve)(const ctnet_deform_shape &, int type, const void *map, int side_type, const void *offset,
                     const void *mask, const void *packed, const void *bias, int64_t filters, int64_t first,
                     int64_t count, void *scratch, int64_t capacity, void *out);
    GradientSize (*gradient_size)(const ctnet_deform_shape &, int type, int64_t filters, int64_t cells);
    void (*pack_back)(const ctnet_deform_shape &, int type, const void *weight, int64_t filters, int64_t group_and_panel,
                      void *packed);
    void (*turn)(const ctnet_deform_shape &, int type, const void *grad_out, int64_t filters, const TilePart &part,
                 void *turned);
    void (*weight_gradient)(const ctnet_deform_shape &, int type, const void *columns, const void *turned,
                            int64_t filters, int64_t cells, int64_t group_and_panel, bool begin, void *scratch,
                            void *sums);
    void (*finish_weight)(const ctnet_deform_shape &, int type, const void *sums, int64_t filters,
                          int64_t group_and_panel, void *grad_weight);
    void (*column_gradients)(const ctnet_deform_shape &, int type, const void *grad_out, int64_t filters,
                             const TilePart &part, const void *packed, void *scratch, void *columns);
    void (*narrow_sums)(int type, const void *sums, int64_t count, void *out);
    void (*spread)(const ctnet_deform_shape &, int type, const void *map, int side_type, const void *offset, const void *mask,
                   const void *grad_columns, const Share &share, void *grad_map);
    void (*side_gradients)(const ctnet_deform_shape &, int type, int side_type, const void *offset, const void *mask,
                           int64_t first, int64_t count, const void *dots, int64_t corner_stride, int64_t parts,
                           int64_t part_stride,
                           const ctnet_deform_shape &out, void *grad_offset, void *grad_mask);
    int64_t (*peaks)(int type, const void *logits, const int64_t sizes[4], const int64_t strides[4], int64_t image,
                     int64_t first_row, int64_t last_row, int64_t top_k, FoundPeak *best);
    void (*upsample)(const ctnet_window_shape &, int type, const void *map, const void *weight, int64_t image, int64_t row,
                     void *out);
    void (*upsample_grad_map)(const ctnet_window_shape &, int type, const void *grad_out, const void *weight,
                              int64_t image, int64_t row, void *grad_map);
    void (*upsample_grad_weight)(const ctnet_window_shape &, int type, const void *map, const void *grad_out,
                                 int64_t kernel_row, void *grad_weight);
    void (*max_pool)(const ctnet_window_shape &, int type, const void *map, int64_t image, int64_t row, void *out,
                     uint8_t *taps);
    void (*max_pool_grad)(const ctnet_window_shape &, int type, const void *grad_out, const uint8_t *taps, int64_t image,
                          int64_t row, void *grad_map);
    void (*roi_pool)(int type, const RoiBox &, const void *map, void *out, void *scratch);
    void (*roi_spread)(int type, const RoiBox &, const void *grad_out, int64_t first_channel, int64_t last_channel,
                       void *sums, void *scratch);
    int64_t (*suspects)(const double *const kept[5], int64_t from, int64_t count, const double box[5], double low,
                        double extra);
    void (*norm_moments)(int type, const void *x, const void *center, int64_t rows, int64_t channels, double *sums);
    void (*norm)(int type, const NormRows &, const void *scale, const void *offset);
    void (*norm_gradient_sums)(int type, const NormRows &, const void *scale, const void *offset, const void *center,
                               double *sums);
    void (*norm_gradient)(int type, const NormRows &, const void *const factors[5]); // NormFactors
};

extern const Kernels kPlain;
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define CTNET_X86_LEVELS 1
extern const Kernels kAvx2, kAvx512, kAvx512Bf16;
#if defined(__linux__) && (__GNUC__ >= 11 || __clang_major__ >= 12)
#define CTNET_AMX_LEVEL 1 // needs the compiler's intrinsics, and the system's leave
extern const Kernels kAmx;
#endif
#endif

// The table of the instruction set that is selected, or of the best one.
const Kernels &selected_kernels();

// Calls task(context, 0) ... task(context, count-1) on at most `threads` threads.
void parallel(int threads, int64_t count, void (*task)(void *context, int64_t index), void *context);

} // namespace ctnet
