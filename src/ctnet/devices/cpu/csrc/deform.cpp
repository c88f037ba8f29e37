// Deformable convolution: how cells are cut into tiles, and what the threads do with a tile.
#include "work.h"

#include <cstring>

using ctnet::bytes_of;
using ctnet::bytes_of_sum;
using ctnet::Cut;
using ctnet::Kernels;
using ctnet::run;
using ctnet::Scratch;
using ctnet::TilePart;
using ctnet::up_to_multiple;

namespace {

// How the cells of a convolution are cut. Columns of a tile take about as much memory as the weight they meet, so that
// neither is fetched from beyond the cache again and again; every thread gets as many tiles as the others.
struct Tiles {
    int64_t total, number, cells; // `cells` of each tile but the last

    Tiles(int64_t total, const ctnet::PackedSize &size, int threads) : total(total) {
        constexpr int64_t least = 256 << 10, most = 1 << 20; // bytes
        const int64_t wanted = std::max<int64_t>(1, std::clamp(size.bytes, least, most) / std::max<int64_t>(1, size.row_bytes));
        const int64_t rounds = std::max<int64_t>(1, (total + wanted * threads - 1) / (wanted * threads));
        cells = up_to_multiple((total + rounds * threads - 1) / (rounds * threads), size.block_rows);
        number = (total + cells - 1) / cells;
    }
};

// Channels are cut at whole cache lines of sums, and only as far as there are too few images for the threads.
constexpr int64_t kChannelStep = 16;
constexpr int64_t kCellStep = 32; // cells that are turned together

int64_t samples_of(const ctnet_deform_shape &d) { return d.kernel_h * d.kernel_w * d.deform_groups; }
int64_t area_of(const ctnet_deform_shape &d) { return d.out_height * d.out_width; }
int64_t column_bytes(const ctnet_deform_shape &d, int type) { return d.kernel_h * d.kernel_w * d.channels * bytes_of(type); }

int64_t channel_blocks(const ctnet_deform_shape &d, int64_t images, int threads) {
    const int64_t most = (d.channels + kChannelStep - 1) / kChannelStep;
    return std::max<int64_t>(1, std::min<int64_t>(most, (threads + images - 1) / images));
}

template <class P> P *moved(P *from, int64_t bytes) {
    return from == nullptr ? nullptr : reinterpret_cast<P *>(reinterpret_cast<uintptr_t>(from) + bytes);
}
char *moved(void *from, int64_t bytes) { return static_cast<char *>(from) + bytes; }

// What is sampled, and where.
struct Sampled {
    ctnet_deform_shape shape;
    int type, side_type;
    const void *map, *offset, *mask;

    int64_t map_numbers() const { return shape.height * shape.width * shape.channels; }
};

// The gradients of what is sampled; the map's is a sum still.
struct SampledGradients {
    ctnet_deform_shape shape; // for its strides
    void *map, *offset, *mask;
};

// Backward: which images and cells are processed together, and the layout of the scratch memory.
struct Plan {
    int64_t images, cells;
    ctnet::GradientSize size;
    int64_t packed, columns, turned, weight, dots, off_map, map;
    int64_t total = 0;

    Plan(const Kernels &kernels, const ctnet_deform_shape &d, int type, int64_t filters, int64_t tile_bytes, int threads) {
        const int64_t row = std::max<int64_t>(1, column_bytes(d, type)), sum = bytes_of_sum(type);
        images = std::clamp<int64_t>(tile_bytes / (row * area_of(d)), 1, std::max<int64_t>(1, d.images));
        const int64_t fitting = std::max(kCellStep, tile_bytes / row / kCellStep * kCellStep);
        cells = std::min(fitting, up_to_multiple(images * area_of(d), kCellStep));
        size = kernels.gradient_size(d, type, filters, cells);
        packed = take(size.packed_bytes);
        columns = take(cells * row);
        turned = take(size.turned_bytes);
        weight = take(size.sum_bytes);
        dots = take(4 * channel_blocks(d, 1, threads) * cells * samples_of(d) * sum);
        off_map = take((images + threads) * 4 * d.channels * sum); // images x blocks is never more
        map = take(bytes_of(type) == sum ? 0 : images * d.height * d.width * d.channels * sum);
    }

