#include "matmul.cuh"

namespace ulpgrad {

constexpr int NAIVE_ROWS = 8, NAIVE_COLUMNS = 32;  // of c, for a block: a warp lies along a row

// As it is written down: a thread for each value of c, and all that it needs comes from memory.
template <class T>
__global__ void __launch_bounds__(NAIVE_ROWS* NAIVE_COLUMNS) matmul_naive(T* c, const T* a, const T* b, Product p) {
  const Index across = cdiv(p.n, Index{NAIVE_COLUMNS});
  const Index i = blockIdx.x / across * NAIVE_ROWS + threadIdx.y;
  const Index j = blockIdx.x % across * NAIVE_COLUMNS + threadIdx.x;
  if (i >= p.m || j >= p.n) return;
  for (Index s = blockIdx.y; s < p.stacks; s += gridDim.y) {
    const T* row = a + s * p.a_stack + i * p.a_row;
    const T* column = b + s * p.b_stack + j * p.b_column;
    Wide<T> sum = 0;
    for (Index q = 0; q < p.k; ++q) sum += widen(row[q * p.a_column]) * widen(column[q * p.b_row]);
    c[(s * p.m + i) * p.n + j] = narrow<T>(sum);
  }
}

}  // namespace ulpgrad
