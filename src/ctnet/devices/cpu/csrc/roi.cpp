// RoIAlign: where the samples of a box lie on its map, and how boxes are split over threads.
#include "work.h"

#include <cmath>
#include <cstring>
#include <map>

using ctnet::Kernels;
using ctnet::RoiAxis;
using ctnet::RoiBox;
using ctnet::run;

// Samples have to lie on the side of a map's border on which the reference places them, so that positions are rounded
// step by step.
#if defined(__clang__)
#pragma clang fp reassociate(off) contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("no-associative-math", "fp-contract=off")
#endif

namespace {

// The corners of a box's samples along one axis, bin after bin.
template <class W> struct Axis {
    std::vector<int32_t> begin;
    std::vector<int64_t> cell;
    std::vector<W> weight;

    void add(int64_t at, W by) {
        // neighbouring samples share corners
        const size_t known = cell.size(), first = std::max<size_t>(begin.back(), known < 4 ? 0 : known - 4);
        for (size_t i = first; i < known; ++i)
            if (cell[i] == at) {
                weight[i] += by;
                return;
            }
        cell.push_back(at);
        weight.push_back(by);
    }

    void fill(W start, W bin, W samples, int64_t side, int64_t size) {
        begin.clear(), cell.clear(), weight.clear();
        const W spacing = bin / samples;
        for (int64_t p = 0; p < size; ++p) {
            begin.push_back(static_cast<int32_t>(cell.size()));
            const W base = start + static_cast<W>(p) * bin;
            W low = 0, high = samples;
            if (spacing > 0) { // of a box much larger than the map, only the samples about the map are looked at
                low = std::max(low, std::floor((-1 - base) / spacing - 3));
                high = std::min(high, std::ceil((static_cast<W>(side) - base) / spacing + 3));
            }
            for (W n = low; n < high; ++n) {
                const W part = (n + W(0.5)) * bin / samples;
                W at = base + part;
                if (!(at >= -1 && at <= static_cast<W>(side))) continue;
                at = std::max(at, W(0));
                const int64_t cell_low = std::min(static_cast<int64_t>(at), side - 1);
                const int64_t cell_high = std::min(cell_low + 1, side - 1);
                const W right = cell_low < cell_high ? at - static_cast<W>(cell_low) : 0;
                add(cell_low, (1 - right) / samples);
                add(cell_high, right / samples);
            }
        }
        begin.push_back(static_cast<int32_t>(cell.size()));
    }

    RoiAxis view() const { return {begin.data(), cell.data(), weight.data()}; }
};

// A box on its map: corners along y as distances of rows, those along x as blocks of a line of columns.
template <class W> struct Placed {
    Axis<W> y, x;
    std::vector<int64_t> column;

    // Returns whether the box has samples.
    bool fill(const ctnet_roi_shape &s, int64_t box) {
        const W *g = static_cast<const W *>(s.boxes) + 6 * box;
        if (!(g[4] > 0 && g[5] > 0)) return false;
        const int64_t height = s.sides[2 * s.level[box]], width = s.sides[2 * s.level[box] + 1];
        y.fill(g[0], g[2], g[4], height, s.size);
        x.fill(g[1], g[3], g[5], width, s.size);
        if (y.cell.empty() || x.cell.empty()) return false;
        for (int64_t &row : y.cell) row *= width * s.channels;
        const auto ends = std::minmax_element(x.cell.begin(), x.cell.end());
        const int64_t first = *ends.first;
        std::vector<int64_t> place(*ends.second - first + 1, -1);
        for (int64_t cell : x.cell) place[cell - first] = 0;
        column.clear();
        for (size_t i = 0; i < place.size(); ++i)
            if (place[i] == 0) {
                place[i] = static_cast<int64_t>(column.size()) * ctnet::kPooled;
                column.push_back((first + static_cast<int64_t>(i)) * s.channels);
            }
        for (int64_t &cell : x.cell) cell = place[cell - first];
        return true;
    }

    RoiBox view(const ctnet_roi_shape &s) const {
        return {s.size, s.channels, y.view(), x.view(), column.data(), static_cast<int64_t>(column.size())};
    }

    int64_t scratch_bytes(const ctnet_roi_shape &s) const {
        const int64_t blocks = static_cast<int64_t>(column.size()) + s.size * s.size;
        return blocks * ctnet::kPooled * static_cast<int64_t>(sizeof(W));
    }
};

int64_t map_elements(const ctnet_roi_shape &s, int64_t level) {
    return s.sides[2 * level] * s.sides[2 * level + 1] * s.channels;
}

template <class W>
void pool(const Kernels &k, const ctnet_roi_shape &s, int type, const void *const *maps, void *out, int threads) {
    const int64_t bytes = ctnet::bytes_of(type), out_bytes = s.channels * s.size * s.size * bytes;
    run(threads, s.rois, [&](int64_t box) {
        thread_local Placed<W> placed;
        thread_local ctnet::Scratch scratch;
        char *to = static_cast<char *>(out) + box * out_bytes;
        if (!placed.fill(s, box)) {
            std::memset(to, 0, out_bytes);
            return;
        }
        const char *map = static_cast<const char *>(maps[s.level[box]]);
        k.roi_pool(type, placed.view(s), map + s.image[box] * map_elements(s, s.level[box]) * bytes, to,
                   scratch.bytes(placed.scratch_bytes(s)));
        scratch.release();
    });
}

// A thread adds up some channels of one image's map, box after box, so that sums have an order.
template <class W>
void spread(const Kernels &k, const ctnet_roi_shape &s, int type, const void *grad_out, void *const *sums, int threads) {
    std::vector<Placed<W>> placed(s.rois);
    std::vector<char> has_samples(s.rois);
    run(threads, s.rois, [&](int64_t box) { has_samples[box] = placed[box].fill(s, box); });
    std::map<std::pair<int64_t, int64_t>, std::vector<int64_t>> by_map;
    for (int64_t box = 0; box < s.rois; ++box)
        if (has_samples[box]) by_map[{s.level[box], s.image[box]}].push_back(box);
    std::vector<const std::vector<int64_t> *> maps;
    for (const auto &entry : by_map) maps.push_back(&entry.second);
    const int64_t out_bytes = s.channels * s.size * s.size * ctnet::bytes_of(type);
    const int64_t step = s.channels / ctnet::kPooled >= threads ? ctnet::kPooled : 16;
    const int64_t blocks = (s.channels + step - 1) / step;
    run(threads, static_cast<int64_t>(maps.size()) * blocks, [&](int64_t index) {
        thread_local ctnet::Scratch scratch;
        const int64_t first = index % blocks * step, last = std::min(s.channels, first + step);
        for (int64_t box : *maps[index / blocks]) {
            W *to = static_cast<W *>(sums[s.level[box]]) + s.image[box] * map_elements(s, s.level[box]);
            k.roi_spread(type, placed[box].view(s), static_cast<const char *>(grad_out) + box * out_bytes, first, last,
                         to, scratch.bytes(placed[box].scratch_bytes(s)));
        }
        scratch.release();
    });
}

} // namespace

int ctnet_roi_align(const ctnet_roi_shape *shape, int type, const void *const *maps, void *out, int threads) {
    const auto run_for = type == CTNET_FLOAT64 ? pool<double> : pool<float>;
    run_for(ctnet::selected_kernels(), *shape, type, maps, out, threads);
    return 0;
}

int ctnet_roi_align_backward(const ctnet_roi_shape *shape, int type, const void *grad_out, void *const *sums,
                             int threads) {
    const auto run_for = type == CTNET_FLOAT64 ? spread<double> : spread<float>;
    run_for(ctnet::selected_kernels(), *shape, type, grad_out, sums, threads);
    return 0;
}
