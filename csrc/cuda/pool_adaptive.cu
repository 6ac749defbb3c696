// Pooling to a given size: windows that differ in length by one, a thread for each result, as pool_direct.cu has it. A
// window of whole rows is summed by a warp, in the tree of the CPU's reductions.
#include "element.cuh"
#include "matrix_unit.cuh"
#include "pool_window.cuh"

namespace ulpgrad {

// The mean of each window: row by row, from left to right, as the CPU adds them.
template <class T>
__global__ void adaptive_avg_pool(T* y, const T* x, Pool p, Strides xs, Strides ys) {
  for_each_element(p.images, p.channels, p.y.positions, p.x.positions, ys.channel == 1, [&](const Element& e) {
    const Span rows = part_of(p.y.size, p.y.positions, e.y), columns = part_of(p.x.size, p.x.positions, e.x);
    const T* const plane = x + offset_of(xs, e.image, e.channel, 0, 0);
    Wide<T> sum = 0;
    for (long long row = rows.first; row < rows.end; ++row) {
      for (long long column = columns.first; column < columns.end; ++column) {
        sum += widen(plane[row * xs.y + column * xs.x]);
      }
    }
    y[offset_of(ys, e.image, e.channel, e.y, e.x)] = narrow<T>(sum / values_in<T>(rows, columns));
  });
}

// A pixel gathers its share of every window that has seen it.
template <class T>
__global__ void adaptive_avg_pool_gradient(T* dx, const T* g, Pool p, Strides gs, Strides dxs) {
  for_each_element(p.images, p.channels, p.y.size, p.x.size, dxs.channel == 1, [&](const Element& e) {
    const Span rows = part_of(p.y.positions, p.y.size, e.y), columns = part_of(p.x.positions, p.x.size, e.x);
    const T* const plane = g + offset_of(gs, e.image, e.channel, 0, 0);
    Wide<T> sum = 0;
    for (long long row = rows.first; row < rows.end; ++row) {
      const Span down = part_of(p.y.size, p.y.positions, row);
      for (long long column = columns.first; column < columns.end; ++column) {
        sum += widen(plane[row * gs.y + column * gs.x]) / values_in<T>(down, part_of(p.x.size, p.x.positions, column));
      }
    }
    dx[offset_of(dxs, e.image, e.channel, e.y, e.x)] = narrow<T>(sum);
  });
}

// The largest value of each window and its place in the image: the first of equal ones, NaN before all.
template <class T>
__global__ void adaptive_max_pool(T* y, long long* places, const T* x, Pool p, Strides xs, Strides ys, Strides ps) {
  for_each_element(p.images, p.channels, p.y.positions, p.x.positions, ys.channel == 1, [&](const Element& e) {
    const Span rows = part_of(p.y.size, p.y.positions, e.y), columns = part_of(p.x.size, p.x.positions, e.x);
    const T* const plane = x + offset_of(xs, e.image, e.channel, 0, 0);
    Wide<T> best = 0;
    long long place = -1;
    for (long long row = rows.first; row < rows.end; ++row) {
      for (long long column = columns.first; column < columns.end; ++column) {
        const Wide<T> value = widen(plane[row * xs.y + column * xs.x]);
        if (place < 0 || value > best || (value != value && best == best)) {
          best = value;
          place = row * p.x.size + column;
        }
      }
    }
    y[offset_of(ys, e.image, e.channel, e.y, e.x)] = narrow<T>(best);
    places[offset_of(ps, e.image, e.channel, e.y, e.x)] = place;
  });
}

// The means of runs of `count` values without gaps: a warp adds one in the tree of csrc/cpu/isa/reduction.cpp.
// Blocks of 4096 values go to 256 bytes of lanes, which are halved until one is left; blocks are joined in pairs as
// they come, like the carries of a binary counter.
template <class T>
__global__ void __launch_bounds__(128) avg_pool_runs(T* y, const T* x, long long runs, long long count) {
  using W = Wide<T>;
  constexpr int WARPS = 4, LANES = 256 / sizeof(W), EACH = LANES / WARP, BLOCK = 4096, LEVELS = 64;
  __shared__ W lanes[WARPS][WARP];
  __shared__ W joined[WARPS][LEVELS];
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const long long step = static_cast<long long>(gridDim.x) * WARPS;
  for (long long first = static_cast<long long>(blockIdx.x) * WARPS; first < runs; first += step) {
    const long long run = first + warp;
    const bool is_there = run < runs;
    int top = 0;
    for (long long begin = 0, block = 0; begin < count; begin += BLOCK, ++block) {
      const T* const from = x + run * count + begin;
      const int some = static_cast<int>(count - begin < BLOCK ? count - begin : BLOCK);
      W sums[EACH] = {};
      for (int i = lane; i < some && is_there; i += LANES) {
#pragma unroll
        for (int k = 0; k < EACH; ++k) {
          if (i + k * WARP < some) sums[k] += widen(from[i + k * WARP]);
        }
      }
      W sum = sums[0];
      if (EACH == 2) sum += sums[EACH - 1];
      for (int half = WARP / 2; half > 0; half /= 2) {
        lanes[warp][lane] = sum;
        wait_for_lanes();
        if (lane < half) sum += lanes[warp][lane + half];
        wait_for_lanes();
      }
      if (lane == 0) {
        for (long long carry = block; carry & 1; carry >>= 1) sum = joined[warp][--top] + sum;
        joined[warp][top++] = sum;
      }
    }
    if (is_there && lane == 0) {
      W sum = joined[warp][top - 1];
      for (int level = top - 2; level >= 0; --level) sum = joined[warp][level] + sum;
      y[run] = narrow<T>(sum / static_cast<W>(count));
    }
  }
}

}  // namespace ulpgrad
