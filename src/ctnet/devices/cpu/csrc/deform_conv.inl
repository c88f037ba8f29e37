// The modulated deformable convolution: where it samples, and its products.
// Included inside the namespace of one instruction set.

#include "blend.inl"

constexpr int64_t kBlock = 128; // samples whose positions are worked out together

// A run of channels with one deformable group and one weight group.
struct Segment {
    int64_t first, length, deform_group, group;
};

// The run that starts at channel `first` and ends at `last` at the latest.
inline Segment segment_at(const ctnet_deform_shape &d, int64_t first, int64_t last) {
    const int64_t per_deform = d.channels / d.deform_groups, per_group = d.channels / d.groups;
    const int64_t deform_group = first / per_deform, group = first / per_group;
    const int64_t end = smaller(smaller((deform_group + 1) * per_deform, (group + 1) * per_group), last);
    return {first, end - first, deform_group, group};
}

// Where the samples of a few cells look, corner by corner: top-left, top-right, bottom-left, bottom-right.
template <class W> struct Samples {
    alignas(64) W y[kBlock], x[kBlock], modulation[kBlock];
    alignas(64) W fraction_y[kBlock], fraction_x[kBlock];
    alignas(64) int32_t pixel[4][kBlock];
    alignas(64) int32_t inside[kBlock];     // the sample touches the map
    alignas(64) int32_t valid[4][kBlock];   // the corner lies on the map
    alignas(64) W weight[4][kBlock];        // bilinear, 0 for corners off the map; without the modulation
    alignas(64) W dot[4][kBlock];           // backward: products of gradient and corner
};

struct Cell {
    int64_t image, row, column;
};

inline Cell cell_at(const ctnet_deform_shape &d, int64_t index) {
    const int64_t area = d.out_height * d.out_width, within = index % area;
    return {index / area, within / d.out_width, within % d.out_width};
}

inline void next(const ctnet_deform_shape &d, Cell &cell) {
    if (++cell.column == d.out_width) {
        cell.column = 0;
        if (++cell.row == d.out_height) {
            cell.row = 0;
            ++cell.image;
        }
    }
}

inline int64_t position(const int64_t stride[4], const Cell &cell) {
    return cell.image * stride[0] + cell.row * stride[2] + cell.column * stride[3];
}

// Positions before bounds are looked at, for `count` samples of one cell from number `sample` (group-major) on.
template <class S, class W>
void read_positions(const ctnet_deform_shape &d, const S *offset, const S *mask, const Cell &cell, int64_t sample,
                    int64_t count, Samples<W> &s, int64_t at) {
    const int64_t taps = d.kernel_h * d.kernel_w;
    const S *from = offset + position(d.offset_stride, cell);
    const S *strength = mask == nullptr ? nullptr : mask + position(d.mask_stride, cell);
    int64_t tap = sample % taps, ky = tap / d.kernel_w, kx = tap % d.kernel_w;
    for (int64_t i = 0; i < count; ++i, ++sample) {
        const W base_y = static_cast<W>(cell.row * d.stride_h - d.padding_h + ky * d.dilation_h);
        const W base_x = static_cast<W>(cell.column * d.stride_w - d.padding_w + kx * d.dilation_w);
        s.y[at + i] = base_y + static_cast<W>(widen(from[2 * sample * d.offset_stride[1]]));
        s.x[at + i] = base_x + static_cast<W>(widen(from[(2 * sample + 1) * d.offset_stride[1]]));
        s.modulation[at + i] = strength == nullptr ? W(1) : static_cast<W>(widen(strength[sample * d.mask_stride[1]]));
        if (++kx == d.kernel_w) {
            kx = 0;
            if (++ky == d.kernel_h) ky = 0;
        }
    }
}

// Corners and weights of samples 0 .. count-1 from their positions.
template <class W> void place(const ctnet_deform_shape &d, Samples<W> &s, int64_t count) {
    const W height = static_cast<W>(d.height), width = static_cast<W>(d.width);
    const int32_t row_length = static_cast<int32_t>(d.width);
    const int32_t last_row = static_cast<int32_t>(d.height - 1), last_column = static_cast<int32_t>(d.width - 1);
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
        W y = s.y[i], x = s.x[i];
        // NaN compares false and so lies outside.
        const bool inside = (y > W(-1)) & (y < height) & (x > W(-1)) & (x < width);
        y = inside ? y : W(0);
        x = inside ? x : W(0);
        // The floor: truncation rounds negative numbers up.
        int32_t top = static_cast<int32_t>(y), left = static_cast<int32_t>(x);
        top -= static_cast<W>(top) > y;
        left -= static_cast<W>(left) > x;
        const W fy = y - static_cast<W>(top), fx = x - static_cast<W>(left);
        const int32_t t = inside & (top >= 0), b = inside & (top < last_row);
        const int32_t l = left >= 0, r = left < last_column;
        const int32_t upper = (top < 0 ? 0 : top) * row_length, lower = (top < last_row ? top + 1 : last_row) * row_length;
        const int32_t near = left < 0 ? 0 : left, far = left < last_column ? left + 1 : last_column;
        s.fraction_y[i] = fy;
        s.fraction_x[i] = fx;
        s.inside[i] = inside;
        s.pixel[0][i] = upper + near;
        s.pixel[1][i] = upper + far;
        s.pixel[2][i] = lower + near;
        s.pixel[3][i] = lower + far;
        s.valid[0][i] = t & l;
        s.valid[1][i] = t & r;
        s.valid[2][i] = b & l;
        s.valid[3][i] = b & r;
        s.weight[0][i] = (t & l) ? (W(1) - fy) * (W(1) - fx) : W(0);
        s.weight[1][i] = (t & r) ? (W(1) - fy) * fx : W(0);
        s.weight[2][i] = (b & l) ? fy * (W(1) - fx) : W(0);
        s.weight[3][i] = (b & r) ? fy * fx : W(0);
    }
}

