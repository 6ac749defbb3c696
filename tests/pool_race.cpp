// The pool of threads by itself, for the thread sanitizer (`make test-sanitize`): several callers at once, regions in
// regions, tasks that throw, and numbers of threads that change meanwhile. Every index must be met once.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <new>
#include <thread>
#include <vector>

#include "threads.h"

namespace {

std::atomic<int> wrong{0};

void expect(bool is_so, const char* what) {
  if (is_so) return;
  std::fprintf(stderr, "pool_race: %s\n", what);
  ++wrong;
}

// Plain values, which only the pool's own order of events protects.
void sums(int64_t n) {
  std::vector<int64_t> values(static_cast<size_t>(n));
  ulpgrad::parallel_for(n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) values[static_cast<size_t>(i)] += i;
  });
  int64_t sum = 0;
  for (const int64_t value : values) sum += value;
  expect(sum == n * (n - 1) / 2, "an index was missed, or met twice");
}

void nested(int threads) {
  std::vector<int64_t> found(20);
  ulpgrad::parallel_tasks(20, threads, [&](int64_t i) {
    expect(ulpgrad::threads_for(1 << 20, 1) == 1, "a region in a region has threads of its own");
    ulpgrad::parallel_for(50, 1, [&](int64_t begin, int64_t end) { found[static_cast<size_t>(i)] += end - begin; });
  });
  for (const int64_t steps : found) expect(steps == 50, "a region in a region was not run whole");
}

void throwing(int threads) {
  std::vector<int> ran(100);
  bool caught = false;
  try {
    ulpgrad::parallel_tasks(100, threads, [&](int64_t i) {
      ran[static_cast<size_t>(i)] = 1;
      if (i % 7 == 3) throw std::bad_alloc();
    });
  } catch (const std::bad_alloc&) {
    caught = true;
  }
  expect(caught, "what a task threw was lost");
}

void caller(int which) {
  for (int round = 0; round < 200; ++round) {
    ulpgrad::set_num_threads(1 + (round + which) % 4);
    sums(100 + 37 * round);
    nested(2 + round % 3);
    throwing(2 + round % 3);
    if (round % 50 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(4));  // until helpers sleep
  }
}

}  // namespace

int main() {
  caller(0);
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) callers.emplace_back(caller, i);
  for (std::thread& one : callers) one.join();
  return wrong == 0 ? 0 : 1;
}
