// Which instruction set runs, and how the work of peaks, up-sampling and pooling is split over threads.
#include "work.h"

#include <atomic>
#include <cmath>
#include <cstring>

using ctnet::Kernels;
using ctnet::run;

namespace {

const Kernels *const kLevels[] = { // best first
#if CTNET_AMX_LEVEL
    &ctnet::kAmx,
#endif
#if CTNET_X86_LEVELS
    &ctnet::kAvx512Bf16, &ctnet::kAvx512, &ctnet::kAvx2,
#endif
    &ctnet::kPlain};

std::atomic<const Kernels *> selected{nullptr};

const Kernels &kernels() {
    const Kernels *now = selected.load(std::memory_order_relaxed);
    if (now == nullptr) {
        now = *std::find_if(std::begin(kLevels), std::end(kLevels), [](const Kernels *k) { return k->supported(); });
        selected.store(now, std::memory_order_relaxed);
    }
    return *now;
}

} // namespace

const Kernels &ctnet::selected_kernels() { return kernels(); }

const char *ctnet_isa(void) { return kernels().name; }

int ctnet_select_isa(const char *name) {
    for (const Kernels *level : kLevels)
        if (std::strcmp(level->name, name) == 0 && level->supported()) {
            selected.store(level);
            return 0;
        }
    return 1;
}

int ctnet_decode_peaks(int type, const void *logits, const int64_t sizes[4], const int64_t strides[4], int64_t top_k,
                       float *scores, int64_t *labels, int64_t *cells, int threads) {
    const Kernels &k = kernels();
    const int64_t images = sizes[0], height = sizes[2], area = height * sizes[3];
    if (images == 0) return 0;
    const int64_t bands = std::max<int64_t>(1, std::min<int64_t>(height / 8, (threads + images - 1) / images));
    std::vector<std::vector<ctnet::FoundPeak>> found(images * bands);
    run(threads, images * bands, [&](int64_t index) {
        const int64_t band = index % bands, first = height * band / bands, last = height * (band + 1) / bands;
        found[index].resize(std::min(top_k, sizes[1] * (last - first) * sizes[3]));
        found[index].resize(k.peaks(type, logits, sizes, strides, index / bands, first, last,
                                    static_cast<int64_t>(found[index].size()), found[index].data()));
    });
    for (int64_t image = 0; image < images; ++image) {
        std::vector<ctnet::FoundPeak> all;
        for (int64_t band = 0; band < bands; ++band) {
            const auto &some = found[image * bands + band];
            all.insert(all.end(), some.begin(), some.end());
        }
        std::sort(all.begin(), all.end(), ctnet::stronger);
        for (int64_t i = 0; i < top_k; ++i) {
            const int64_t at = image * top_k + i;
            const bool there = i < static_cast<int64_t>(all.size());
            scores[at] = there ? 1.0f / (1.0f + std::exp(-all[i].logit)) : 0.0f;
            // A score that rounds to zero is no peak.
            labels[at] = scores[at] > 0 ? all[i].index / area : 0;
            cells[at] = scores[at] > 0 ? all[i].index % area : 0;
        }
    }
    return 0;
}

int ctnet_upsample(const struct ctnet_window_shape *shape, int type, const void *map, const void *weight, void *out,
                   int threads) {
    const Kernels &k = kernels();
    run(threads, shape->images * shape->out_height, [&](int64_t i) {
        k.upsample(*shape, type, map, weight, i / shape->out_height, i % shape->out_height, out);
    });
    return 0;
}

int ctnet_upsample_grad_map(const struct ctnet_window_shape *shape, int type, const void *grad_out, const void *weight,
                            void *grad_map, int threads) {
    const Kernels &k = kernels();
    run(threads, shape->images * shape->height, [&](int64_t i) {
        k.upsample_grad_map(*shape, type, grad_out, weight, i / shape->height, i % shape->height, grad_map);
    });
    return 0;
}

int ctnet_upsample_grad_weight(const struct ctnet_window_shape *shape, int type, const void *map, const void *grad_out,
                               void *grad_weight, int threads) {
    const Kernels &k = kernels();
    run(threads, shape->kernel,
        [&](int64_t row) { k.upsample_grad_weight(*shape, type, map, grad_out, row, grad_weight); });
    return 0;
}

int ctnet_max_pool(const ctnet_window_shape *shape, int type, const void *map, void *out, uint8_t *taps, int threads) {
    const Kernels &k = kernels();
    run(threads, shape->images * shape->out_height, [&](int64_t i) {
        k.max_pool(*shape, type, map, i / shape->out_height, i % shape->out_height, out, taps);
    });
    return 0;
}

int ctnet_max_pool_backward(const ctnet_window_shape *shape, int type, const void *grad_out, const uint8_t *taps,
                            void *grad_map, int threads) {
    const Kernels &k = kernels();
    run(threads, shape->images * shape->height, [&](int64_t i) {
        k.max_pool_grad(*shape, type, grad_out, taps, i / shape->height, i % shape->height, grad_map);
    });
    return 0;
}
