// The table of one instruction set. A level_*.cpp names the target, opens a namespace and includes this.

#include "numbers.inl"

#include "product.inl"

#include "deform_conv.inl"
#include "deform_gradient.inl"
#include "nms.inl"
#include "norm.inl"
#include "peaks.inl"
#include "upsample.inl"
#include "pool.inl" // uses upsample.inl
#include "roi.inl"  // uses pool.inl

// Calls function<element type of `type`>(...).
#define CTNET_BY_TYPE(type, function, ...)                                                                             \
    switch (type) {                                                                                                    \
    case CTNET_FLOAT32: function<float>(__VA_ARGS__); break;                                                           \
    case CTNET_BFLOAT16: function<BFloat16>(__VA_ARGS__); break;                                                       \
    case CTNET_FLOAT64: function<double>(__VA_ARGS__); break;                                                          \
    }

// The types that maps and offsets come in together; callers convert offsets of any other.
#define CTNET_BY_TYPES(type, side_type, function, ...)                                                                 \
    if (type == CTNET_FLOAT32) function<float, float>(__VA_ARGS__);                                                    \
    else if (type == CTNET_FLOAT64) function<double, double>(__VA_ARGS__);                                             \
    else if (side_type == CTNET_BFLOAT16) function<BFloat16, BFloat16>(__VA_ARGS__);                                   \
    else function<BFloat16, float>(__VA_ARGS__);

template <class T, class S>
void columns_of(const ctnet_deform_shape &d, const void *map, const void *offset, const void *mask, int64_t first,
                int64_t count, void *columns) {
    const int64_t per_group = d.kernel_h * d.kernel_w * (d.channels / d.groups);
    deform_columns(d, static_cast<const T *>(map), static_cast<const S *>(offset), static_cast<const S *>(mask), first,
                   count, static_cast<T *>(columns), per_group, d.groups * per_group);
}

void columns(const ctnet_deform_shape &d, int type, const void *map, int side_type, const void *offset, const void *mask,
             int64_t first, int64_t count, void *columns) {
    CTNET_BY_TYPES(type, side_type, columns_of, d, map, offset, mask, first, count, columns)
}

template <class T> void packed_size_of(const ctnet_deform_shape &d, int64_t filters, PackedSize &size) {
    using Q = typename Multiplied<T>::Q;
    const Packing<T> p(d.kernel_h * d.kernel_w * (d.channels / d.groups), filters / d.groups);
    size = {p.panels(), d.groups * p.size() * static_cast<int64_t>(sizeof(Q)),
            d.groups * p.length * static_cast<int64_t>(sizeof(Q)),
            p.widest * static_cast<int64_t>(sizeof(typename Multiplied<T>::W)), Multiplied<T>::block_rows};
}

PackedSize packed_size(const ctnet_deform_shape &d, int type, int64_t filters) {
    PackedSize size{};
    CTNET_BY_TYPE(type, packed_size_of, d, filters, size)
    return size;
}

template <class T>
void pack_of(const ctnet_deform_shape &d, const void *weight, const int64_t stride[4], int64_t filters, int64_t index,
             void *packed) {
    const FilterWalk walk{d.channels / d.groups, d.kernel_h, d.kernel_w, stride[1], stride[2], stride[3]};
    const Packing<T> p(walk.count(), filters / d.groups);
    const int64_t group = index / p.panels();
    pack_panel(p, static_cast<const T *>(weight) + group * p.filters * stride[0], stride[0], walk, index % p.panels(),
               static_cast<typename Multiplied<T>::Q *>(packed) + group * p.size());
}

void pack(const ctnet_deform_shape &d, int type, const void *weight, const int64_t stride[4], int64_t filters,
          int64_t index, void *packed) {
    CTNET_BY_TYPE(type, pack_of, d, weight, stride, filters, index, packed)
}

template <class T, class S>
void convolve_of(const ctnet_deform_shape &d, const void *map, const void *offset, const void *mask, const void *packed,
                 const void *bias, int64_t filters, int64_t first, int64_t count, void *scratch, int64_t capacity,
                 void *out) {
    using Q = typename Multiplied<T>::Q;
    auto *sums = static_cast<typename Multiplied<T>::W *>(scratch);
    deform_convolve(d, static_cast<const T *>(map), static_cast<const S *>(offset), static_cast<const S *>(mask),
                    static_cast<const Q *>(packed), static_cast<const T *>(bias), filters, first, count, sums,
                    reinterpret_cast<Q *>(sums + capacity * Packing<T>::widest), capacity, static_cast<T *>(out));
}

