// CPUs with AVX-512 (foundation, BW, DQ, VL).
#include "kernels.h"

#include <cstring>

#if CTNET_X86_LEVELS
#include <immintrin.h>

namespace ctnet {
namespace avx512 {
// Compiled for any CPU: decides whether this one can run the rest.
bool supported() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
} // namespace avx512
} // namespace ctnet

// After the standard headers, so that nothing but ctnet's own code is compiled for this target.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#endif

namespace ctnet {
namespace avx512 {
#define CTNET_VECTOR_BYTES 64
#define CTNET_PANEL_VECTORS 4
#include "level.inl"
} // namespace avx512

constexpr Kernels kAvx512 = avx512::table("avx512", avx512::supported);
} // namespace ctnet

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
