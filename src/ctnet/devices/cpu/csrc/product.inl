// Products of a few rows of columns with packed weights, in registers.
// Included inside the namespace of one instruction set.
//
// A weight (K,N) is packed into panels of up to kPanelVectors vectors of filters: panel, k, filter. Rows of columns are
// K elements long. The order of a row's sums depends on nothing but the weight's shape.

#ifndef CTNET_VECTOR_BYTES // what one register holds
#define CTNET_VECTOR_BYTES 16
#define CTNET_PANEL_VECTORS 2
#endif

constexpr int64_t kPanelVectors = CTNET_PANEL_VECTORS;
constexpr int64_t kFewRows = 6;            // rows whose sums fit into the registers, beside a panel's vectors
constexpr int64_t kPieceBytes = 128 << 10; // of packed weights that stay in the cache while row after row meets them

template <class W> struct Vector {
    typedef W type __attribute__((vector_size(CTNET_VECTOR_BYTES)));
    static constexpr int64_t lanes = CTNET_VECTOR_BYTES / sizeof(W);
};

// How maps of elements T are multiplied: Q is the type of columns and packed weights, `block_rows` rows at a time;
// `step` elements of K go together. `panel_sums` adds to sums[row][filter] of a block of rows and a panel of V vectors,
// or, to begin with, sets them; rows of columns are `stride` elements apart.
template <class T> struct Multiplied {
    using Q = typename Wide<T>::type;
    using W = typename Wide<T>::type;
    static constexpr int64_t step = 1, block_rows = kFewRows, lanes = Vector<W>::lanes, vectors = kPanelVectors;

    template <int64_t V>
    static void panel_sums(const Q *columns, int64_t stride, int64_t length, const Q *packed, W *sums, bool begin) {
        using Lanes = typename Vector<W>::type;
        Lanes sum[kFewRows][V] = {};
        if (!begin) std::memcpy(sum, sums, sizeof sum);
        for (int64_t k = 0; k < length; ++k) {
            const Lanes *weights = reinterpret_cast<const Lanes *>(packed + k * V * lanes);
#pragma GCC unroll 6
            for (int64_t row = 0; row < kFewRows; ++row) {
                const W x = columns[row * stride + k];
#pragma GCC unroll 4
                for (int64_t v = 0; v < V; ++v) sum[row][v] += x * weights[v];
            }
        }
        std::memcpy(sums, sum, sizeof sum);
    }
};

// Claims what a thread multiplies with while it lasts.
struct Multiplier {
#ifdef CTNET_NATIVE_TILES
    struct Configuration {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    };

    Multiplier() {
        const Configuration eight_full_tiles;
        // some compilers drop stores beyond the first bytes; the asm barrier forces the whole struct to memory
        __asm__ volatile("" : : "r"(&eight_full_tiles) : "memory");
        _tile_loadconfig(&eight_full_tiles);
    }
    ~Multiplier() { _tile_release(); }
#else
    Multiplier() {}
#endif
    Multiplier(const Multiplier &) = delete;
};

#ifdef CTNET_NATIVE_BF16
#ifdef CTNET_NATIVE_TILES

// 32 rows by 32 filters in four AMX tiles of sums.
template <> struct Multiplied<BFloat16> {
    using Q = BFloat16;
    using W = float;
    static constexpr int64_t step = 32, block_rows = 32, lanes = 16, vectors = 2;

    template <int64_t V>
    static void panel_sums(const Q *columns, int64_t stride, int64_t length, const Q *packed, W *sums, bool begin) {
        const Q *below = columns + 16 * stride;
        const int64_t row_bytes = stride * sizeof(Q), packed_bytes = V * 64;
        const int64_t width = V * lanes, sum_bytes = width * sizeof(W);
        __asm__ volatile("" ::: "memory"); // some compilers do not know that tiles are loaded from memory
        if (begin) {
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
        } else {
            _tile_loadd(0, sums, sum_bytes);
            _tile_loadd(2, sums + 16 * width, sum_bytes);
            if (V == 2) {
                _tile_loadd(1, sums + lanes, sum_bytes);
                _tile_loadd(3, sums + 16 * width + lanes, sum_bytes);
            }
        }
        for (int64_t k = 0; k < length; k += step, packed += step * V * lanes) {
            _tile_loadd(4, columns + k, row_bytes);
            _tile_loadd(5, below + k, row_bytes);
            _tile_loadd(6, packed, packed_bytes);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(2, 5, 6);
            if (V == 2) {
                _tile_loadd(7, packed + 32, packed_bytes);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(3, 5, 7);
            }
        }
        _tile_stored(0, sums, sum_bytes);
        _tile_stored(2, sums + 16 * width, sum_bytes);
        if (V == 2) {
            _tile_stored(1, sums + lanes, sum_bytes);
            _tile_stored(3, sums + 16 * width + lanes, sum_bytes);
        }
        __asm__ volatile("" ::: "memory");
    }
};

#else

