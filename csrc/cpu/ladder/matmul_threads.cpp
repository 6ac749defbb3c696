// Each thread takes its rows of C, in whole tiles: nothing is shared but the operands, and every sum has the order it
// had, so the bits do not depend on the number of threads.
#include "matmul_tile.h"
#include "threads.h"

namespace ulpgrad::ULPGRAD_ISA {

void multiply_threads(const Product& x) {
  const int64_t tiles = (x.m + kRows - 1) / kRows;
  const int threads = threads_for(x.m * x.n * x.k, int64_t{1} << 19);
  parallel_tasks(threads, threads, [&](int64_t i) {
    const int64_t begin = tiles * i / threads * kRows, end = std::min(x.m, tiles * (i + 1) / threads * kRows);
    if (begin < end)
      multiply_packed({end - begin, x.n, x.k, x.a + begin * x.k, x.b, x.c + begin * x.n, x.work + i * kLadderWork});
  });
}

}  // namespace ulpgrad::ULPGRAD_ISA
