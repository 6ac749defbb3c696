// Threads for kernels: OpenMP, with the number set from Python; serial for small work and in a forked child.
//
// Results must not depend on the number of threads: the body may only write outputs that belong to its own indices, and
// sums over indices go through chunks of fixed size. The body must not throw.
#pragma once

#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace ulpgrad {

int num_threads();
void set_num_threads(int n);

// How many threads a loop of n steps should use when each thread should get at least `grain` steps: 1 for small loops,
// inside another parallel region, and in a forked child, whose OpenMP runtime has lost its threads.
int threads_for(int64_t n, int64_t grain);

// Calls body(begin, end) on disjoint ranges that cover [0, n), each of at least `grain` steps if n allows.
template <typename Body>
void parallel_for(int64_t n, int64_t grain, const Body& body) {
  if (n <= 0) return;
  [[maybe_unused]] const int threads = threads_for(n, grain);
#ifdef _OPENMP
  if (threads > 1) {
#pragma omp parallel num_threads(threads)
    {
      const int64_t count = omp_get_num_threads(), i = omp_get_thread_num();
      const int64_t begin = n / count * i + (i < n % count ? i : n % count);
      const int64_t end = begin + n / count + (i < n % count);
      if (begin < end) body(begin, end);
    }
    return;
  }
#endif
  body(int64_t{0}, n);
}

// Calls body(i) for each i in [0, n), handed out one by one: for tasks that are large or differ in size.
template <typename Body>
void parallel_tasks(int64_t n, int threads, const Body& body) {
#ifdef _OPENMP
  if (threads > 1) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int64_t i = 0; i < n; ++i) body(i);
    return;
  }
#else
  (void)threads;
#endif
  for (int64_t i = 0; i < n; ++i) body(i);
}

}  // namespace ulpgrad
