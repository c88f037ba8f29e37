// Element types: how they widen to the type that is computed in, and how results narrow back.
// Included inside the namespace of one instruction set.

// Nothing here may instantiate a template of the standard library: the linker keeps one copy of those, and the copy
// of a newer instruction set would then run on every CPU.

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

struct BFloat16 {
    uint16_t bits;
};

template <class T> struct Wide {
    using type = T;
};
template <> struct Wide<BFloat16> {
    using type = float;
};

inline float widen(float value) { return value; }
inline double widen(double value) { return value; }
inline float widen(BFloat16 value) {
    const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
    float result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}

template <class T> inline T narrow(typename Wide<T>::type value) { return value; }
template <> inline BFloat16 narrow<BFloat16>(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    // Round to nearest, ties to even; NaN stays NaN.
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return BFloat16{static_cast<uint16_t>(is_nan ? 0x7fc0u : rounded)};
}

// To the same type, or to the one that is computed in.
inline void assign(float &to, float from) { to = from; }
inline void assign(double &to, double from) { to = from; }
inline void assign(BFloat16 &to, BFloat16 from) { to = from; }
inline void assign(float &to, BFloat16 from) { to = widen(from); }
