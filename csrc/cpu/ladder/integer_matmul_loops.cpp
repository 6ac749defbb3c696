#include "integer_matmul_units.h"

namespace ulpgrad::ULPGRAD_ISA {

// As it is written down: one sum at a time, and B is read down its columns, a line of memory for each code.
void integer_loops(const IntegerProduct& p) {
  for (int64_t i = 0; i < p.m; ++i) {
    for (int64_t j = 0; j < p.n; ++j) {
      uint32_t sum = 0;
      for (int64_t q = 0; q < p.k; ++q) sum += static_cast<uint32_t>(p.a[i * p.k + q] * p.b[q * p.n + j]);
      p.c[i * p.n + j] = static_cast<int32_t>(sum);
    }
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