void convolve(const ctnet_deform_shape &d, int type, const void *map, int side_type, const void *offset,
              const void *mask, const void *packed, const void *bias, int64_t filters, int64_t first, int64_t count,
              void *scratch, int64_t capacity, void *out) {
    const Multiplier claimed;
    CTNET_BY_TYPES(type, side_type, convolve_of, d, map, offset, mask, packed, bias, filters, first, count, scratch,
                   capacity, out)
}

template <class T> void gradient_size_of(const ctnet_deform_shape &d, int64_t filters, int64_t cells, GradientSize &size) {
    using Q = typename Multiplied<T>::Q;
    using W = typename Multiplied<T>::W;
    constexpr int64_t q = sizeof(Q), w = sizeof(W);
    const Back<T> b(d, filters, cells);
    const Packing<T> &p = b.over_filters;
    size = {p.panels(),           d.groups * p.size() * q, d.groups * b.turned() * q, d.groups * b.sums() * w,
            p.widest * w + p.length * q, b.over_cells.length * p.widest * q, Multiplied<T>::block_rows};
}

GradientSize gradient_size(const ctnet_deform_shape &d, int type, int64_t filters, int64_t cells) {
    GradientSize size{};
    CTNET_BY_TYPE(type, gradient_size_of, d, filters, cells, size)
    return size;
}

template <class T>
void pack_back_of(const ctnet_deform_shape &d, const void *weight, int64_t filters, int64_t index, void *packed) {
    const Back<T> b(d, filters, 1);
    const Packing<T> &p = b.over_filters;
    const int64_t group = index / p.panels(), panel = index % p.panels();
    pack_rows(p, static_cast<const T *>(weight) + group * b.filters * p.filters, p.filters, b.filters, panel,
              static_cast<typename Multiplied<T>::Q *>(packed) + group * p.size() + panel * p.widest * p.length);
}

void pack_back(const ctnet_deform_shape &d, int type, const void *weight, int64_t filters, int64_t index, void *packed) {
    CTNET_BY_TYPE(type, pack_back_of, d, weight, filters, index, packed)
}

template <class T>
void turn_of(const ctnet_deform_shape &d, const void *grad_out, int64_t filters, const TilePart &part, void *turned) {
    const Back<T> b(d, filters, part.cells);
    const int64_t length = b.over_cells.length;
    for (int64_t group = 0; group < d.groups; ++group) {
        auto *to = static_cast<typename Multiplied<T>::Q *>(turned) + group * b.turned();
        turn(static_cast<const T *>(grad_out) + part.begin * filters + group * b.filters, filters, b.filters,
             part.end - part.begin, to + part.begin, length);
        if (part.end == part.cells)
            for (int64_t filter = 0; filter < b.filters; ++filter)
                std::memset(static_cast<void *>(to + filter * length + part.end), 0, (length - part.end) * sizeof *to);
    }
}

void turn_by_type(const ctnet_deform_shape &d, int type, const void *grad_out, int64_t filters, const TilePart &part,
                  void *turned) {
    CTNET_BY_TYPE(type, turn_of, d, grad_out, filters, part, turned)
}

template <class T>
void weight_gradient_of(const ctnet_deform_shape &d, const void *columns, const void *turned, int64_t filters,
                        int64_t cells, int64_t index, bool begin, void *scratch, void *sums) {
    using Q = typename Multiplied<T>::Q;
    const Back<T> b(d, filters, cells);
    const Packing<T> &p = b.over_cells;
    const int64_t group = index / p.panels(), panel = index % p.panels();
    auto *packed = static_cast<Q *>(scratch);
    pack_rows(p, static_cast<const T *>(columns) + group * p.filters, d.groups * p.filters, cells, panel, packed);
    add_panel(p, p.width(panel), static_cast<const Q *>(turned) + group * b.turned(), b.filters, packed,
              static_cast<typename Multiplied<T>::W *>(sums) + group * b.sums() +
                  panel * p.widest * b.blocks_of(b.filters),
              begin);
}

void weight_gradient(const ctnet_deform_shape &d, int type, const void *columns, const void *turned, int64_t filters,
                     int64_t cells, int64_t index, bool begin, void *scratch, void *sums) {
    const Multiplier claimed;
    CTNET_BY_TYPE(type, weight_gradient_of, d, columns, turned, filters, cells, index, begin, scratch, sums)
}

