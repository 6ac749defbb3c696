// Rows over threads: a row belongs to one, so the result has the same bits on any number of them.
#include "sum.h"
#include "threads.h"

namespace ulpgrad::ULPGRAD_ISA {

void sum_threads(const SumRows& a) {
  constexpr int64_t grain = 1 << 16;  // values that are worth a thread
  parallel_for(a.rows, grain / (a.n + 1) + 1,
               [&](int64_t begin, int64_t end) { sum_lanes({a.x + begin * a.n, a.y + begin, end - begin, a.n}); });
}

}  // namespace ulpgrad::ULPGRAD_ISA
