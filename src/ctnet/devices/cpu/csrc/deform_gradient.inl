// The gradients of the modulated deformable convolution. The gradient of columns is the output's times the weight, over
// filters; the weight's is the output's times the columns, over cells. What reaches the columns goes to the map's corners.
// Included inside the namespace of one instruction set.

// The products of one group, for a tile of so many cells: filters are rows, panels are of columns.
template <class T> struct Back {
    using M = Multiplied<T>;
    using Q = typename M::Q;
    using W = typename M::W;
    int64_t filters;
    Packing<T> over_cells, over_filters;

    Back(const ctnet_deform_shape &d, int64_t filters, int64_t cells)
        : filters(filters / d.groups), over_cells(cells, columns(d)), over_filters(filters / d.groups, columns(d)) {}
    static int64_t columns(const ctnet_deform_shape &d) { return d.kernel_h * d.kernel_w * (d.channels / d.groups); }
    static int64_t blocks_of(int64_t rows) { return (rows + M::block_rows - 1) / M::block_rows * M::block_rows; }
    int64_t turned() const { return blocks_of(filters) * over_cells.length; } // elements
    int64_t sums() const { return blocks_of(filters) * over_cells.padded(); }
};

#if CTNET_VECTOR_BYTES == 64
// 32 rows of 16 elements become columns; rows are `from_stride` and `to_stride` elements apart.
inline void turn_block(const float *from, int64_t from_stride, float *to, int64_t to_stride) {
    transpose_words(from, from_stride, to, to_stride);
    transpose_words(from + 16 * from_stride, from_stride, to + 16, to_stride);
}

inline void turn_block(const BFloat16 *from, int64_t from_stride, BFloat16 *to, int64_t to_stride) {
    alignas(64) uint32_t pairs[16][16];
    for (int64_t pair = 0; pair < 16; ++pair)
        weave(from + 2 * pair * from_stride, from + (2 * pair + 1) * from_stride, pairs[pair], 16);
    transpose_words(pairs, 16, to, to_stride / 2);
}
#endif

template <class T, class Q> inline void turn_block(const T *from, int64_t from_stride, Q *to, int64_t to_stride) {
    for (int64_t row = 0; row < 32; ++row)
        for (int64_t i = 0; i < 16; ++i) assign(to[i * to_stride + row], from[row * from_stride + i]);
}

// Writes to[filter * to_stride + cell] of `count` cells, whose filters lie in rows `from_stride` apart.
template <class T, class Q>
void turn(const T *from, int64_t from_stride, int64_t filters, int64_t count, Q *to, int64_t to_stride) {
    for (int64_t cell = 0; cell < count; cell += 32) {
        const int64_t cells = smaller(32, count - cell);
        int64_t filter = 0;
        for (; cells == 32 && filter + 16 <= filters; filter += 16)
            turn_block(from + cell * from_stride + filter, from_stride, to + filter * to_stride + cell, to_stride);
        for (; filter < filters; ++filter)
            for (int64_t i = 0; i < cells; ++i)
                assign(to[filter * to_stride + cell + i], from[(cell + i) * from_stride + filter]);
    }
}

// Writes the gradient of columns of a few cells, given that of their output.
template <class T>
void deform_column_gradients(const Back<T> &b, int64_t groups, const T *grad_out, int64_t count,
                             const typename Multiplied<T>::Q *packed, typename Multiplied<T>::W *scratch, T *columns) {
    using Q = typename Multiplied<T>::Q;
    const Packing<T> &p = b.over_filters;
    const int64_t rows = b.blocks_of(count);
    auto *left = reinterpret_cast<Q *>(scratch + rows * p.widest);
    if (b.filters < p.length || count < rows) std::memset(static_cast<void *>(left), 0, rows * p.length * sizeof *left);
    for (int64_t group = 0; group < groups; ++group) {
        for (int64_t row = 0; row < count; ++row)
            for (int64_t i = 0; i < b.filters; ++i)
                assign(left[row * p.length + i], grad_out[(row * groups + group) * b.filters + i]);
        multiply(p, left, count, packed + group * p.size(), static_cast<const T *>(nullptr),
                 columns + group * p.filters, groups * p.filters, scratch);
    }
}

// The products with the corners become the derivatives by y, x and modulation, in `y`, `x` and `modulation`.
template <class W> void slopes(Samples<W> &s, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
        const W a = s.valid[0][i] ? s.dot[0][i] : W(0), b = s.valid[1][i] ? s.dot[1][i] : W(0);
        const W c = s.valid[2][i] ? s.dot[2][i] : W(0), e = s.valid[3][i] ? s.dot[3][i] : W(0);
        const W fy = s.fraction_y[i], fx = s.fraction_x[i], m = s.inside[i] ? s.modulation[i] : W(0);
        s.y[i] = m * ((c - a) * (W(1) - fx) + (e - b) * fx);
        s.x[i] = m * ((b - a) * (W(1) - fy) + (e - c) * fy);
        s.modulation[i] =
            a * s.weight[0][i] + b * s.weight[1][i] + c * s.weight[2][i] + e * s.weight[3][i];
    }
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