// Pairs of elements in one instruction.
template <> struct Multiplied<BFloat16> {
    using Q = BFloat16;
    using W = float;
    static constexpr int64_t step = 2, block_rows = kFewRows, lanes = 16, vectors = kPanelVectors;

    template <int64_t V>
    static void panel_sums(const Q *columns, int64_t stride, int64_t length, const Q *packed, W *sums, bool begin) {
        __m512 sum[kFewRows][V] = {};
        if (!begin) std::memcpy(sum, sums, sizeof sum);
        for (int64_t k = 0; k < length; k += step) {
            const __m512i *weights = reinterpret_cast<const __m512i *>(packed + k * V * lanes);
#pragma GCC unroll 6
            for (int64_t row = 0; row < kFewRows; ++row) {
                int32_t pair;
                std::memcpy(&pair, columns + row * stride + k, sizeof pair);
                const __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 4
                for (int64_t v = 0; v < V; ++v)
                    sum[row][v] = _mm512_dpbf16_ps(sum[row][v], x, (__m512bh)_mm512_load_si512(weights + v));
            }
        }
        std::memcpy(sums, sum, sizeof sum);
    }
};

#endif
#endif

// A weight of one group as it is packed: `length` is K rounded up to whole steps, the rest is zero.
template <class T> struct Packing {
    using M = Multiplied<T>;
    static constexpr int64_t widest = M::vectors * M::lanes; // filters of a panel; the last may be narrower
    int64_t length, filters;

    Packing(int64_t k, int64_t filters) : length((k + M::step - 1) / M::step * M::step), filters(filters) {}
    int64_t panels() const { return (filters + widest - 1) / widest; }
    int64_t width(int64_t panel) const {
        return (smaller(widest, filters - panel * widest) + M::lanes - 1) / M::lanes * M::lanes;
    }
    int64_t padded() const { return (filters + M::lanes - 1) / M::lanes * M::lanes; }
    int64_t piece() const { return kPieceBytes / (widest * static_cast<int64_t>(sizeof(typename M::Q))) / M::step * M::step; }
    int64_t size() const { return padded() * length; } // elements
};

#if CTNET_VECTOR_BYTES == 64
// 16 rows of 16 words become columns; rows are `from_stride` and `to_stride` words apart.
inline void transpose_words(const void *from, int64_t from_stride, void *to, int64_t to_stride) {
    __m512i r[16], t[16];
    for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_si512(static_cast<const int32_t *>(from) + i * from_stride);
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; ++j) {
            r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    for (int j = 0; j < 4; ++j) { // now lane l of r[4 i + j] holds rows 4 i .. 4 i + 3 of column 4 l + j
        const __m512i even = _mm512_shuffle_i32x4(r[j], r[j + 4], 0x88), odd = _mm512_shuffle_i32x4(r[j], r[j + 4], 0xdd);
        const __m512i even_below = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0x88);
        const __m512i odd_below = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0xdd);
        int32_t *column = static_cast<int32_t *>(to) + j * to_stride;
        _mm512_storeu_si512(column, _mm512_shuffle_i32x4(even, even_below, 0x88));
        _mm512_storeu_si512(column + 4 * to_stride, _mm512_shuffle_i32x4(odd, odd_below, 0x88));
        _mm512_storeu_si512(column + 8 * to_stride, _mm512_shuffle_i32x4(even, even_below, 0xdd));
        _mm512_storeu_si512(column + 12 * to_stride, _mm512_shuffle_i32x4(odd, odd_below, 0xdd));
    }
}
#endif

// Walks over the elements of a filter (C/groups,kh,kw) of any strides in the order of columns: taps, then channels.
struct FilterWalk {
    int64_t channels, kernel_h, kernel_w, channel_stride, row_stride, column_stride;
    int64_t channel = 0, row = 0, column = 0;

    int64_t count() const { return channels * kernel_h * kernel_w; }
    int64_t place() const { return channel * channel_stride + row * row_stride + column * column_stride; }
    void advance() {
        if (++channel < channels) return;
        channel = 0;
        if (++column < kernel_w) return;
        column = 0;
        ++row;
    }
};

// Packs one panel of a weight whose filters are `stride` elements apart.
template <class T>
void pack_panel(const Packing<T> &p, const T *weight, int64_t stride, FilterWalk walk, int64_t panel,
                typename Multiplied<T>::Q *packed) {
    using Q = typename Multiplied<T>::Q;
    constexpr int64_t together = Multiplied<T>::step > 1 ? 2 : 1; // elements of K side by side
    constexpr int64_t block = 16 * together;                      // of K, so that a cache line is read once
    const int64_t first = panel * p.widest, width = p.width(panel), valid = smaller(width, p.filters - first);
    packed += first * p.length;
    if (valid < width || walk.count() < p.length)
        std::memset(static_cast<void *>(packed), 0, width * p.length * sizeof *packed);
    for (int64_t begin = 0; begin < walk.count(); begin += block) {
        const int64_t count = smaller(block, walk.count() - begin);
        int64_t from[block], filter = 0;
        for (int64_t i = 0; i < count; ++i, walk.advance()) from[i] = walk.place();
#if CTNET_VECTOR_BYTES == 64
        bool in_a_row = count == block && sizeof(T) == sizeof(Q) && sizeof(Q) * together == 4 && stride % together == 0;
        for (int64_t i = 1; i < count; ++i) in_a_row &= from[i] == from[0] + i;
        for (; in_a_row && filter + 16 <= valid; filter += 16)
            transpose_words(weight + (first + filter) * stride + from[0], stride / together,
                            packed + begin * width + filter * together, width);
#endif
        for (; filter < valid; ++filter) {
            const T *source = weight + (first + filter) * stride;
            Q *to = packed + begin * width + filter * together;
            for (int64_t i = 0; i < count; ++i)
                assign(to[i / together * together * width + i % together], source[from[i]]);
        }
    }
}