template <class T>
void finish_weight_of(const ctnet_deform_shape &d, const void *sums, int64_t filters, int64_t index, void *grad_weight) {
    const Back<T> b(d, filters, 1);
    const Packing<T> &p = b.over_cells;
    const int64_t group = index / p.panels(), panel = index % p.panels(), first = panel * p.widest;
    const auto *from = static_cast<const typename Multiplied<T>::W *>(sums) + group * b.sums() +
                       first * b.blocks_of(b.filters);
    T *to = static_cast<T *>(grad_weight) + group * b.filters * p.filters + first;
    for (int64_t filter = 0; filter < b.filters; ++filter)
        finish_row(from + filter * p.width(panel), static_cast<const T *>(nullptr), to + filter * p.filters,
                   smaller(p.width(panel), p.filters - first));
}

void finish_weight(const ctnet_deform_shape &d, int type, const void *sums, int64_t filters, int64_t index,
                   void *grad_weight) {
    CTNET_BY_TYPE(type, finish_weight_of, d, sums, filters, index, grad_weight)
}

template <class T>
void column_gradients_of(const ctnet_deform_shape &d, const void *grad_out, int64_t filters, const TilePart &part,
                         const void *packed, void *scratch, void *columns) {
    const Back<T> b(d, filters, part.cells);
    deform_column_gradients(b, d.groups, static_cast<const T *>(grad_out) + part.begin * filters, part.end - part.begin,
                            static_cast<const typename Multiplied<T>::Q *>(packed),
                            static_cast<typename Multiplied<T>::W *>(scratch),
                            static_cast<T *>(columns) + part.begin * d.groups * b.over_filters.filters);
}

void column_gradients(const ctnet_deform_shape &d, int type, const void *grad_out, int64_t filters, const TilePart &part,
                      const void *packed, void *scratch, void *columns) {
    const Multiplier claimed;
    CTNET_BY_TYPE(type, column_gradients_of, d, grad_out, filters, part, packed, scratch, columns)
}

template <class T> void narrow_sums_of(const void *sums, int64_t count, void *out) {
    finish_row(static_cast<const typename Wide<T>::type *>(sums), static_cast<const T *>(nullptr), static_cast<T *>(out),
               count);
}

void narrow_sums(int type, const void *sums, int64_t count, void *out) {
    CTNET_BY_TYPE(type, narrow_sums_of, sums, count, out)
}

template <class T, class S>
void spread_of(const ctnet_deform_shape &d, const void *map, const void *offset, const void *mask, const void *grad_columns,
               const Share &share, void *grad_map) {
    using W = typename Wide<T>::type;
    deform_spread(d, static_cast<const T *>(map), static_cast<const S *>(offset), static_cast<const S *>(mask),
                  share.first, share.count, static_cast<const T *>(grad_columns), share.low, share.high,
                  static_cast<W *>(grad_map), static_cast<W *>(share.dots), share.corner_stride,
                  static_cast<W *>(share.off_map));
}

void spread_share(const ctnet_deform_shape &d, int type, const void *map, int side_type, const void *offset,
                  const void *mask, const void *grad_columns, const Share &share, void *grad_map) {
    CTNET_BY_TYPES(type, side_type, spread_of, d, map, offset, mask, grad_columns, share, grad_map)
}

template <class T, class S>
void side_gradients_of(const ctnet_deform_shape &d, const void *offset, const void *mask, int64_t first, int64_t count,
                       const void *dots, int64_t corner_stride, int64_t parts, int64_t part_stride,
                       const ctnet_deform_shape &out, void *grad_offset, void *grad_mask) {
    deform_side_gradients<T>(d, static_cast<const S *>(offset), static_cast<const S *>(mask), first, count,
                             static_cast<const typename Wide<T>::type *>(dots), corner_stride, parts, part_stride, out,
                             static_cast<S *>(grad_offset), static_cast<S *>(grad_mask));
}

void side_gradients(const ctnet_deform_shape &d, int type, int side_type, const void *offset, const void *mask,
                    int64_t first, int64_t count, const void *dots, int64_t corner_stride, int64_t parts,
                    int64_t part_stride, const ctnet_deform_shape &out, void *grad_offset, void *grad_mask) {
    CTNET_BY_TYPES(type, side_type, side_gradients_of, d, offset, mask, first, count, dots, corner_stride, parts,
                   part_stride, out,
                   grad_offset, grad_mask)
}

