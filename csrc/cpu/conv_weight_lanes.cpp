// The gradient of the weights of small groups (depthwise): the lanes of a vector are groups. Images come by way of
// planes, because each value is read once for each tap: where channels lie side by side their positions are a power of
// two apart, so that they would drive each other out of the cache. Gradients are read once, and where they lie if they
// can be.
#include <algorithm>

#include "conv_weight.h"

namespace ulpgrad {
namespace {

// Sums[block of groups][output, input, tap][lane] as they are to lie.
template <typename S>
void put(const WeightProblem<S>& problem, const Wide<S>* sums) {
  const Geometry& g = problem.g;
  const int64_t taps = static_cast<int64_t>(problem.taps.size()), k = g.inputs * taps;
  for (int64_t group = 0; group < g.groups; ++group) {
    for (int64_t o = 0; o < g.outputs; ++o) {
      const Wide<S>* from = sums + (group / kConvBlock * g.outputs + o) * k * kConvBlock + group % kConvBlock;
      for (int64_t p = 0; p < g.inputs; ++p) {
        for (int64_t t = 0; t < taps; ++t, from += kConvBlock) problem.set(group * g.outputs + o, p, t, *from);
      }
    }
  }
}

}  // namespace

template <typename S>
void by_lanes(const WeightProblem<S>& problem, Isa isa) {
  using T = Wide<S>;
  const Geometry& g = problem.g;
  const ConvTiles<T>& tiles = conv_tiles(isa, T());
  const auto in = table<ConvMoves>(isa).*ConvRoad<S>::in;
  const int64_t k = g.inputs * static_cast<int64_t>(problem.taps.size());
  const int64_t blocks = ceil_div(g.groups, kConvBlock), total = blocks * g.outputs * k * kConvBlock;
  const Planes planes(g.images, g.positions, g.stride, problem.taps, kConvBlock,
                      kSpanBytes / static_cast<int64_t>(sizeof(T)) / std::max<int64_t>(1, g.inputs), 1, {1, 1},
                      kConvBlock, g.depth.along());
  const int64_t chunks = chunks_of(planes.spans(), total, blocks);
  std::vector<ConvLaneTap> taps;
  for (int64_t p = 0; p < g.inputs; ++p) {
    for (const int64_t offset : planes.tap_offset) {
      taps.push_back({p * planes.units() + offset, static_cast<int64_t>(taps.size()) * kConvBlock});
    }
  }
  const Images<const S>& dy = problem.dy;
  const bool stands = std::is_same_v<S, T> && dy.channel == 1 && g.outputs == 1;
  std::vector<T> sums(chunks * total);
  allocating_tasks(chunks * blocks, useful_threads(problem.products(), chunks * blocks), [&](int64_t task) {
    const int64_t b = task % blocks, chunk = task / blocks;
    const int64_t first = b * kConvBlock, count = std::min(kConvBlock, g.groups - first);
    for (int64_t i = chunk * planes.spans() / chunks; i < (chunk + 1) * planes.spans() / chunks; ++i) {
      const Span s = planes.span(i);
      const int64_t size = round_up(planes.units() * g.inputs, kConvBlock), row = s.columns * kConvBlock;
      T* const seen = static_cast<T*>(
          scratch(Slot::caller, (size + (planes.span_positions() + 1) * kConvBlock) * static_cast<int64_t>(sizeof(T))));
      T* const gradients = seen + size;
      Images<const S> x = problem.x;
      for (int64_t p = 0; p < g.inputs; ++p) {
        x.data = problem.x.data + (first * g.inputs + p) * problem.x.channel;
        x.channel = g.inputs * problem.x.channel;
        planes.fill(x, s, count, in, seen + p * planes.units());
      }
      ConvLaneDots<T> dots{seen,
                           kConvBlock,
                           planes.row_units(),
                           taps.data(),
                           k,
                           gradients,
                           kConvBlock,
                           row,
                           s.rows,
                           s.columns,
                           sums.data() + chunk * total + b * g.outputs * k * kConvBlock};
      for (int64_t o = 0; o < g.outputs; ++o, dots.sum += k * kConvBlock) {
        const int64_t channel = first * g.outputs + o;
        int64_t apart = s.rows * row;  // gradients of slices
        if (!stands || count < kConvBlock) {
          if (count < kConvBlock) std::fill(gradients, gradients + s.slices * s.rows * row, T(0));
          read_gradients(dy, s, channel, g.outputs, count, kConvBlock, in, gradients);
        } else if constexpr (std::is_same_v<S, T>) {
          dots.g = dy.data + s.image * dy.image + channel + s.slice * dy.slice + s.row * dy.row + s.column * dy.column;
          dots.g_step = dy.column, dots.g_row = dy.row, apart = dy.slice;
        }
        ConvLaneDots<T> slice = dots;
        for (int64_t z = 0; z < s.slices; ++z, slice.x += planes.slice_units(), slice.g += apart)
          tiles.lane_dots(slice);
      }
    }
  });
  add_up(sums.data(), chunks, total);
  put(problem, sums.data());
}

template void by_lanes(const WeightProblem<float>&, Isa);
template void by_lanes(const WeightProblem<double>&, Isa);
template void by_lanes(const WeightProblem<Bfloat16>&, Isa);
template void by_lanes(const WeightProblem<Float16>&, Isa);

}  // namespace ulpgrad
