// Any CPU: the same code compiled for the default target (on arm64 that includes NEON).
#include "kernels.h"

#include <cstring>

namespace ctnet {
namespace plain {
#include "level.inl"

bool supported() { return true; }
} // namespace plain

constexpr Kernels kPlain = plain::table("plain", plain::supported);
} // namespace ctnet
