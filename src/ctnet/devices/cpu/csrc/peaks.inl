// Local maxima of heatmaps and the largest of them, in one pass. Included inside the namespace of one instruction set.

constexpr int64_t kSpan = 64; // elements looked at together before any is looked at alone

// Puts `peak` on top of a heap of `count` and lets it sink below those that are weaker.
inline void replace_weakest(FoundPeak *heap, int64_t count, const FoundPeak &peak) {
    int64_t hole = 0;
    for (int64_t child; (child = 2 * hole + 1) < count; hole = child) {
        if (child + 1 < count && stronger(heap[child], heap[child + 1])) ++child;
        if (!stronger(peak, heap[child])) break;
        heap[hole] = heap[child];
    }
    heap[hole] = peak;
}

inline void add(FoundPeak *heap, int64_t &count, const FoundPeak &peak) {
    int64_t hole = count++;
    for (int64_t parent; hole > 0 && stronger(heap[parent = (hole - 1) / 2], peak); hole = parent)
        heap[hole] = heap[parent];
    heap[hole] = peak;
}

struct Heatmap {
    int64_t classes, height, width;
    int64_t class_stride, row_stride, column_stride;
};

template <class T> inline bool is_peak(const Heatmap &m, const T *at, float value, int64_t row, int64_t column) {
    const int64_t up = row > 0 ? -1 : 0, down = row + 1 < m.height ? 1 : 0;
    const int64_t left = column > 0 ? -1 : 0, right = column + 1 < m.width ? 1 : 0;
    for (int64_t dy = up; dy <= down; ++dy)
        for (int64_t dx = left; dx <= right; ++dx)
            if (!(value >= static_cast<float>(widen(at[dy * m.row_stride + dx * m.column_stride])))) return false; // also without a number
    return true;
}

template <class T> inline bool any_at_least(const T *run, int64_t count, float bound) {
    int32_t found = 0;
#pragma omp simd reduction(| : found)
    for (int64_t i = 0; i < count; ++i) found |= static_cast<float>(widen(run[i])) >= bound;
    return found != 0;
}

// Looks at rows first_row .. last_row-1 of one image; `best` becomes a heap of at most top_k, weakest on top, and their
// number is returned.
template <class T>
int64_t find_peaks(const Heatmap &m, const T *image, int64_t first_row, int64_t last_row, int64_t top_k,
                   FoundPeak *best) {
    const bool classes_inside = m.class_stride == 1 && m.classes > 1;
    const int64_t run = classes_inside ? m.width * m.classes : m.width;
    const int64_t outer = classes_inside ? 1 : m.classes;
    int64_t found = 0;
    for (int64_t plane = 0; plane < outer; ++plane)
        for (int64_t row = first_row; row < last_row; ++row) {
            const T *start = image + plane * m.class_stride + row * m.row_stride;
            for (int64_t begin = 0; begin < run; begin += kSpan) {
                const int64_t end = smaller(begin + kSpan, run);
                if (found == top_k && !any_at_least(start + begin, end - begin, best[0].logit)) continue;
                for (int64_t i = begin; i < end; ++i) {
                    const float value = static_cast<float>(widen(start[i]));
                    const int64_t column = classes_inside ? i / m.classes : i;
                    const int64_t label = classes_inside ? i % m.classes : plane;
                    const FoundPeak peak{value, (label * m.height + row) * m.width + column};
                    if (found == top_k && !stronger(peak, best[0])) continue;
                    if (!is_peak(m, start + i, value, row, column)) continue;
                    if (found == top_k) replace_weakest(best, found, peak);
                    else add(best, found, peak);
                }
            }
        }
    return found;
}
