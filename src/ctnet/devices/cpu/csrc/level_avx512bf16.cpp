// CPUs with AVX-512 that also convert to bfloat16.
#include "kernels.h"

#include <cstring>

#if CTNET_X86_LEVELS
#include <immintrin.h>

namespace ctnet {
namespace avx512bf16 {
// Compiled for any CPU: decides whether this one can run the rest.
bool supported() {
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
} // namespace avx512bf16
} // namespace ctnet

// After the standard headers, so that nothing but ctnet's own code is compiled for this target.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,prefer-vector-width=512")
#endif

namespace ctnet {
namespace avx512bf16 {
#define CTNET_NATIVE_BF16 1
#define CTNET_VECTOR_BYTES 64
#define CTNET_PANEL_VECTORS 4
#include "level.inl"
#undef CTNET_NATIVE_BF16
} // namespace avx512bf16

constexpr Kernels kAvx512Bf16 = avx512bf16::table("avx512bf16", avx512bf16::supported);
} // namespace ctnet

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
