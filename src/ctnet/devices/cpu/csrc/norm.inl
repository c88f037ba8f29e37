// Batch normalisation in training over NHWC maps, with the shortcut and the ReLU that may follow it.
// Included inside the namespace of one instruction set. A row is one cell's channels.

constexpr int64_t kNormChannels = 256, kNormRows = 128; // summed at a time, before sums become double

// Adds the sums of x - center and of its square to `sums` (2,C).
template <class T>
void norm_moments(const T *x, const typename Wide<T>::type *center, int64_t rows, int64_t channels, double *sums) {
    using W = typename Wide<T>::type;
    for (int64_t low = 0; low < channels; low += kNormChannels) {
        const int64_t width = smaller(kNormChannels, channels - low);
        for (int64_t from = 0; from < rows; from += kNormRows) {
            W first[kNormChannels] = {}, second[kNormChannels] = {};
            const int64_t end = smaller(from + kNormRows, rows);
            int64_t row = from;
            for (; row + 4 <= end; row += 4) {
                const T *a = x + row * channels + low, *b = a + channels, *c = b + channels, *d = c + channels;
#pragma omp simd
                for (int64_t k = 0; k < width; ++k) {
                    const W m = center[low + k], p = widen(a[k]) - m, q = widen(b[k]) - m, r = widen(c[k]) - m,
                            s = widen(d[k]) - m;
                    first[k] += (p + q) + (r + s);
                    second[k] += (p * p + q * q) + (r * r + s * s);
                }
            }
            for (; row < end; ++row)
#pragma omp simd
                for (int64_t k = 0; k < width; ++k) {
                    const W p = widen(x[row * channels + low + k]) - center[low + k];
                    first[k] += p;
                    second[k] += p * p;
                }
            for (int64_t k = 0; k < width; ++k) {
                sums[low + k] += first[k];
                sums[channels + low + k] += second[k];
            }
        }
    }
}

enum class Relu { none, of_norm, of_output };

// What reaches the norm of the gradient at its output: all of it without a ReLU, else what belongs to outputs above
// zero. Without a shortcut the output follows from x, and is not read. NaN passes.
template <Relu relu, class T, class W>
inline W passed(const T *grad, const T *x, const T *out, const W *scale, const W *offset, int64_t k) {
    const W g = widen(grad[k]);
    if (relu == Relu::none) return g;
    const W value = relu == Relu::of_norm ? widen(x[k]) * scale[k] + offset[k] : widen(out[k]);
    return value <= 0 ? W(0) : g;
}

// Adds the sums of the gradient and of its product with x - center to `sums` (2,C).
template <class T, Relu relu>
void norm_gradient_sums(const T *grad, const T *x, const T *out, const typename Wide<T>::type *scale,
                        const typename Wide<T>::type *offset, const typename Wide<T>::type *center, int64_t rows,
                        int64_t channels, double *sums) {
    using W = typename Wide<T>::type;
    for (int64_t low = 0; low < channels; low += kNormChannels) {
        const int64_t width = smaller(kNormChannels, channels - low);
        for (int64_t from = 0; from < rows; from += kNormRows) {
            W first[kNormChannels] = {}, second[kNormChannels] = {};
            const int64_t end = smaller(from + kNormRows, rows);
            for (int64_t row = from; row < end; ++row) {
                const int64_t at = row * channels + low;
                const T *values = x + at, *outputs = relu == Relu::of_output ? out + at : nullptr;
                W g[kNormChannels]; // in a loop of its own: compilers skip additions of zero by a branch a channel
#pragma omp simd
                for (int64_t k = 0; k < width; ++k)
                    g[k] = passed<relu>(grad + at, values, outputs, scale + low, offset + low, k);
#pragma omp simd
                for (int64_t k = 0; k < width; ++k) {
                    first[k] += g[k];
                    second[k] += g[k] * (widen(values[k]) - center[low + k]);
                }
            }
            for (int64_t k = 0; k < width; ++k) {
                sums[low + k] += first[k];
                sums[channels + low + k] += second[k];
            }
        }
    }
}

// out = x * scale + offset, plus the shortcut where there is one, at least zero with a ReLU.
template <class T, bool relu, bool adds>
void norm_rows(const T *__restrict x, const T *__restrict shortcut, const typename Wide<T>::type *__restrict scale,
               const typename Wide<T>::type *__restrict offset, int64_t rows, int64_t channels, T *__restrict out) {
    using W = typename Wide<T>::type;
    for (int64_t row = 0; row < rows; ++row, x += channels, out += channels) {
#pragma omp simd
        for (int64_t k = 0; k < channels; ++k) {
            W value = widen(x[k]) * scale[k] + offset[k];
            if (adds) value += widen(shortcut[k]);
            out[k] = narrow<T>(relu && value < 0 ? W(0) : value);
        }
        if (adds) shortcut += channels;
    }
}

// grad_x = by_grad * gradient + by_x * x + rest; the shortcut's gradient is the gradient behind the ReLU.
template <class T, Relu relu, bool adds>
void norm_gradient_rows(const T *__restrict grad, const T *__restrict x, const T *__restrict out,
                        const NormFactors<typename Wide<T>::type> &f, int64_t rows, int64_t channels,
                        T *__restrict grad_x, T *__restrict grad_shortcut) {
    using W = typename Wide<T>::type;
    const W *__restrict scale = f.scale, *__restrict offset = f.offset, *__restrict by_grad = f.by_grad,
            *__restrict by_x = f.by_x, *__restrict rest = f.rest;
    for (int64_t row = 0; row < rows; ++row) {
#pragma omp simd
        for (int64_t k = 0; k < channels; ++k) {
            const W g = passed<relu>(grad, x, out, scale, offset, k);
            grad_x[k] = narrow<T>(by_grad[k] * g + by_x[k] * widen(x[k]) + rest[k]);
            if (adds) grad_shortcut[k] = narrow<T>(g);
        }
        grad += channels, x += channels, grad_x += channels;
        if (relu == Relu::of_output) out += channels;
        if (adds) grad_shortcut += channels;
    }
}
