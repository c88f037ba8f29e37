// CPUs with AVX2 and fused multiply-add.
#include "kernels.h"

#include <cstring>

#if CTNET_X86_LEVELS

namespace ctnet {
namespace avx2 {
// Compiled for any CPU: decides whether this one can run the rest.
bool supported() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
} // namespace avx2
} // namespace ctnet

// After the standard headers, so that nothing but ctnet's own code is compiled for this target.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,bmi,bmi2")
#endif

namespace ctnet {
namespace avx2 {
#define CTNET_VECTOR_BYTES 32
#define CTNET_PANEL_VECTORS 2
#include "level.inl"
} // namespace avx2

constexpr Kernels kAvx2 = avx2::table("avx2", avx2::supported);
} // namespace ctnet

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
