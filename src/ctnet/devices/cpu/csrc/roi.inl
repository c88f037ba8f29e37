// RoIAlign over NHWC maps. Included inside the namespace of one instruction set.
//
// The weight of a cell in a bin is the product of one along y and one along x. So the rows of a bin are added up to one
// line first, and a line gives the bins along x.

// sum[i] += weight of each corner * the cell's channel i, over corners begin .. end-1 of an axis.
template <class T, class W, class N>
inline void add_corners(const RoiAxis &axis, int32_t begin, int32_t end, const T *cells, W *sum, N count) {
    const auto *weight = static_cast<const W *>(axis.weight);
    int32_t t = begin;
    for (; t + 2 <= end; t += 2) {
        const T *a = cells + axis.place[t], *b = cells + axis.place[t + 1];
        const W wa = weight[t], wb = weight[t + 1];
#pragma omp simd
        for (int64_t i = 0; i < count(); ++i) sum[i] += wa * widen(a[i]) + wb * widen(b[i]);
    }
    if (t < end) {
        const T *a = cells + axis.place[t];
        const W wa = weight[t];
#pragma omp simd
        for (int64_t i = 0; i < count(); ++i) sum[i] += wa * widen(a[i]);
    }
}

// All bins of a box; `out` is (channels, size, size), `scratch` holds columns + size * size blocks of channels.
template <class T>
void roi_pool_box(const RoiBox &r, const T *map, T *out, typename Wide<T>::type *scratch) {
    using W = typename Wide<T>::type;
    const int64_t bins = r.size * r.size;
    W *line = scratch;
    T *pooled = reinterpret_cast<T *>(scratch + r.columns * kPooled);
    by_channels(r.channels, [&](int64_t low, auto count) {
        for (int64_t row = 0; row < r.size; ++row) {
            const int32_t begin = r.y.begin[row], end = r.y.begin[row + 1];
            for (int64_t j = 0; j < r.columns && begin < end; ++j) {
                W sum[kPooled] = {};
                add_corners(r.y, begin, end, map + r.column[j] + low, sum, count);
#pragma omp simd
                for (int64_t i = 0; i < count(); ++i) line[j * kPooled + i] = sum[i];
            }
            for (int64_t bin = 0; bin < r.size; ++bin) {
                W sum[kPooled] = {};
                if (begin < end) add_corners(r.x, r.x.begin[bin], r.x.begin[bin + 1], line, sum, count);
                T *to = pooled + (row * r.size + bin) * kPooled;
#pragma omp simd
                for (int64_t i = 0; i < count(); ++i) to[i] = narrow<T>(sum[i]);
            }
        }
        for (int64_t i = 0; i < count(); ++i)
            for (int64_t bin = 0; bin < bins; ++bin) out[(low + i) * bins + bin] = pooled[bin * kPooled + i];
    });
}

// Adds the gradient of a box to channels first .. last-1 of the map's sums; `grad_out` is (channels, size, size).
template <class T>
void roi_spread_box(const RoiBox &r, const T *grad_out, int64_t first, int64_t last, typename Wide<T>::type *sums,
                    typename Wide<T>::type *scratch) {
    using W = typename Wide<T>::type;
    const int64_t bins = r.size * r.size;
    const auto *by_y = static_cast<const W *>(r.y.weight), *by_x = static_cast<const W *>(r.x.weight);
    W *line = scratch, *grad = scratch + r.columns * kPooled;
    by_channels(last - first, [&](int64_t low, auto count) {
        low += first;
        for (int64_t bin = 0; bin < bins; ++bin)
            for (int64_t i = 0; i < count(); ++i) grad[bin * kPooled + i] = widen(grad_out[(low + i) * bins + bin]);
        for (int64_t row = 0; row < r.size; ++row) {
            const int32_t begin = r.y.begin[row], end = r.y.begin[row + 1];
            if (begin == end) continue;
            std::memset(line, 0, r.columns * kPooled * sizeof(W));
            for (int64_t bin = 0; bin < r.size; ++bin) {
                const W *from = grad + (row * r.size + bin) * kPooled;
                for (int32_t t = r.x.begin[bin]; t < r.x.begin[bin + 1]; ++t) {
                    W *to = line + r.x.place[t];
                    const W weight = by_x[t];
#pragma omp simd
                    for (int64_t i = 0; i < count(); ++i) to[i] += weight * from[i];
                }
            }
            for (int32_t t = begin; t < end; ++t)
                for (int64_t j = 0; j < r.columns; ++j) {
                    W *to = sums + r.y.place[t] + r.column[j] + low;
                    const W *from = line + j * kPooled;
                    const W weight = by_y[t];
#pragma omp simd
                    for (int64_t i = 0; i < count(); ++i) to[i] += weight * from[i];
                }
        }
    });
}
