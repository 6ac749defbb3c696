// Threads for kernels: a pool of our own, with the number set from Python. Whoever calls takes part, and does what the
// others have not begun: where other programs hold the cores, a call takes the time of one thread instead of waiting
// for one that does not run (thread teams of OpenMP stood still for 8 ms, a slice of the scheduler's time, and spun).
//
// Results must not depend on the number of threads: the body may only write outputs that belong to its own indices,
// and sums over indices go through chunks of fixed size. A body that throws ends the region, which then throws the
// same.
#pragma once

#include <cstdint>

namespace ulpgrad {

int num_threads();
void set_num_threads(int n);

// How many threads a loop of n steps should use when each thread should get at least `grain` steps: 1 for small loops
// and inside another parallel region. A limit that was set for OpenMP on the calling thread (threadpoolctl) holds too.
int threads_for(int64_t n, int64_t grain);

// Which of a region's threads this is: 0 (the caller) to threads - 1; 0 outside.
int thread_index();

// Calls task(body, i) for each i in [0, n), handed out one by one to as many threads at most.
void run_tasks(int64_t n, int threads, void (*task)(const void* body, int64_t i), const void* body);

// Calls body(i) for each i in [0, n), handed out one by one: for tasks that are large or differ in size.
template <typename Body>
void parallel_tasks(int64_t n, int threads, const Body& body) {
  if (threads > 1 && n > 1)
    return run_tasks(n, threads, [](const void* b, int64_t i) { (*static_cast<const Body*>(b))(i); }, &body);
  for (int64_t i = 0; i < n; ++i) body(i);
}

// Calls body(begin, end) on disjoint ranges that cover [0, n), each of at least `grain` steps if n allows.
template <typename Body>
void parallel_for(int64_t n, int64_t grain, const Body& body) {
  if (n <= 0) return;
  const int64_t count = threads_for(n, grain);
  if (count <= 1) return body(int64_t{0}, n);
  parallel_tasks(count, static_cast<int>(count), [&](int64_t i) {
    const int64_t begin = n / count * i + (i < n % count ? i : n % count);
    body(begin, begin + n / count + (i < n % count));
  });
}

}  // namespace ulpgrad