  private:
    int64_t take(int64_t bytes) {
        const int64_t begin = total;
        total += up_to_multiple(bytes, 64);
        return begin;
    }
};

// Takes the gradient of a tile's columns to the map, the offsets and the mask.
void scatter(const Kernels &k, const Sampled &s, int64_t first, int64_t count, const char *grad_columns,
             const SampledGradients &grads, char *dots, char *off_map, int threads) {
    const ctnet_deform_shape &d = s.shape;
    const int64_t area = area_of(d), size = bytes_of_sum(s.type), per_cell = samples_of(d);
    const int64_t images = (first + count - 1) / area - first / area + 1, blocks = channel_blocks(d, images, threads);
    const int64_t steps = (d.channels + kChannelStep - 1) / kChannelStep;
    const int64_t corner_stride = blocks * count * per_cell; // products lie as (corner, block, cell, sample)
    // One thread owns the sums of an image's block of channels, and adds them up in the order of the cells.
    run(threads, images * blocks, [&](int64_t index) {
        const int64_t image = first / area + index / blocks, block = index % blocks;
        const int64_t begin = std::max(first, image * area), end = std::min(first + count, (image + 1) * area);
        const ctnet::Share share{begin,
                                 end - begin,
                                 steps * block / blocks * kChannelStep,
                                 std::min(steps * (block + 1) / blocks * kChannelStep, d.channels),
                                 dots + (block * count + begin - first) * per_cell * size,
                                 off_map + index * 4 * d.channels * size,
                                 corner_stride};
        k.spread(d, s.type, s.map, s.side_type, s.offset, s.mask,
                 grad_columns + (begin - first) * column_bytes(d, s.type), share, grads.map);
    });
    const Cut cut(count, threads, 16);
    run(threads, cut.pieces, [&](int64_t piece) {
        const int64_t begin = cut.begin(piece);
        k.side_gradients(d, s.type, s.side_type, s.offset, s.mask, first + begin, cut.end(piece) - begin,
                         dots + begin * per_cell * size, corner_stride, blocks, count * per_cell, grads.shape,
                         grads.offset, grads.mask);
    });
}

// Backward of a few images, tile by tile. `begin`: whether the sums of the weight start here.
void images_back(const Kernels &k, const Plan &plan, const Sampled &s, const char *grad_out, int64_t filters,
                 const SampledGradients &grads, bool begin, char *memory, int threads) {
    const ctnet_deform_shape &d = s.shape;
    const int64_t total = d.images * area_of(d), row = column_bytes(d, s.type);
    char *columns = memory + plan.columns;
    for (int64_t first = 0; first < total; first += plan.cells, begin = false) {
        const int64_t count = std::min(plan.cells, total - first);
        const char *grad_tile = grad_out + first * filters * bytes_of(s.type);
        const Cut cut(count, threads, kCellStep);
        const auto part = [&](int64_t piece) { return TilePart{cut.begin(piece), cut.end(piece), count}; };
        run(threads, cut.pieces, [&](int64_t piece) {
            const TilePart p = part(piece);
            k.columns(d, s.type, s.map, s.side_type, s.offset, s.mask, first + p.begin, p.end - p.begin,
                      columns + p.begin * row);
            k.turn(d, s.type, grad_tile, filters, p, memory + plan.turned);
        });
        run(threads, d.groups * plan.size.panels, [&](int64_t panel) {
            thread_local Scratch scratch;
            k.weight_gradient(d, s.type, columns, memory + plan.turned, filters, count, panel, begin,
                              scratch.bytes(plan.size.panel_bytes), memory + plan.weight);
            scratch.release();
        });
        run(threads, cut.pieces, [&](int64_t piece) {
            thread_local Scratch scratch;
            const int64_t rows = up_to_multiple(cut.size, plan.size.block_rows);
            k.column_gradients(d, s.type, grad_tile, filters, part(piece), memory + plan.packed,
                               scratch.bytes(rows * plan.size.cell_bytes), columns);
            scratch.release();
        });
        scatter(k, s, first, count, columns, grads, memory + plan.dots, memory + plan.off_map, threads);
    }
}

} // namespace

