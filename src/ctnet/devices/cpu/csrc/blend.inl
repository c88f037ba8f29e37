// One sample of the deformable convolution: a weighted sum of four rows of channels.
// Included inside the namespace of one instruction set.

template <class T, class Q, class W>
inline void blend(const T *__restrict a, const T *__restrict b, const T *__restrict c, const T *__restrict d, W wa,
                  W wb, W wc, W wd, Q *__restrict out, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i)
        out[i] = narrow<Q>(wa * widen(a[i]) + wb * widen(b[i]) + wc * widen(c[i]) + wd * widen(d[i]));
}

#ifdef CTNET_NATIVE_BF16
// Where channel i comes from in sixteen even channels followed by sixteen odd ones.
alignas(64) constexpr uint16_t kWoven[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                             8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};

// Rounds by a CPU instruction that compilers do not choose; it flushes subnormal values to zero. A word of two
// channels holds the odd one in its upper half, where it is a float already, and the even one below.
inline void blend(const BFloat16 *__restrict a, const BFloat16 *__restrict b, const BFloat16 *__restrict c,
                  const BFloat16 *__restrict d, float wa, float wb, float wc, float wd, BFloat16 *__restrict out,
                  int64_t count) {
    const BFloat16 *corners[4] = {a, b, c, d};
    const __m512 weights[4] = {_mm512_set1_ps(wa), _mm512_set1_ps(wb), _mm512_set1_ps(wc), _mm512_set1_ps(wd)};
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u)), woven = _mm512_load_si512(kWoven);
    int64_t i = 0;
    for (; i + 32 <= count; i += 32) {
        __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
        for (int k = 0; k < 4; ++k) {
            const __m512i pair = _mm512_loadu_si512(corners[k] + i);
            even = _mm512_fmadd_ps(weights[k], _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)), even);
            odd = _mm512_fmadd_ps(weights[k], _mm512_castsi512_ps(_mm512_and_si512(pair, upper)), odd);
        }
        const __m512i rounded = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
        _mm512_storeu_si512(out + i, _mm512_permutexvar_epi16(woven, rounded));
    }
    if (i < count) blend<BFloat16, BFloat16, float>(a + i, b + i, c + i, d + i, wa, wb, wc, wd, out + i, count - i);
}
#endif
