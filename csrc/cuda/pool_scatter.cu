// The gradient of maximum pooling: a warp adds a plane's gradients where its maxima were, 32 at a time. Those that go
// to one place are summed by the first of their lanes, in the order of lanes: nothing is added atomically, and bits
// repeat.
#include "matrix_unit.cuh"
#include "pool_window.cuh"

namespace ulpgrad {

template <class T>
__global__ void __launch_bounds__(128)
    max_pool_gradient(T* dx, const T* g, const long long* places, Pool p, Strides gs, Strides ps, Strides dxs) {
  constexpr int WARPS = 4;
  __shared__ long long wanted[WARPS][WARP];
  __shared__ T values[WARPS][WARP];
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const long long planes = static_cast<long long>(p.images) * p.channels;
  const long long count = static_cast<long long>(p.y.positions) * p.x.positions;
  const long long pixels = static_cast<long long>(p.y.size) * p.x.size;
  const long long step = static_cast<long long>(gridDim.x) * WARPS;
  for (long long first = static_cast<long long>(blockIdx.x) * WARPS; first < planes; first += step) {
    const long long plane = first + warp;
    const int image = static_cast<int>(plane / p.channels), channel = static_cast<int>(plane % p.channels);
    for (long long at = lane; at - lane < count; at += WARP) {
      const int y = static_cast<int>(at / p.x.positions), x = static_cast<int>(at % p.x.positions);
      const bool is_there = plane < planes && at < count;
      long long place = is_there ? places[offset_of(ps, image, channel, y, x)] : -1;
      if (place >= pixels) place = -1;  // outside the image: nothing is written
      wanted[warp][lane] = place;
      values[warp][lane] = is_there ? g[offset_of(gs, image, channel, y, x)] : T(0);
      wait_for_lanes();
      bool is_first = place >= 0;
      T sum = 0;
      for (int other = 0; other < WARP; ++other) {
        if (wanted[warp][other] != place) continue;
        is_first = is_first && other >= lane;
        sum += values[warp][other];
      }
      if (is_first) {
        const int row = static_cast<int>(place / p.x.size), column = static_cast<int>(place % p.x.size);
        dx[offset_of(dxs, image, channel, row, column)] += sum;
      }
      wait_for_lanes();  // what was added is seen, and the table is free again
    }
  }
}

}  // namespace ulpgrad
