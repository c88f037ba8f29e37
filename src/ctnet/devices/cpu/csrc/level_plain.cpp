// Any processor: what the compiler makes of the same code for its default target (on arm64 that includes NEON).
#include "kernels.h"

#include <cstring>

namespace ctnet {
namespace plain {
#include "level.inl"

bool supported() { return true; }
} // namespace plain

constexpr Kernels kPlain = plain::table("plain", plain::supported);
} // namespace ctnet