template <class T>
void peaks_of(const void *logits, const int64_t sizes[4], const int64_t strides[4], int64_t image, int64_t first_row,
              int64_t last_row, int64_t top_k, FoundPeak *best, int64_t &found) {
    const Heatmap map{sizes[1], sizes[2], sizes[3], strides[1], strides[2], strides[3]};
    found = find_peaks(map, static_cast<const T *>(logits) + image * strides[0], first_row, last_row, top_k, best);
}

int64_t peaks(int type, const void *logits, const int64_t sizes[4], const int64_t strides[4], int64_t image,
              int64_t first_row, int64_t last_row, int64_t top_k, FoundPeak *best) {
    int64_t found = 0;
    CTNET_BY_TYPE(type, peaks_of, logits, sizes, strides, image, first_row, last_row, top_k, best, found)
    return found;
}

template <class T>
void upsample_of(const ctnet_window_shape &u, const void *map, const void *weight, int64_t image, int64_t row, void *out) {
    upsample_row(u, static_cast<const T *>(map), static_cast<const typename Wide<T>::type *>(weight), image, row,
                 static_cast<T *>(out));
}

void upsample(const ctnet_window_shape &u, int type, const void *map, const void *weight, int64_t image, int64_t row,
              void *out) {
    CTNET_BY_TYPE(type, upsample_of, u, map, weight, image, row, out)
}

template <class T>
void upsample_grad_map_of(const ctnet_window_shape &u, const void *grad_out, const void *weight, int64_t image,
                          int64_t row, void *grad_map) {
    upsample_grad_map_row(u, static_cast<const T *>(grad_out), static_cast<const typename Wide<T>::type *>(weight),
                          image, row, static_cast<T *>(grad_map));
}

void upsample_grad_map(const ctnet_window_shape &u, int type, const void *grad_out, const void *weight, int64_t image,
                       int64_t row, void *grad_map) {
    CTNET_BY_TYPE(type, upsample_grad_map_of, u, grad_out, weight, image, row, grad_map)
}

template <class T>
void upsample_grad_weight_of(const ctnet_window_shape &u, const void *map, const void *grad_out, int64_t kernel_row,
                             void *grad_weight) {
    upsample_grad_weight_row(u, static_cast<const T *>(map), static_cast<const T *>(grad_out), kernel_row,
                             static_cast<typename Wide<T>::type *>(grad_weight));
}

void upsample_grad_weight(const ctnet_window_shape &u, int type, const void *map, const void *grad_out,
                          int64_t kernel_row, void *grad_weight) {
    CTNET_BY_TYPE(type, upsample_grad_weight_of, u, map, grad_out, kernel_row, grad_weight)
}

template <class T>
void max_pool_of(const ctnet_window_shape &p, const void *map, int64_t image, int64_t row, void *out, uint8_t *taps) {
    max_pool_row(p, static_cast<const T *>(map), image, row, static_cast<T *>(out), taps);
}

void max_pool(const ctnet_window_shape &p, int type, const void *map, int64_t image, int64_t row, void *out,
              uint8_t *taps) {
    CTNET_BY_TYPE(type, max_pool_of, p, map, image, row, out, taps)
}

template <class T>
void max_pool_grad_of(const ctnet_window_shape &p, const void *grad_out, const uint8_t *taps, int64_t image, int64_t row,
                      void *grad_map) {
    max_pool_grad_row(p, static_cast<const T *>(grad_out), taps, image, row, static_cast<T *>(grad_map));
}

void max_pool_grad(const ctnet_window_shape &p, int type, const void *grad_out, const uint8_t *taps, int64_t image,
                   int64_t row, void *grad_map) {
    CTNET_BY_TYPE(type, max_pool_grad_of, p, grad_out, taps, image, row, grad_map)
}

template <class T> void roi_pool_of(const RoiBox &r, const void *map, void *out, void *scratch) {
    roi_pool_box(r, static_cast<const T *>(map), static_cast<T *>(out), static_cast<typename Wide<T>::type *>(scratch));
}

void roi_pool(int type, const RoiBox &r, const void *map, void *out, void *scratch) {
    CTNET_BY_TYPE(type, roi_pool_of, r, map, out, scratch)
}

