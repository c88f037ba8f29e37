// CPUs that also multiply bfloat16 in tiles (AMX).
#include "kernels.h"

#include <cstring>

#if CTNET_AMX_LEVEL
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace ctnet {
namespace amx {
// Compiled for any CPU: decides whether this one can run the rest.
bool supported() {
    constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24; // of leaf 7; not every compiler knows names for them
    constexpr long kAskForState = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & kBf16) && (edx & kTile) &&
           __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           syscall(SYS_arch_prctl, kAskForState, kTileData) == 0;
}
} // namespace amx
} // namespace ctnet

// After the standard headers, so that nothing but ctnet's own code is compiled for this target.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16,prefer-vector-width=512")
#endif

namespace ctnet {
namespace amx {
#define CTNET_NATIVE_BF16 1
#define CTNET_NATIVE_TILES 1
#define CTNET_VECTOR_BYTES 64
#define CTNET_PANEL_VECTORS 4
#include "level.inl"
#undef CTNET_NATIVE_TILES
#undef CTNET_NATIVE_BF16
} // namespace amx

constexpr Kernels kAmx = amx::table("amx", amx::supported);
} // namespace ctnet

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