int ctnet_deform_conv(const ctnet_deform_shape *shape, int type, const void *map, int side_type, const void *offset,
                      const void *mask, const void *weight, const int64_t weight_stride[4], const void *bias,
                      int64_t filters, void *out, int threads) {
    const ctnet_deform_shape &d = *shape;
    const Kernels &k = ctnet::selected_kernels();
    const ctnet::PackedSize size = k.packed_size(d, type, filters);
    thread_local Scratch weights;
    void *packed = weights.bytes(size.bytes);
    run(threads, d.groups * size.panels,
        [&](int64_t index) { k.pack(d, type, weight, weight_stride, filters, index, packed); });
    const Tiles tiles(d.images * area_of(d), size, threads);
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

int64_t ctnet_deform_conv_scratch(const ctnet_deform_shape *shape, int type, int64_t filters, int64_t tile_bytes,
                                  int threads) {
    return Plan(ctnet::selected_kernels(), *shape, type, filters, tile_bytes, threads).total + 64;
}

int ctnet_deform_conv_backward(const ctnet_deform_shape *shape, int type, const void *map, int side_type,
                               const void *offset, const void *mask, const void *weight, int64_t filters,
                               const void *grad_out, const ctnet_deform_shape *grad_shape, void *grad_map,
                               void *grad_offset, void *grad_mask, void *grad_weight, int64_t tile_bytes, void *scratch,
                               int threads) {
    const Kernels &k = ctnet::selected_kernels();
    const Plan plan(k, *shape, type, filters, tile_bytes, threads);
    char *memory = moved(scratch, (64 - reinterpret_cast<uintptr_t>(scratch) % 64) % 64);
    const int64_t panels = shape->groups * plan.size.panels, side = bytes_of(side_type);
    run(threads, panels, [&](int64_t panel) { k.pack_back(*shape, type, weight, filters, panel, memory + plan.packed); });
    std::memset(memory + plan.turned, 0, plan.size.turned_bytes); // rows that only fill up a block are multiplied too
    const bool in_place = bytes_of(type) == bytes_of_sum(type);
    for (int64_t image = 0; image < shape->images; image += plan.images) {
        Sampled s{*shape, type, side_type, map, offset, mask};
        s.shape.images = std::min(plan.images, shape->images - image);
        const int64_t before = image * s.map_numbers(), numbers = s.shape.images * s.map_numbers();
        s.map = moved(map, before * bytes_of(type));
        s.offset = moved(offset, image * shape->offset_stride[0] * side);
        s.mask = moved(mask, image * shape->mask_stride[0] * side);
        char *out = moved(grad_map, before * bytes_of(type)), *sums = in_place ? out : memory + plan.map;
        const SampledGradients grads{*grad_shape, sums, moved(grad_offset, image * grad_shape->offset_stride[0] * side),
                                     grad_mask == nullptr
                                         ? nullptr
                                         : moved(grad_mask, image * grad_shape->mask_stride[0] * side)};
        const Cut cut(numbers, threads, 4096);
        const int64_t bytes = bytes_of_sum(type);
        run(threads, cut.pieces, [&](int64_t i) {
            std::memset(sums + cut.begin(i) * bytes, 0, (cut.end(i) - cut.begin(i)) * bytes);
        });
        const char *grad_images = static_cast<const char *>(grad_out) + image * area_of(*shape) * filters * bytes_of(type);
        images_back(k, plan, s, grad_images, filters, grads, image == 0, memory, threads);
        if (in_place) continue;
        run(threads, cut.pieces, [&](int64_t i) {
            k.narrow_sums(type, sums + cut.begin(i) * bytes, cut.end(i) - cut.begin(i), out + cut.begin(i) * bytes_of(type));
        });
    }
    run(threads, panels,
        [&](int64_t panel) { k.finish_weight(*shape, type, memory + plan.weight, filters, panel, grad_weight); });
    return 0;
}