// Words of one element from `a` and the one of `b` at its place.
inline void weave(const BFloat16 *a, const BFloat16 *b, void *words, int64_t count) {
    char *to = static_cast<char *>(words);
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
        const uint32_t word = a[i].bits | static_cast<uint32_t>(b[i].bits) << 16;
        std::memcpy(to + 4 * i, &word, sizeof word);
    }
}

// Packs one panel of `count` rows of K, whose filters lie side by side; rows are `stride` elements apart.
template <class T>
void pack_rows(const Packing<T> &p, const T *rows, int64_t stride, int64_t count, int64_t panel,
               typename Multiplied<T>::Q *packed) {
    const int64_t first = panel * p.widest, width = p.width(panel), valid = smaller(width, p.filters - first);
    if (valid < width || count < p.length)
        std::memset(static_cast<void *>(packed), 0, width * p.length * sizeof *packed);
    for (int64_t k = 0; k < count; ++k)
        for (int64_t i = 0; i < valid; ++i) assign(packed[k * width + i], rows[k * stride + first + i]);
}

#ifdef CTNET_NATIVE_BF16
inline void pack_rows(const Packing<BFloat16> &p, const BFloat16 *rows, int64_t stride, int64_t count, int64_t panel,
                      BFloat16 *packed) {
    constexpr BFloat16 zeros[Packing<BFloat16>::widest] = {};
    const int64_t first = panel * p.widest, width = p.width(panel), valid = smaller(width, p.filters - first);
    if (valid < width || count < p.length)
        std::memset(static_cast<void *>(packed), 0, width * p.length * sizeof *packed);
    for (int64_t k = 0; k < count; k += 2) {
        const BFloat16 *row = rows + k * stride + first;
        weave(row, k + 1 < count ? row + stride : zeros, packed + k * width, valid);
    }
}
#endif

template <class T, class W> inline void finish_row(const W *sums, const T *bias, T *out, int64_t count) {
    if (bias == nullptr)
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) out[i] = narrow<T>(sums[i]);
    else
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) out[i] = narrow<T>(sums[i] + widen(bias[i]));
}

// Adds the products of rows of columns with one panel to sums[row][filter], or, to begin with, sets them. Of `columns`,
// rows up to a multiple of `block_rows` are read, and `sums` has as many.
template <class T>
void add_panel(const Packing<T> &p, int64_t width, const typename Multiplied<T>::Q *columns, int64_t rows,
               const typename Multiplied<T>::Q *packed, typename Multiplied<T>::W *sums, bool begin) {
    using M = Multiplied<T>;
    for (int64_t k = 0; k < p.length; k += p.piece(), begin = false) {
        const int64_t count = smaller(p.piece(), p.length - k);
        const auto *weights = packed + k * width;
        for (int64_t row = 0; row < rows; row += M::block_rows) {
            const auto *block = columns + row * p.length + k;
            typename M::W *to = sums + row * width;
            switch (width / M::lanes) {
            case 1: M::template panel_sums<1>(block, p.length, count, weights, to, begin); break;
            case 2: M::template panel_sums<2>(block, p.length, count, weights, to, begin); break;
            case 3: M::template panel_sums<M::vectors < 3 ? 1 : 3>(block, p.length, count, weights, to, begin); break;
            default: M::template panel_sums<M::vectors < 4 ? 1 : 4>(block, p.length, count, weights, to, begin);
            }
        }
    }
}

// Writes out[row][filter], rows `out_stride` apart; `sums` takes as many rows of `widest` filters as `add_panel` wants.
template <class T>
void multiply(const Packing<T> &p, const typename Multiplied<T>::Q *columns, int64_t rows,
              const typename Multiplied<T>::Q *packed, const T *bias, T *out, int64_t out_stride,
              typename Multiplied<T>::W *sums) {
    for (int64_t panel = 0; panel < p.panels(); ++panel) {
        const int64_t first = panel * p.widest, width = p.width(panel), valid = smaller(width, p.filters - first);
        add_panel(p, width, columns, rows, packed + first * p.length, sums, true);
        for (int64_t row = 0; row < rows; ++row)
            finish_row(sums + row * width, bias == nullptr ? nullptr : bias + first, out + row * out_stride + first,
                       valid);
    }
}
