#include "integer_matmul_units.h"

namespace ulpgrad::ULPGRAD_ISA {

// B is packed once: two rows become one of units of two 16-bit values, so that one instruction multiplies both and
// adds.
void integer_pairs(const IntegerProduct& p) {
  for (int64_t u = 0; u < p.pairs(); ++u)
    for (int64_t j = 0; j < p.n; ++j) p.work[u * p.n + j] = pair_of(p.b + 2 * u * p.n + j, p.n, 2 * u + 1 < p.k);
  for (int64_t i = 0; i < p.m; ++i) {
    int32_t* c = p.c + i * p.n;
    for (int64_t j = 0; j < p.n; ++j) c[j] = 0;
    for (int64_t u = 0; u < p.pairs(); ++u) {
      const Ints a = broadcast(pair_of(p.a + i * p.k + 2 * u, 1, 2 * u + 1 < p.k));
      const int32_t* b = p.work + u * p.n;
      int64_t j = 0;
      for (; j + kPairLanes <= p.n; j += kPairLanes) store(c + j, add_pairs(load(c + j), a, load(b + j)));
      if (j < p.n) {
        const Ints rest = add_pairs(load_some(c + j, p.n - j), a, load_some(b + j, p.n - j));
        store_some(c + j, rest, p.n - j);
      }
    }
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
