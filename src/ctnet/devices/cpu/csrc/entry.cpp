// The exported functions: which instruction set runs, and how work is split over threads.
#include "kernels.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

using ctnet::Kernels;

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

int64_t bytes_of_sum(int type) { return type == CTNET_FLOAT64 ? 8 : 4; }

int64_t samples_of(const ctnet_deform_shape &d) { return d.kernel_h * d.kernel_w * d.deform_groups; }

// Runs work(index) for every index below count.
template <class F> void run(int threads, int64_t count, F &&work) {
    ctnet::parallel(threads, count, [](void *context, int64_t i) { (*static_cast<F *>(context))(i); }, &work);
}

// How a range of `count` things is cut for `threads`: a few pieces each, so that uneven ones even out.
struct Cut {
    int64_t count, pieces;
    Cut(int64_t count, int threads, int64_t least)
        : count(count), pieces(std::max<int64_t>(1, std::min<int64_t>(threads <= 1 ? 1 : 4 * threads, count / least))) {}
    int64_t begin(int64_t piece) const { return count * piece / pieces; }
};

// Memory that a thread keeps from call to call: fresh pages cost about as much as filling them.
class Scratch {
    static constexpr size_t kMost = 16 << 20; // kept; more than that is for one call
    std::vector<char> memory;

  public:
    void release() {
        if (memory.size() > kMost) memory = std::vector<char>();
    }
    void *bytes(int64_t count) {
        constexpr int64_t line = 64;
        if (static_cast<int64_t>(memory.size()) < count + line) memory = std::vector<char>(count + line);
        const auto start = reinterpret_cast<uintptr_t>(memory.data());
        return memory.data() + (line - start % line) % line;
    }
};

// How the cells of a convolution are cut. Columns of a tile take about as much memory as the weight they meet, so that
// neither is fetched from beyond the cache again and again; every thread gets as many tiles as the others.
struct Tiles {
    int64_t total, number, cells; // `cells` of each tile but the last

    Tiles(int64_t total, const ctnet::PackedSize &size, int threads) : total(total) {
        constexpr int64_t least = 256 << 10, most = 1 << 20; // bytes
        const int64_t wanted = std::max<int64_t>(1, std::clamp(size.bytes, least, most) / std::max<int64_t>(1, size.row_bytes));
        const int64_t rounds = std::max<int64_t>(1, (total + wanted * threads - 1) / (wanted * threads));
        cells = (total + rounds * threads - 1) / (rounds * threads);
        cells = (cells + size.block_rows - 1) / size.block_rows * size.block_rows;
        number = (total + cells - 1) / cells;
    }
};

// Channels are cut at whole cache lines of sums, and only as far as there are too few images for the threads.
constexpr int64_t kChannelStep = 16;

int64_t channel_blocks(const ctnet_deform_shape &d, int64_t images, int threads) {
    const int64_t most = (d.channels + kChannelStep - 1) / kChannelStep;
    return std::max<int64_t>(1, std::min<int64_t>(most, (threads + images - 1) / images));
}