template <class T>
void roi_spread_of(const RoiBox &r, const void *grad_out, int64_t first, int64_t last, void *sums, void *scratch) {
    using W = typename Wide<T>::type;
    roi_spread_box(r, static_cast<const T *>(grad_out), first, last, static_cast<W *>(sums), static_cast<W *>(scratch));
}

void roi_spread(int type, const RoiBox &r, const void *grad_out, int64_t first, int64_t last, void *sums, void *scratch) {
    CTNET_BY_TYPE(type, roi_spread_of, r, grad_out, first, last, sums, scratch)
}

template <class T>
void norm_moments_of(const void *x, const void *center, int64_t rows, int64_t channels, double *sums) {
    norm_moments(static_cast<const T *>(x), static_cast<const typename Wide<T>::type *>(center), rows, channels, sums);
}

void norm_moments_by_type(int type, const void *x, const void *center, int64_t rows, int64_t channels, double *sums) {
    CTNET_BY_TYPE(type, norm_moments_of, x, center, rows, channels, sums)
}

template <class T> void norm_of(const NormRows &n, const void *scale, const void *offset) {
    using W = typename Wide<T>::type;
    const auto run = n.relu ? (n.shortcut ? norm_rows<T, true, true> : norm_rows<T, true, false>)
                            : (n.shortcut ? norm_rows<T, false, true> : norm_rows<T, false, false>);
    run(static_cast<const T *>(n.x), static_cast<const T *>(n.shortcut), static_cast<const W *>(scale),
        static_cast<const W *>(offset), n.rows, n.channels, static_cast<T *>(n.out));
}

void norm(int type, const NormRows &n, const void *scale, const void *offset) {
    CTNET_BY_TYPE(type, norm_of, n, scale, offset)
}

template <class T>
void norm_gradient_sums_of(const NormRows &n, const void *scale, const void *offset, const void *center, double *sums) {
    using W = typename Wide<T>::type;
    const auto run = !n.relu             ? norm_gradient_sums<T, Relu::none>
                     : n.grad_shortcut ? norm_gradient_sums<T, Relu::of_output>
                                       : norm_gradient_sums<T, Relu::of_norm>;
    run(static_cast<const T *>(n.grad_out), static_cast<const T *>(n.x), static_cast<const T *>(n.out),
        static_cast<const W *>(scale), static_cast<const W *>(offset), static_cast<const W *>(center), n.rows,
        n.channels, sums);
}

void norm_gradient_sums_by_type(int type, const NormRows &n, const void *scale, const void *offset, const void *center,
                                double *sums) {
    CTNET_BY_TYPE(type, norm_gradient_sums_of, n, scale, offset, center, sums)
}

template <class T> void norm_gradient_of(const NormRows &n, const void *const factors[5]) {
    using W = typename Wide<T>::type;
    const auto factor = [factors](int i) { return static_cast<const W *>(factors[i]); };
    const NormFactors<W> f{factor(0), factor(1), factor(2), factor(3), factor(4)};
    const bool adds = n.grad_shortcut != nullptr;
    const auto run = n.relu ? (adds ? norm_gradient_rows<T, Relu::of_output, true> : norm_gradient_rows<T, Relu::of_norm, false>)
                            : (adds ? norm_gradient_rows<T, Relu::none, true> : norm_gradient_rows<T, Relu::none, false>);
    run(static_cast<const T *>(n.grad_out), static_cast<const T *>(n.x), static_cast<const T *>(n.out), f, n.rows,
        n.channels, static_cast<T *>(n.grad_x), static_cast<T *>(n.grad_shortcut));
}

void norm_gradient(int type, const NormRows &n, const void *const factors[5]) {
    CTNET_BY_TYPE(type, norm_gradient_of, n, factors)
}

constexpr Kernels table(const char *name, bool (*supported)()) {
    return {name,
            supported,
            columns,
            packed_size,
            pack,
            convolve,
            gradient_size,
            pack_back,
            turn_by_type,
            weight_gradient,
            finish_weight,
            column_gradients,
            narrow_sums,
            spread_share,
            side_gradients,
            peaks,
            upsample,
            upsample_grad_map,
            upsample_grad_weight,
            max_pool,
            max_pool_grad,
            roi_pool,
            roi_spread,
            suspects,
            norm_moments_by_type,
            norm,
            norm_gradient_sums_by_type,
            norm_gradient};
}
