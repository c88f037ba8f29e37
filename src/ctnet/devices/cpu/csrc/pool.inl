// Max-pooling in training over NHWC maps. Included inside the namespace of one instruction set.

// The part lo .. hi-1 of a window's taps that lies on a map of `size` rows (or columns); tap 0 would be at `start`.
struct OnMap {
    int64_t start, low, high;

    OnMap(const ctnet_window_shape &p, int64_t out, int64_t size)
        : start(out * p.stride - p.padding), low(start < 0 ? -start : 0), high(smaller(p.kernel, size - start)) {}
};

// Calls work(low, constant) for each block of channels; `constant()` is their number, known to the compiler where a
// block is full.
template <class F> inline void by_channels(int64_t channels, F &&work) {
    struct Full {
        constexpr int64_t operator()() const { return kPooled; }
    };
    int64_t low = 0;
    for (; low + kPooled <= channels; low += kPooled) work(low, Full());
    if (low < channels) work(low, [=] { return channels - low; });
}

// One row of the output. Of equal values the first counts; NaN is larger than any.
template <class T>
void max_pool_row(const ctnet_window_shape &p, const T *map, int64_t image, int64_t row, T *out, uint8_t *taps) {
    using W = typename Wide<T>::type;
    const OnMap rows(p, row, p.height);
    const int64_t first = (image * p.out_height + row) * p.out_width * p.channels;
    out += first, taps += first;
    for (int64_t column = 0; column < p.out_width; ++column, out += p.channels, taps += p.channels) {
        const OnMap columns(p, column, p.width);
        const T *window = map + ((image * p.height + rows.start) * p.width + columns.start) * p.channels;
        by_channels(p.channels, [&](int64_t low, auto count) {
            W best[kPooled];
            int32_t at[kPooled];
            const T *from = window + (rows.low * p.width + columns.low) * p.channels + low;
#pragma omp simd
            for (int64_t i = 0; i < count(); ++i) {
                best[i] = widen(from[i]);
                at[i] = static_cast<int32_t>(rows.low * p.kernel + columns.low);
            }
            for (int64_t ky = rows.low; ky < rows.high; ++ky)
                for (int64_t kx = columns.low; kx < columns.high; ++kx) {
                    from = window + (ky * p.width + kx) * p.channels + low;
                    const int32_t number = static_cast<int32_t>(ky * p.kernel + kx);
#pragma omp simd
                    for (int64_t i = 0; i < count(); ++i) {
                        const W value = widen(from[i]);
                        const bool larger = (value > best[i]) | (value != value);
                        best[i] = larger ? value : best[i];
                        at[i] = larger ? number : at[i];
                    }
                }
#pragma omp simd
            for (int64_t i = 0; i < count(); ++i) {
                out[low + i] = narrow<T>(best[i]);
                taps[low + i] = static_cast<uint8_t>(at[i]);
            }
        });
    }
}

// One row of the map's gradient: each cell gathers from the windows that cover it, in their order.
template <class T>
void max_pool_grad_row(const ctnet_window_shape &p, const T *grad_out, const uint8_t *taps, int64_t image, int64_t row,
                       T *grad_map) {
    using W = typename Wide<T>::type;
    const Taps rows = taps_of(p, row, p.out_height);
    grad_map += (image * p.height + row) * p.width * p.channels;
    for (int64_t column = 0; column < p.width; ++column, grad_map += p.channels) {
        const Taps columns = taps_of(p, column, p.out_width);
        by_channels(p.channels, [&](int64_t low, auto count) {
            W sum[kPooled] = {};
            for (int64_t y = rows.first; y <= rows.last; ++y)
                for (int64_t x = columns.first; x <= columns.last; ++x) {
                    const int64_t from = ((image * p.out_height + y) * p.out_width + x) * p.channels + low;
                    const int64_t ky = row + p.padding - y * p.stride, kx = column + p.padding - x * p.stride;
                    const uint8_t number = static_cast<uint8_t>(ky * p.kernel + kx);
                    W reaching[kPooled]; // in a loop of its own: compilers skip additions of zero by a branch a channel
#pragma omp simd
                    for (int64_t i = 0; i < count(); ++i)
                        reaching[i] = taps[from + i] == number ? widen(grad_out[from + i]) : W(0);
#pragma omp simd
                    for (int64_t i = 0; i < count(); ++i) sum[i] += reaching[i];
                }
#pragma omp simd
            for (int64_t i = 0; i < count(); ++i) grad_map[low + i] = narrow<T>(sum[i]);
        });
    }
}