int64_t images_of(const ctnet_deform_shape &d, int64_t first, int64_t count) {
    const int64_t area = d.out_height * d.out_width;
    return (first + count - 1) / area - first / area + 1;
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

int ctnet_deform_columns(const ctnet_deform_shape *shape, int type, const void *map, int side_type, const void *offset,
                         const void *mask, int64_t first, int64_t count, void *columns, int threads) {
    const ctnet_deform_shape &d = *shape;
    const Kernels &k = kernels();
    const int64_t row = d.kernel_h * d.kernel_w * d.channels * (type == CTNET_BFLOAT16 ? 2 : bytes_of_sum(type));
    const Cut cut(count, threads, 16);
    run(threads, cut.pieces, [&](int64_t piece) {
        const int64_t begin = cut.begin(piece), end = cut.begin(piece + 1);
        k.columns(d, type, map, side_type, offset, mask, first + begin, end - begin,
                  static_cast<char *>(columns) + begin * row);
    });
    return 0;
}

int ctnet_deform_conv(const ctnet_deform_shape *shape, int type, const void *map, int side_type, const void *offset,
                      const void *mask, const void *weight, const int64_t weight_stride[4], const void *bias,
                      int64_t filters, void *out, int threads) {
    const ctnet_deform_shape &d = *shape;
    const Kernels &k = kernels();
    const ctnet::PackedSize size = k.packed_size(d, type, filters);
    thread_local Scratch weights;
    void *packed = weights.bytes(size.bytes);
    run(threads, d.groups * size.panels,
        [&](int64_t index) { k.pack(d, type, weight, weight_stride, filters, index, packed); });
    const Tiles tiles(d.images * d.out_height * d.out_width, size, threads);
    run(threads, tiles.number, [&](int64_t index) {
        thread_local Scratch scratch;
        const int64_t begin = index * tiles.cells, count = std::min(tiles.cells, tiles.total - begin);
        k.convolve(d, type, map, side_type, offset, mask, packed, bias, filters, begin, count,
                   scratch.bytes(tiles.cells * (size.sum_bytes + size.row_bytes)), tiles.cells, out);
        scratch.release();
    });
    weights.release();
    return 0;
}

int64_t ctnet_deform_scratch(const ctnet_deform_shape *shape, int type, int64_t count, int threads) {
    const int64_t dots = channel_blocks(*shape, 1, threads) * count * samples_of(*shape) * 4;
    const int64_t shares = std::min(count, shape->images) + threads; // images x blocks is never more
    return bytes_of_sum(type) * (dots + shares * 4 * shape->channels);
}

int ctnet_deform_scatter(const ctnet_deform_shape *shape, int type, const void *map, int side_type, const void *offset,
                         const void *mask, int64_t first, int64_t count, const void *grad_columns,
                         const ctnet_deform_shape *grad_shape, void *grad_map, void *grad_offset, void *grad_mask,
                         void *scratch, int threads) {
    const ctnet_deform_shape &d = *shape;
    const Kernels &k = kernels();
    const int64_t area = d.out_height * d.out_width, size = bytes_of_sum(type), per_cell = samples_of(d);
    const int64_t images = images_of(d, first, count), blocks = channel_blocks(d, images, threads);
    const int64_t steps = (d.channels + kChannelStep - 1) / kChannelStep;
    const int64_t row = d.kernel_h * d.kernel_w * d.channels * (type == CTNET_BFLOAT16 ? 2 : size);
    const int64_t corner_stride = blocks * count * per_cell; // products lie as (corner, block, cell, sample)
    char *dots = static_cast<char *>(scratch), *off_map = dots + 4 * corner_stride * size;
    // One thread owns the sums of an image's block of channels, and adds them up in the order of the cells.
    run(threads, images * blocks, [&](int64_t index) {
        const int64_t image = first / area + index / blocks, block = index % blocks;
        const int64_t begin = std::max(first, image * area), end = std::min(first + count, (image + 1) * area);
        const int64_t low = steps * block / blocks * kChannelStep;
        const int64_t high = std::min(steps * (block + 1) / blocks * kChannelStep, d.channels);
        const ctnet::Share share{begin,
                                 end - begin,
                                 low,
                                 high,
                                 dots + (block * count + begin - first) * per_cell * size,
                                 off_map + index * 4 * d.channels * size,
                                 corner_stride};
        k.spread(d, type, map, side_type, offset, mask, static_cast<const char *>(grad_columns) + (begin - first) * row,
                 share, grad_map);
    });
    const Cut cut(count, threads, 16);
    run(threads, cut.pieces, [&](int64_t piece) {
        const int64_t begin = cut.begin(piece), end = cut.begin(piece + 1);
        k.side_gradients(d, type, side_type, offset, mask, first + begin, end - begin, dots + begin * per_cell * size,
                         corner_stride, blocks, count * per_cell, *grad_shape, grad_offset, grad_mask);
    });
    return 0;
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

int ctnet_upsample(const struct ctnet_upsample_shape *shape, int type, const void *map, const void *weight, void *out,
                   int threads) {
    const Kernels &k = kernels();
    run(threads, shape->images * shape->out_height, [&](int64_t i) {
        k.upsample(*shape, type, map, weight, i / shape->out_height, i % shape->out_height, out);
    });
    return 0;
}

int ctnet_upsample_grad_map(const struct ctnet_upsample_shape *shape, int type, const void *grad_out, const void *weight,
                            void *grad_map, int threads) {
    const Kernels &k = kernels();
    run(threads, shape->images * shape->height, [&](int64_t i) {
        k.upsample_grad_map(*shape, type, grad_out, weight, i / shape->height, i % shape->height, grad_map);
    });
    return 0;
}

int ctnet_upsample_grad_weight(const struct ctnet_upsample_shape *shape, int type, const void *map, const void *grad_out,
                               void *grad_weight, int threads) {
    const Kernels &k = kernels();
    run(threads, shape->kernel,
        [&](int64_t row) { k.upsample_grad_weight(*shape, type, map, grad_out, row, grad_weight); });
    return 0;
}
