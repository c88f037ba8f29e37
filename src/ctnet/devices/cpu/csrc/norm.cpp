// Batch normalisation: how cells are cut into chunks, and what is computed from their sums.
#include "work.h"

#include <cmath>
#include <cstring>
#include <type_traits>

namespace {

using ctnet::Kernels;
using ctnet::NormRows;

// Cells are cut by the sizes alone, so that sums do not depend on the number of threads.
struct Chunks {
    int64_t rows, channels, size, count, row_bytes;

    Chunks(int64_t rows, int64_t channels, int type) : rows(rows), channels(channels) {
        constexpr int64_t values = 64 << 10, least = 16;
        size = std::max(least, values / std::max<int64_t>(1, channels));
        count = (rows + size - 1) / size;
        row_bytes = channels * ctnet::bytes_of(type);
    }

    // The cells of one chunk.
    NormRows cut(NormRows whole, int64_t index) const {
        const int64_t begin = index * size, bytes = begin * row_bytes;
        whole.rows = std::min(size, rows - begin);
        const auto move = [bytes](auto *&pointer) {
            using Pointer = std::remove_reference_t<decltype(pointer)>;
            if (pointer) pointer = reinterpret_cast<Pointer>(reinterpret_cast<uintptr_t>(pointer) + bytes);
        };
        move(whole.x), move(whole.shortcut), move(whole.grad_out);
        move(whole.out), move(whole.grad_x), move(whole.grad_shortcut);
        return whole;
    }
};

// Sums (2,C) of all chunks, each of which `add(chunk, sums)` fills.
template <class F> std::vector<double> summed(const Chunks &chunks, int threads, F &&add) {
    std::vector<double> parts(chunks.count * 2 * chunks.channels);
    ctnet::run(threads, chunks.count, [&](int64_t i) { add(i, parts.data() + i * 2 * chunks.channels); });
    std::vector<double> sums(2 * chunks.channels);
    for (int64_t i = 0; i < chunks.count; ++i)
        for (size_t k = 0; k < sums.size(); ++k) sums[k] += parts[i * sums.size() + k];
    return sums;
}

// What the norm multiplies x with and adds, by channel.
template <class W> struct Affine {
    std::vector<W> scale, offset;

    explicit Affine(int64_t channels) : scale(channels), offset(channels) {}
    void set(int64_t channel, double weight, double bias, double mean, double inverse_deviation) {
        scale[channel] = static_cast<W>(weight * inverse_deviation);
        offset[channel] = static_cast<W>(bias - mean * weight * inverse_deviation);
    }
};

template <class W>
void forward(const Kernels &kernels, const Chunks &chunks, int type, const NormRows &n, const W *weight, const W *bias,
             double eps, const std::vector<W> &center, W *mean, W *variance, int threads) {
    const auto sums = summed(chunks, threads, [&](int64_t i, double *into) {
        const NormRows part = chunks.cut(n, i);
        kernels.norm_moments(type, part.x, center.data(), part.rows, n.channels, into);
    });
    Affine<W> norm(n.channels);
    for (int64_t k = 0; k < n.channels; ++k) {
        const double shift = sums[k] / n.rows, spread = sums[n.channels + k] / n.rows - shift * shift;
        mean[k] = static_cast<W>(center[k] + shift);
        variance[k] = static_cast<W>(spread < 0 ? 0 : spread); // NaN stays NaN
        // from the numbers that are returned, as the gradient will compute it again
        norm.set(k, weight[k], bias[k], mean[k], 1 / std::sqrt(variance[k] + eps));
    }
    // from the last chunk to the first: the last ones may still be in the cache
    ctnet::run(threads, chunks.count, [&](int64_t i) {
        kernels.norm(type, chunks.cut(n, chunks.count - 1 - i), norm.scale.data(), norm.offset.data());
    });
}

template <class W>
void backward(const Kernels &kernels, const Chunks &chunks, int type, const NormRows &n, const W *weight, const W *bias,
              const W *mean, const W *variance, double eps, W *grad_weight, W *grad_bias, int threads) {
    Affine<W> norm(n.channels);
    for (int64_t k = 0; k < n.channels; ++k) norm.set(k, weight[k], bias[k], mean[k], 1 / std::sqrt(variance[k] + eps));
    const auto sums = summed(chunks, threads, [&](int64_t i, double *into) {
        kernels.norm_gradient_sums(type, chunks.cut(n, i), norm.scale.data(), norm.offset.data(), mean, into);
    });
    std::vector<W> by_grad(n.channels), by_x(n.channels), rest(n.channels);
    for (int64_t k = 0; k < n.channels; ++k) {
        const double inverse = 1 / std::sqrt(variance[k] + eps), through = sums[n.channels + k];
        const double factor = weight[k] * inverse, slope = -factor * inverse * inverse * through / n.rows;
        grad_bias[k] = static_cast<W>(sums[k]);
        grad_weight[k] = static_cast<W>(through * inverse);
        by_grad[k] = static_cast<W>(factor);
        by_x[k] = static_cast<W>(slope);
        rest[k] = static_cast<W>(-factor * sums[k] / n.rows - slope * mean[k]);
    }
    const void *factors[] = {norm.scale.data(), norm.offset.data(), by_grad.data(), by_x.data(), rest.data()};
    ctnet::run(threads, chunks.count,
         [&](int64_t i) { kernels.norm_gradient(type, chunks.cut(n, chunks.count - 1 - i), factors); });
}

double value_at(int type, const void *x, int64_t index) {
    if (type == CTNET_FLOAT64) return static_cast<const double *>(x)[index];
    if (type == CTNET_FLOAT32) return static_cast<const float *>(x)[index];
    const uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t *>(x)[index]) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// The mean of a few cells: near it the sums of squares do not cancel.
template <class W> std::vector<W> rough_mean(int type, const void *x, int64_t rows, int64_t channels) {
    const int64_t cells = std::min<int64_t>(rows, 16);
    std::vector<W> mean(channels);
    for (int64_t k = 0; k < channels; ++k) {
        double sum = 0;
        for (int64_t i = 0; i < cells; ++i) sum += value_at(type, x, rows * i / cells * channels + k);
        sum /= cells;
        // distances from a center that is not finite are NaN
        mean[k] = std::isfinite(static_cast<W>(sum)) ? static_cast<W>(sum) : W(0);
    }
    return mean;
}

} // namespace

