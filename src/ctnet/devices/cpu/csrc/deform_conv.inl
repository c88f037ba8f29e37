// Sampling for the modulated deformable convolution, and its gradient.
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
    alignas(64) W dot[4][kBlock];           // on the way back: products of gradient and corner
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
        // Not a number compares false and so lies outside.
        const bool inside = (y > W(-1)) & (y < height) & (x > W(-1)) & (x < width);
        y = inside ? y : W(0);
        x = inside ? x : W(0);
        // The floor: truncation goes up for what is below zero.
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

// The products with the corners become the derivatives by y, x and modulation, in `y`, `x` and `modulation`.
template <class W> void slopes(Samples<W> &s, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
        const W a = s.valid[0][i] ? s.dot[0][i] : W(0), b = s.valid[1][i] ? s.dot[1][i] : W(0);
        const W c = s.valid[2][i] ? s.dot[2][i] : W(0), e = s.valid[3][i] ? s.dot[3][i] : W(0);
        const W fy = s.fraction_y[i], fx = s.fraction_x[i], m = s.modulation[i];
        s.y[i] = m * ((c - a) * (W(1) - fx) + (e - b) * fx);
        s.x[i] = m * ((b - a) * (W(1) - fy) + (e - c) * fy);
        s.modulation[i] =
            a * s.weight[0][i] + b * s.weight[1][i] + c * s.weight[2][i] + e * s.weight[3][i];
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

// One sample's share: its gradient goes to the four corners, and its products with them come back.
template <class T, class W>
inline void spread(const T *__restrict gradient, const T *a, const T *b, const T *c, const T *d, W *__restrict ga,
                   W *__restrict gb, W *__restrict gc, W *__restrict gd, W wa, W wb, W wc, W wd, W *dots,
                   int64_t corner_stride, int64_t count) {
    W sa = 0, sb = 0, sc = 0, sd = 0;
#pragma omp simd reduction(+ : sa, sb, sc, sd)
    for (int64_t i = 0; i < count; ++i) {
        const W g = widen(gradient[i]);
        sa += g * widen(a[i]);
        sb += g * widen(b[i]);
        sc += g * widen(c[i]);
        sd += g * widen(d[i]);
        ga[i] += wa * g;
        gb[i] += wb * g;
        gc[i] += wc * g;
        gd[i] += wd * g;
    }
    dots[0] += sa;
    dots[corner_stride] += sb;
    dots[2 * corner_stride] += sc;
    dots[3 * corner_stride] += sd;
}

// Cells first .. first+count-1, channels low .. high-1. `dots` (4, count, samples) takes the products with the corners
// and `off_map` (4, C) what would fall off the map.
template <class T, class S>
void deform_spread(const ctnet_deform_shape &d, const T *map, const S *offset, const S *mask, int64_t first,
                   int64_t count, const T *grad_columns, int64_t low_channel, int64_t high_channel,
                   typename Wide<T>::type *grad_map, typename Wide<T>::type *dots, int64_t corner_stride,
                   typename Wide<T>::type *off_map) {
    using W = typename Wide<T>::type;
    const int64_t taps = d.kernel_h * d.kernel_w, samples = taps * d.deform_groups;
    const int64_t per_group = d.channels / d.groups, image_size = d.height * d.width * d.channels;
    Samples<W> s;
    for (Blocks block(d, first, count); block.more(); block.advance()) {
        read_block(d, offset, mask, block, s);
        for (int corner = 0; corner < 4; ++corner)
            for (int64_t i = 0; i < block.cells; ++i)
                for (int64_t j = 0; j < block.in_cell; ++j)
                    dots[corner * corner_stride + (block.done + i) * samples + block.piece + j] = 0;
        Cell here = block.start;
        for (int64_t i = 0; i < block.cells; ++i, next(d, here)) {
            const T *image = map + here.image * image_size;
            W *grad_image = grad_map + here.image * image_size;
            const T *row = grad_columns + (block.done + i) * taps * d.channels;
            for (int64_t c = low_channel; c < high_channel;) {
                const Segment part = segment_at(d, c, high_channel);
                c += part.length;
                const int64_t low = larger(part.deform_group * taps, block.piece);
                const int64_t high = smaller((part.deform_group + 1) * taps, block.piece + block.in_cell);
                for (int64_t sample = low; sample < high; ++sample) {
                    const int64_t j = i * block.in_cell + sample - block.piece;
                    if (!s.inside[j]) continue;
                    const int64_t tap = sample - part.deform_group * taps;
                    const T *gradient =
                        row + (part.group * taps + tap) * per_group + part.first - part.group * per_group;
                    const T *from[4];
                    W *to[4];
                    for (int corner = 0; corner < 4; ++corner) {
                        const int64_t at = s.pixel[corner][j] * d.channels + part.first;
                        from[corner] = image + at;
                        to[corner] = s.valid[corner][j] ? grad_image + at : off_map + corner * d.channels;
                    }
                    const W m = s.modulation[j];
                    spread(gradient, from[0], from[1], from[2], from[3], to[0], to[1], to[2], to[3],
                           s.weight[0][j] * m, s.weight[1][j] * m, s.weight[2][j] * m, s.weight[3][j] * m,
                           dots + (block.done + i) * samples + sample, corner_stride, part.length);
                }
            }
        }
    }
}

// Gradients of offset and mask of cells first .. first+count-1 from the products of their samples with the corners,
// summed over `parts` of the channels that lie `part_stride` apart.
template <class T, class S>
void deform_side_gradients(const ctnet_deform_shape &d, const S *offset, const S *mask, int64_t first, int64_t count,
                           const typename Wide<T>::type *dots, int64_t corner_stride, int64_t parts,
                           int64_t part_stride, const ctnet_deform_shape &out, S *grad_offset, S *grad_mask) {
    using W = typename Wide<T>::type;
    const int64_t samples = d.kernel_h * d.kernel_w * d.deform_groups;
    Samples<W> s;
    for (Blocks block(d, first, count); block.more(); block.advance()) {
        read_block(d, offset, mask, block, s);
        for (int corner = 0; corner < 4; ++corner)
            for (int64_t i = 0; i < block.cells; ++i) {
                const W *from = dots + corner * corner_stride + (block.done + i) * samples + block.piece;
                W *sum = s.dot[corner] + i * block.in_cell;
                for (int64_t j = 0; j < block.in_cell; ++j) sum[j] = from[j];
                for (int64_t part = 1; part < parts; ++part)
                    for (int64_t j = 0; j < block.in_cell; ++j) sum[j] += from[part * part_stride + j];
            }
        slopes(s, block.cells * block.in_cell);
        Cell cell = block.start;
        for (int64_t i = 0; i < block.cells; ++i, next(d, cell)) {
            const int64_t at = i * block.in_cell;
            S *to = grad_offset + position(out.offset_stride, cell) + 2 * block.piece * out.offset_stride[1];
            for (int64_t j = 0; j < block.in_cell; ++j) {
                to[2 * j * out.offset_stride[1]] = narrow<S>(static_cast<typename Wide<S>::type>(s.y[at + j]));
                to[(2 * j + 1) * out.offset_stride[1]] = narrow<S>(static_cast<typename Wide<S>::type>(s.x[at + j]));
            }
            if (grad_mask == nullptr) continue;
            S *strength = grad_mask + position(out.mask_stride, cell) + block.piece * out.mask_stride[1];
            for (int64_t j = 0; j < block.in_cell; ++j)
                strength[j * out.mask_stride[1]] =
                    narrow<S>(static_cast<typename Wide<S>::type>(s.modulation[at + j]));
        }
    }
}
