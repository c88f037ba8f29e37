// How the exported functions split their work over threads, and the memory that threads keep.
#pragma once

#include "kernels.h"

#include <algorithm>
#include <type_traits>
#include <vector>

namespace ctnet {

inline int64_t bytes_of(int type) { return type == CTNET_FLOAT64 ? 8 : type == CTNET_FLOAT32 ? 4 : 2; }
inline int64_t bytes_of_sum(int type) { return type == CTNET_FLOAT64 ? 8 : 4; }
inline int64_t up_to_multiple(int64_t count, int64_t of) { return (count + of - 1) / of * of; }

// Runs work(index) for every index below count.
template <class F> void run(int threads, int64_t count, F &&work) {
    using Work = std::remove_reference_t<F>;
    parallel(threads, count, [](void *context, int64_t i) { (*static_cast<Work *>(context))(i); }, &work);
}

// How a range of `count` things is cut for `threads`: a few pieces each, so that uneven ones even out. Cuts lie at
// multiples of `step`.
struct Cut {
    int64_t count, size, pieces;
    Cut(int64_t count, int threads, int64_t step) : count(count) {
        const int64_t wanted = threads <= 1 ? 1 : 4 * static_cast<int64_t>(threads);
        size = std::max(step, up_to_multiple((count + wanted - 1) / wanted, step));
        pieces = (count + size - 1) / size;
    }
    int64_t begin(int64_t piece) const { return piece * size; }
    int64_t end(int64_t piece) const { return std::min(count, (piece + 1) * size); }
};

// Memory that a thread keeps from call to call: fresh pages cost about as much as filling them.
class Scratch {
    static constexpr size_t kMost = 16 << 20; // kept; more than that is for one call
    std::vector<char> memory;

  public:
    void release() {
        if (memory.size() > kMost) memory = std::vector<char>();
    }
    void *bytes(int64_t count) {
        constexpr int64_t line = 64;
        if (static_cast<int64_t>(memory.size()) < count + line) memory = std::vector<char>(count + line);
        const auto start = reinterpret_cast<uintptr_t>(memory.data());
        return memory.data() + (line - start % line) % line;
    }
};

} // namespace ctnet