int ctnet_batch_norm(int64_t rows, int64_t channels, int type, const void *x, const void *weight, const void *bias,
                     const void *shortcut, int relu, double eps, void *out, void *mean, void *variance, int threads) {
    const Kernels &kernels = ctnet::selected_kernels();
    const Chunks chunks(rows, channels, type);
    const NormRows n{rows, channels, relu != 0, x, shortcut, nullptr, out, nullptr, nullptr};
    const auto run = [&](auto zero) {
        using W = decltype(zero);
        forward(kernels, chunks, type, n, static_cast<const W *>(weight), static_cast<const W *>(bias), eps,
                rough_mean<W>(type, x, rows, channels), static_cast<W *>(mean), static_cast<W *>(variance), threads);
    };
    type == CTNET_FLOAT64 ? run(0.0) : run(0.0f);
    return 0;
}

int ctnet_batch_norm_backward(int64_t rows, int64_t channels, int type, const void *grad_out, const void *x,
                              const void *out, const void *weight, const void *bias, const void *mean,
                              const void *variance, int relu, double eps, void *grad_x, void *grad_weight,
                              void *grad_bias, void *grad_shortcut, int threads) {
    const Kernels &kernels = ctnet::selected_kernels();
    const Chunks chunks(rows, channels, type);
    const NormRows n{rows, channels, relu != 0, x, nullptr, grad_out, const_cast<void *>(out), grad_x, grad_shortcut};
    const auto run = [&](auto zero) {
        using W = decltype(zero);
        backward(kernels, chunks, type, n, static_cast<const W *>(weight), static_cast<const W *>(bias),
                 static_cast<const W *>(mean), static_cast<const W *>(variance), eps, static_cast<W *>(grad_weight),
                 static_cast<W *>(grad_bias), threads);
    };
    type == CTNET_FLOAT64 ? run(0.0) : run(0.0f);
    return 0;
}