// Walks over cells first .. first+count-1 in blocks of as many whole cells as fit into `Samples`; a cell with more
// samples than that goes in pieces, one block each.
struct Blocks {
    const ctnet_deform_shape &d;
    int64_t count, samples, most_cells;
    Cell start;       // first cell of the block
    int64_t done = 0; // cells before the block
    int64_t cells, piece = 0, in_cell; // its cells; first sample of each, and how many

    Blocks(const ctnet_deform_shape &d, int64_t first, int64_t count)
        : d(d), count(count), samples(d.kernel_h * d.kernel_w * d.deform_groups),
          most_cells(larger(1, kBlock / samples)), start(cell_at(d, first)) {
        measure();
    }
    bool more() const { return done < count; }
    void measure() {
        cells = smaller(most_cells, count - done);
        in_cell = smaller(kBlock, samples - piece);
    }
    void advance() {
        piece += kBlock;
        if (piece >= samples) {
            for (int64_t i = 0; i < cells; ++i) next(d, start);
            done += cells;
            piece = 0;
        }
        measure();
    }
};

template <class S, class W>
void read_block(const ctnet_deform_shape &d, const S *offset, const S *mask, const Blocks &block, Samples<W> &s) {
    Cell cell = block.start;
    for (int64_t i = 0; i < block.cells; ++i, next(d, cell))
        read_positions(d, offset, mask, cell, block.piece, block.in_cell, s, i * block.in_cell);
    place(d, s, block.cells * block.in_cell);
}

// Element (group, cell, tap, channel of the group) goes to columns[group * group_stride + cell * cell_stride + ...].
template <class T, class Q, class S>
void deform_columns(const ctnet_deform_shape &d, const T *map, const S *offset, const S *mask, int64_t first, int64_t count,
                    Q *columns, int64_t group_stride, int64_t cell_stride) {
    using W = typename Wide<T>::type;
    const int64_t taps = d.kernel_h * d.kernel_w;
    const int64_t per_group = d.channels / d.groups, image_size = d.height * d.width * d.channels;
    Samples<W> s;
    for (Blocks block(d, first, count); block.more(); block.advance()) {
        read_block(d, offset, mask, block, s);
        Cell here = block.start;
        for (int64_t i = 0; i < block.cells; ++i, next(d, here)) {
            const T *image = map + here.image * image_size;
            Q *row = columns + (block.done + i) * cell_stride;
            for (int64_t c = 0; c < d.channels;) {
                const Segment part = segment_at(d, c, d.channels);
                c += part.length;
                const int64_t low = larger(part.deform_group * taps, block.piece);
                const int64_t high = smaller((part.deform_group + 1) * taps, block.piece + block.in_cell);
                for (int64_t sample = low; sample < high; ++sample) {
                    const int64_t j = i * block.in_cell + sample - block.piece;
                    const int64_t tap = sample - part.deform_group * taps;
                    Q *out = row + part.group * group_stride + (tap - part.group) * per_group + part.first;
                    if (!s.inside[j]) {
                        std::memset(static_cast<void *>(out), 0, part.length * sizeof(Q));
                        continue;
                    }
                    const T *base = image + part.first;
                    const W m = s.modulation[j];
                    blend(base + s.pixel[0][j] * d.channels, base + s.pixel[1][j] * d.channels,
                          base + s.pixel[2][j] * d.channels, base + s.pixel[3][j] * d.channels, s.weight[0][j] * m,
                          s.weight[1][j] * m, s.weight[2][j] * m, s.weight[3][j] * m, out, part.length);
                }
            }
        }
    }
}

// A deformable convolution of cells first .. first+count-1. `sums` takes `capacity` rows of a panel, `columns` as many of
// each group; `packed` holds the groups' weights one after the other.
template <class T, class S>
void deform_convolve(const ctnet_deform_shape &d, const T *map, const S *offset, const S *mask,
                     const typename Multiplied<T>::Q *packed, const T *bias, int64_t filters, int64_t first,
                     int64_t count, typename Multiplied<T>::W *sums, typename Multiplied<T>::Q *columns,
                     int64_t capacity, T *out) {
    const int64_t per_group = d.channels / d.groups, k = d.kernel_h * d.kernel_w * per_group;
    const int64_t of_group = filters / d.groups;
    const Packing<T> p(k, of_group);
    if (k < p.length) std::memset(static_cast<void *>(columns), 0, d.groups * capacity * p.length * sizeof *columns);
    deform_columns(d, map, offset, mask, first, count, columns, capacity * p.length, p.length);
    for (int64_t group = 0; group < d.groups; ++group)
        multiply(p, columns + group * capacity * p.length, count, packed + group * p.size(),
                 bias == nullptr ? nullptr : bias + group * of_group, out + first * filters + group * of_group, filters,
                 sums);
}
