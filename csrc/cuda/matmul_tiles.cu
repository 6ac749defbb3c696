#include "matmul.cuh"

namespace ulpgrad {

// Square tiles of a and b are copied to shared memory, where every value serves TILE threads of the block.
template <class T, int TILE = 32>
__global__ void __launch_bounds__(TILE* TILE) matmul_tiles(T* c, const T* a, const T* b, Product p) {
  __shared__ Wide<T> a_tile[TILE][TILE + 1],
      b_tile[TILE][TILE + 1];  // one more, so that columns lie in different banks
  const Index across = cdiv(p.n, Index{TILE});
  const Index top = blockIdx.x / across * TILE, left = blockIdx.x % across * TILE;
  const int x = threadIdx.x, y = threadIdx.y;
  // Neighbouring threads copy neighbours in memory: along columns, or along rows where an operand is transposed.
  const bool a_turned = p.a_row < p.a_column, b_turned = p.b_row < p.b_column;
  const int a_i = a_turned ? x : y, a_q = a_turned ? y : x, b_q = b_turned ? x : y, b_j = b_turned ? y : x;
  for (Index s = blockIdx.y; s < p.stacks; s += gridDim.y) {
    const T* a_from = a + s * p.a_stack + (top + a_i) * p.a_row + a_q * p.a_column;
    const T* b_from = b + s * p.b_stack + (left + b_j) * p.b_column + b_q * p.b_row;
    Wide<T> sum = 0;
    for (Index step = 0; step < p.k; step += TILE) {
      const bool has_a = top + a_i < p.m && step + a_q < p.k, has_b = left + b_j < p.n && step + b_q < p.k;
      a_tile[a_i][a_q] = has_a ? widen(a_from[step * p.a_column]) : Wide<T>(0);
      b_tile[b_q][b_j] = has_b ? widen(b_from[step * p.b_row]) : Wide<T>(0);
      __syncthreads();
#pragma unroll
      for (int q = 0; q < TILE; ++q) sum += a_tile[y][q] * b_tile[q][x];
      __syncthreads();  // before the tiles are overwritten
    }
    if (top + y < p.m && left + x < p.n) c[(s * p.m + top + y) * p.n + left + x] = narrow<T>(sum);
  }
}

}  // namespace ulpgrad
