// Work on several threads: those of torch's own OpenMP runtime where it offers GNU's entry point, so that there is
// one pool; elsewhere threads that end with the work.
#include "kernels.h"

#include <atomic>
#include <thread>
#include <vector>

namespace {

using GompParallel = void (*)(void (*)(void *), void *, unsigned, unsigned);
std::atomic<GompParallel> gomp_parallel{nullptr};

struct Work {
    std::atomic<int64_t> next{0};
    int64_t count;
    void (*task)(void *, int64_t);
    void *context;
};

// Every thread of the team takes the next index until none is left.
void take(void *argument) {
    Work &work = *static_cast<Work *>(argument);
    for (int64_t i; (i = work.next.fetch_add(1, std::memory_order_relaxed)) < work.count;) work.task(work.context, i);
}

} // namespace

void ctnet::parallel(int threads, int64_t count, void (*task)(void *, int64_t), void *context) {
    Work work;
    work.count = count;
    work.task = task;
    work.context = context;
    const int64_t team = threads < count ? threads : count;
    if (team <= 1) {
        take(&work);
    } else if (GompParallel run = gomp_parallel.load()) {
        run(take, &work, static_cast<unsigned>(team), 0);
    } else {
        std::vector<std::thread> others;
        for (int64_t i = 1; i < team; ++i) others.emplace_back(take, &work);
        take(&work);
        for (std::thread &other : others) other.join();
    }
}

void ctnet_set_parallel(void *function) { gomp_parallel.store(reinterpret_cast<GompParallel>(function)); }
