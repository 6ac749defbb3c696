#include "integer_matmul_units.h"

namespace ulpgrad::ULPGRAD_ISA {

// A code of A times a row of B is added to a row of C: neighbours in memory, which the compiler makes vectors of.
void integer_rows(const IntegerProduct& p) {
  for (int64_t i = 0; i < p.m; ++i) {
    uint32_t* __restrict c = reinterpret_cast<uint32_t*>(p.c + i * p.n);
    for (int64_t j = 0; j < p.n; ++j) c[j] = 0;
    for (int64_t q = 0; q < p.k; ++q) {
      const int16_t a = p.a[i * p.k + q];
      const int8_t* __restrict b = p.b + q * p.n;
      for (int64_t j = 0; j < p.n; ++j) c[j] += static_cast<uint32_t>(a * b[j]);
    }
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
