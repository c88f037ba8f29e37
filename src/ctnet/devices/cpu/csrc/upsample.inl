// Depthwise transposed convolution over NHWC maps. Included inside the namespace of one instruction set.
//
// Output row o takes map row i through kernel row o + padding - i * stride, where that lies within the kernel.

constexpr int64_t kChannels = 256; // summed at a time

struct Taps {
    int64_t first, last; // map rows (or columns) that reach one output row, both included
};

inline Taps taps_of(const ctnet_window_shape &u, int64_t out, int64_t size) {
    const int64_t shifted = out + u.padding, over = shifted - u.kernel + 1;
    const int64_t first = over <= 0 ? 0 : (over + u.stride - 1) / u.stride;
    return {first, smaller(shifted / u.stride, size - 1)};
}

template <class T>
void upsample_row(const ctnet_window_shape &u, const T *map, const typename Wide<T>::type *weight, int64_t image,
                  int64_t row, T *out) {
    using W = typename Wide<T>::type;
    const int64_t c = u.channels;
    const Taps rows = taps_of(u, row, u.height);
    T *to = out + (image * u.out_height + row) * u.out_width * c;
    for (int64_t column = 0; column < u.out_width; ++column, to += c) {
        const Taps columns = taps_of(u, column, u.width);
        const int64_t ky = row + u.padding - rows.first * u.stride, kx = column + u.padding - columns.first * u.stride;
        const T *from = map + ((image * u.height + rows.first) * u.width + columns.first) * c;
        const W *w = weight + (ky * u.kernel + kx) * c;
        if (rows.last == rows.first + 1 && columns.last == columns.first + 1) { // a kernel of twice the stride
            const T *below = from + u.width * c;
            const W *w_below = w - u.stride * u.kernel * c, *w_right = w - u.stride * c,
                    *w_last = w_below - u.stride * c;
#pragma omp simd
            for (int64_t k = 0; k < c; ++k)
                to[k] = narrow<T>(w[k] * widen(from[k]) + w_right[k] * widen(from[k + c]) +
                                  w_below[k] * widen(below[k]) + w_last[k] * widen(below[k + c]));
            continue;
        }
        for (int64_t begin = 0; begin < c; begin += kChannels) {
            W sum[kChannels] = {};
            const int64_t count = smaller(kChannels, c - begin);
            for (int64_t y = 0; y <= rows.last - rows.first; ++y)
                for (int64_t x = 0; x <= columns.last - columns.first; ++x) {
                    const T *value = from + (y * u.width + x) * c + begin;
                    const W *factor = w - (y * u.kernel + x) * u.stride * c + begin;
#pragma omp simd
                    for (int64_t k = 0; k < count; ++k) sum[k] += factor[k] * widen(value[k]);
                }
            for (int64_t k = 0; k < count; ++k) to[begin + k] = narrow<T>(sum[k]);
        }
    }
}

template <class T>
void upsample_grad_map_row(const ctnet_window_shape &u, const T *grad_out, const typename Wide<T>::type *weight,
                           int64_t image, int64_t row, T *grad_map) {
    using W = typename Wide<T>::type;
    const int64_t c = u.channels;
    T *to = grad_map + (image * u.height + row) * u.width * c;
    for (int64_t column = 0; column < u.width; ++column, to += c) {
        for (int64_t begin = 0; begin < c; begin += kChannels) {
            W sum[kChannels] = {};
            const int64_t count = smaller(kChannels, c - begin);
            for (int64_t ky = 0; ky < u.kernel; ++ky) {
                const int64_t y = row * u.stride - u.padding + ky;
                if (y < 0 || y >= u.out_height) continue;
                for (int64_t kx = 0; kx < u.kernel; ++kx) {
                    const int64_t x = column * u.stride - u.padding + kx;
                    if (x < 0 || x >= u.out_width) continue;
                    const T *from = grad_out + ((image * u.out_height + y) * u.out_width + x) * c + begin;
                    const W *w = weight + (ky * u.kernel + kx) * c + begin;
#pragma omp simd
                    for (int64_t k = 0; k < count; ++k) sum[k] += w[k] * widen(from[k]);
                }
            }
            for (int64_t k = 0; k < count; ++k) to[begin + k] = narrow<T>(sum[k]);
        }
    }
}

// Adds the share of one kernel row to grad_weight (kernel, kernel, C).
template <class T>
void upsample_grad_weight_row(const ctnet_window_shape &u, const T *map, const T *grad_out, int64_t ky,
                              typename Wide<T>::type *grad_weight) {
    using W = typename Wide<T>::type;
    const int64_t c = u.channels;
    W *sums = grad_weight + ky * u.kernel * c;
    for (int64_t k = 0; k < u.kernel * c; ++k) sums[k] = 0;
    for (int64_t image = 0; image < u.images; ++image)
        for (int64_t row = 0; row < u.height; ++row) {
            const int64_t y = row * u.stride - u.padding + ky;
            if (y < 0 || y >= u.out_height) continue;
            for (int64_t column = 0; column < u.width; ++column) {
                const T *from = map + ((image * u.height + row) * u.width + column) * c;
                for (int64_t kx = 0; kx < u.kernel; ++kx) {
                    const int64_t x = column * u.stride - u.padding + kx;
                    if (x < 0 || x >= u.out_width) continue;
                    const T *grad = grad_out + ((image * u.out_height + y) * u.out_width + x) * c;
                    W *sum = sums + kx * c;
#pragma omp simd
                    for (int64_t k = 0; k < c; ++k) sum[k] += widen(from[k]) * widen(grad[k]);
                }
            }
        }
}
