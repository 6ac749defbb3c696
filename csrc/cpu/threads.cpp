#include "threads.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>

namespace ulpgrad {
namespace {

std::atomic<int> configured{1};
std::atomic<bool> forked{false};

// An OpenMP region in a forked child waits for threads that were not copied into it.
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { forked = true; });

}  // namespace

int num_threads() { return configured; }

void set_num_threads(int n) { configured = std::max(1, n); }

int threads_for(int64_t n, int64_t grain) {
#ifdef _OPENMP
  if (n <= grain || forked || omp_in_parallel()) return 1;
  return static_cast<int>(std::min<int64_t>(configured, n / std::max<int64_t>(1, grain)));
#else
  (void)n, (void)grain;
  return 1;
#endif
}

}  // namespace ulpgrad
