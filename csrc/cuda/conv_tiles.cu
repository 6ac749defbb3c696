// Tiles in shared memory: 256 threads make 16 x 16 results together, and what they read is loaded once for all of them.
#include "conv_gather.cuh"

namespace ulpgrad {

// Forwards eight blocks of a processor at once: all the threads that it holds.
template <class T, bool GRADIENT>
__global__ void __launch_bounds__(256, !GRADIENT && sizeof(Wide<T>) == 4 ? 8 : 0)
    conv_tiles(T* y, const T* x, const T* w, const T* bias, const T* scale, const T* residual, Convolution c,
               Strides xs, Strides ws, Strides ys, After after) {
  constexpr int SIDE = 16;
  __shared__ Wide<T> pixels[SIDE][SIDE + 1], weights[SIDE][SIDE + 1];  // [depth][row], [depth][channel]; + 1: own banks
  __shared__ Gather g;                                                 // the same for all threads
  __shared__ Epilogue<T> e;
  if (threadIdx.x == 0) g = gather_of<GRADIENT>(c, blockIdx.z), e = {bias, scale, residual, after};
  __syncthreads();
  const unsigned first_row = blockIdx.x * SIDE;
  const int first_write = blockIdx.y * SIDE;
  if (first_row >= static_cast<unsigned>(g.count)) return;  // of a phase with fewer pixels: all threads leave

  const int fast = threadIdx.x % SIDE, slow = threadIdx.x / SIDE;
  // Neighbouring threads load neighbours in memory: pixels, or channels where these lie side by side.
  const bool channels_last = xs.channel == 1;
  const int loaded_row = channels_last ? slow : fast, loaded_depth = channels_last ? fast : slow;
  const Row row = row_of(g, xs, first_row + loaded_row);
  const long long column = column_of<GRADIENT>(g, ws, first_write + slow);

  Wide<T> sum = 0;
  for (int depth = 0; depth < g.depth; depth += SIDE) {
    Wide<T> pixel = 0, weight = 0;
    if (depth + loaded_depth < g.depth) {
      const Step step = step_of<GRADIENT>(g, xs, ws, depth + loaded_depth);
      if (sees(g, row, step)) pixel = widen(x[row.offset + step.read]);
    }
    if (depth + fast < g.depth) {
      weight = widen(w[column + step_of<GRADIENT>(g, xs, ws, depth + fast).weight]);
    }
    __syncthreads();  // the last tile has been used
    pixels[loaded_depth][loaded_row] = pixel;
    weights[fast][slow] = weight;
    __syncthreads();
#pragma unroll
    for (int k = 0; k < SIDE; ++k) sum += pixels[k][fast] * weights[k][slow];
  }
  if (first_row + fast < static_cast<unsigned>(g.count) && first_write + slow < g.writes) {
    const Wide<T> result = finished<GRADIENT>(c, g, x, xs, w, ws, e, first_row + fast, first_write + slow, sum);
    store_as(y, result_offset(g, ys, first_row + fast, first_write + slow), result, GRADIENT ? OWN : after.stored);
  }
}

}  // namespace ulpgrad
