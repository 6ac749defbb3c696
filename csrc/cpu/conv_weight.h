// The gradient of a convolution's weights: what its two ways of summing share.
#pragma once

#include <type_traits>

#include "conv_correlate.h"
#include "conv_geometry.h"

namespace ulpgrad {

constexpr int64_t kSpanBytes = 1 << 18;  // of the planes of a span
constexpr int64_t kChunks = 16;          // pieces of work that there should be, so that sums do not depend on threads
constexpr int64_t kMostPartials = 1 << 22;  // values of partial sums

template <typename S>
struct WeightProblem {
  Geometry g;
  std::vector<Tap> taps;  // `weight` is the tap's place in a filter
  Images<const S> x, dy;
  Wide<S>* dw;     // [output][input][place in the filter], rounded by the caller
  int64_t filter;  // places of a filter

  int64_t products() const {
    return g.images * g.groups * g.outputs * g.inputs * static_cast<int64_t>(taps.size()) * g.depth.positions *
           g.positions[0] * g.positions[1];
  }
  void set(int64_t output, int64_t input, int64_t tap, Wide<S> sum) const {
    dw[(output * g.inputs + input) * filter + taps[tap].weight] = sum;
  }
};

// Where groups are small: the lanes of vectors are groups.
template <typename S>
void by_lanes(const WeightProblem<S>& problem, Isa isa);

// Fixed shares of the spans, each with partial sums of its own: as many as make kChunks pieces of work of `others`.
inline int64_t chunks_of(int64_t spans, int64_t total, int64_t others) {
  const int64_t wanted = std::min(ceil_div(kChunks, std::max<int64_t>(others, 1)), std::max<int64_t>(spans, 1));
  return std::clamp<int64_t>(kMostPartials / std::max<int64_t>(total, 1), 1, wanted);
}

// partials[0] = the sum of all chunks.
template <typename T>
void add_up(T* partials, int64_t chunks, int64_t total) {
  if (chunks == 1) return;
  parallel_for(total, kConvGrain, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = 1; chunk < chunks; ++chunk) {
      const T* const more = partials + chunk * total;
      for (int64_t i = begin; i < end; ++i) partials[i] += more[i];
    }
  });
}

// to[position of the span][lane] = the gradients of `count` channels from `first` on, `apart` from each other.
template <typename S, typename T>
void read_gradients(const Images<const S>& dy, const Span& s, int64_t first, int64_t apart, int64_t count, int64_t step,
                    ConvMoveIn<S, T> move, T* to) {
  const S* const at = dy.data + s.image * dy.image + first * dy.channel + s.row * dy.row + s.column * dy.column;
  // Rows that follow each other are one long row: squares of it are turned whole, whatever an image's width is.
  const bool joined = s.columns == dy.width && dy.row == dy.width * dy.column;
  const int64_t rows = joined ? 1 : s.rows, columns = joined ? s.rows * s.columns : s.columns;
  for (int64_t i = 0; i < s.slices * rows; ++i, to += columns * step) {
    const S* const from = at + (s.slice + i / rows) * dy.slice + i % rows * dy.row;
    move(from, apart * dy.channel, dy.column, count, columns, to, step, step, 0);
  }
}

}  // namespace ulpgrad
