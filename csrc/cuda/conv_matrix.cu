// Implicit matmul on the matrix units: the tile of patches is copied from the images straight into shared memory, 16
// bytes of channels at a time, and multiplied by whole warps. Channels lie side by side, in multiples of as many.
#include "conv_patches.cuh"
#include "conv_results.cuh"

namespace ulpgrad {

template <class T, bool GRADIENT, int COLUMNS>
__global__ void __launch_bounds__(COLUMNS * 2, BLOCKS<T, COLUMNS>)
    conv_matrix(T* y, const T* x, const T* w, const T* bias, const T* scale, const T* residual, Convolution c,
                Strides xs, Strides ws, Strides ys, After after) {
  using Tile = MatrixTile<T, COLUMNS, false>;
  ULPGRAD_DYNAMIC_SHARED(memory);
  __shared__ Gather g;
  __shared__ Epilogue<T> e;
  if (threadIdx.x == 0) g = gather_of<GRADIENT>(c, blockIdx.z), e = {bias, scale, residual, after};
  __syncthreads();
  // Blocks that read the same rows are neighbours in time: what one has read, the next finds in the cache.
  const unsigned across = cdiv(g.writes, COLUMNS);
  const unsigned first_row = blockIdx.x / across * Tile::ROWS;
  const int first_write = blockIdx.x % across * COLUMNS, thread = threadIdx.x;
  if (first_row >= static_cast<unsigned>(g.count)) return;

  PatchCopies<GRADIENT, Tile, T> copies(g, xs, ws, first_row, first_write, thread);
  copies.begin(x, w);
  Tile tile;
  tile.run(memory, cdiv(g.depth, Tile::DEPTH), thread,
           [&](int step, unsigned char* stage) { copies.copy(step, stage); });

  const Sums<Tile::ROWS, COLUMNS, Tile::THREADS> results = {reinterpret_cast<float*>(memory), first_row, first_write,
                                                            thread};
  tile.for_each(thread, [&](int row, int column, float sum) { results.at(row, column) = sum; });
  __syncthreads();
  constexpr bool AGAIN = sizeof(T) == 4;  // see Tf32Pair
  finish_and_store<GRADIENT, AGAIN>(results, y, ys, x, xs, w, ws, c, g, e, [] { __syncthreads(); });
}

}  // namespace ulpgrad
