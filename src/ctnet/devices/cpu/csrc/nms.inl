// Overlaps of one box with many. Included inside the namespace of one instruction set.

// Returns the first index, from `from` on in steps of kSuspects, of kept boxes of which one may overlap `box` by more
// than a share `low` of their union, or `count`. Fields are x1, y1, x2, y2, area; where one is NaN there is no overlap.
inline int64_t suspects(const double *const kept[5], int64_t from, int64_t count, const double box[5], double low,
                        double extra) {
    const double *x1 = kept[0], *y1 = kept[1], *x2 = kept[2], *y2 = kept[3], *area = kept[4];
    for (int64_t begin = from; begin < count; begin += kSuspects) {
        const int64_t end = smaller(count, begin + kSuspects);
        int64_t found = 0;
#pragma omp simd reduction(| : found)
        for (int64_t i = begin; i < end; ++i) {
            const double width = (x2[i] < box[2] ? x2[i] : box[2]) - (x1[i] > box[0] ? x1[i] : box[0]) + extra;
            const double height = (y2[i] < box[3] ? y2[i] : box[3]) - (y1[i] > box[1] ? y1[i] : box[1]) + extra;
            const double both = (width > 0 ? width : 0) * (height > 0 ? height : 0);
            const bool much = (both > 0) & (both >= low * (area[i] + box[4] - both));
            found |= much ? 1 : 0;
        }
        if (found) return begin;
    }
    return count;
}
