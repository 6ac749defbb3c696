#include "gemm.h"

namespace ulpgrad::ULPGRAD_ISA {

template <typename T>
static void gemm(const Gemm<T>& g) {
  for (int64_t i = 0; i < g.m; ++i) {
    for (int64_t j = 0; j < g.n; ++j) {
      T sum = g.accumulate ? g.c[i * g.c_row + j] : T(0);
      for (int64_t p = 0; p < g.k; ++p) sum += g.a[i * g.a_row + p * g.a_col] * g.b[p * g.b_row + j * g.b_col];
      g.c[i * g.c_row + j] = sum;
    }
  }
}

extern const GemmTable gemm_table = {gemm<float>, gemm<double>};

}  // namespace ulpgrad::ULPGRAD_ISA
