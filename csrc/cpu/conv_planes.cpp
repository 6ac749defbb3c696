#include "conv_planes.h"

#include <algorithm>
#include <numeric>

namespace ulpgrad {
namespace {

constexpr int64_t kMinColumns = 64;  // of a span, where rows are cut

// The places i in [0, count) for which first + i * step lies in [0, width).
struct Inside {
  int64_t begin, end;
  Inside(int64_t first, int64_t step, int64_t count, int64_t width)
      : begin(std::clamp<int64_t>(first < 0 ? ceil_div(-first, step) : 0, 0, count)),
        end(std::clamp<int64_t>(first < width ? ceil_div(width - first, step) : 0, begin, count)) {}
};

}  // namespace

Planes::Planes(int64_t images, Pair positions, Pair stride, const std::vector<Tap>& taps, int64_t units, int64_t target,
               int64_t wanted, Pair window, int64_t most, Depth depth)
    : images(images), positions(positions), stride(stride), last{0, 0}, depth(depth) {
  step = units > 1 ? most : 1;
  blocks = ceil_div(units, step);
  std::vector<size_t> phase_of;
  for (const Tap& tap : taps) {
    last = {std::max(last[0], tap.row), std::max(last[1], tap.column)}, last_slice = std::max(last_slice, tap.slice);
    const std::array<int64_t, 3> phase = {tap.slice % depth.stride, tap.row % stride[0], tap.column % stride[1]};
    phase_of.push_back(std::find(phases.begin(), phases.end(), phase) - phases.begin());
    if (phase_of.back() == phases.size()) phases.push_back(phase);
  }
  const int64_t position = std::max<int64_t>(1, blocks * step * static_cast<int64_t>(phases.size()));
  beyond = {last[0] / stride[0], last[1] / stride[1]};
  const int64_t behind = last_slice / depth.stride;
  const int64_t columns = std::max(kMinColumns, target / ((1 + behind) * (1 + beyond[0]) * position) - beyond[1]);
  spans_of[1] = ceil_div(positions[1], columns);
  span_size[1] = round_up(ceil_div(positions[1], spans_of[1]), window[1]);
  spans_of[1] = ceil_div(positions[1], span_size[1]);
  pitch = span_size[1] + beyond[1];
  // As many slices as leave least to be read for several spans.
  int64_t rows = 0;
  const auto rows_beside = [&](int64_t slices) {
    return std::clamp<int64_t>(target / (pitch * position * (slices + behind)) - beyond[0], 1, positions[0]);
  };
  const auto read = [&](int64_t slices, int64_t rows) {
    return static_cast<double>((slices + behind) * (rows + beyond[0])) / static_cast<double>(slices * rows);
  };
  span_slices = 1, rows = rows_beside(1);
  for (int64_t some = 2; some <= depth.positions; ++some) {
    if ((some + behind) * (1 + beyond[0]) * pitch * position > target) break;
    if (read(some, rows_beside(some)) < read(span_slices, rows)) span_slices = some, rows = rows_beside(some);
  }
  depth_spans = ceil_div(depth.positions, span_slices);
  span_slices = ceil_div(depth.positions, depth_spans);
  depth_spans = ceil_div(depth.positions, span_slices);
  const int64_t share = ceil_div(wanted, std::max<int64_t>(1, images * depth_spans * spans_of[1]));
  spans_of[0] = std::max(ceil_div(positions[0], rows), std::min(share, positions[0]));
  span_size[0] = round_up(ceil_div(positions[0], spans_of[0]), window[0]);
  spans_of[0] = ceil_div(positions[0], span_size[0]);
  plane = (span_slices + behind) * (span_size[0] + beyond[0]) * pitch;
  block = static_cast<int64_t>(phases.size()) * plane * step;
  for (size_t i = 0; i < taps.size(); ++i) {
    const int64_t row = taps[i].slice / depth.stride * (span_size[0] + beyond[0]) + taps[i].row / stride[0];
    const int64_t at = row * pitch + taps[i].column / stride[1];
    tap_offset.push_back((static_cast<int64_t>(phase_of[i]) * plane + at) * step);
  }
}

Span Planes::span(int64_t i) const {
  const int64_t column = i % spans_of[1] * span_size[1], row = i / spans_of[1] % spans_of[0] * span_size[0];
  i /= spans_of[1] * spans_of[0];
  const int64_t slice = i % depth_spans * span_slices;
  return {i / depth_spans,
          row,
          std::min(span_size[0], positions[0] - row),
          column,
          std::min(span_size[1], positions[1] - column),
          slice,
          std::min(span_slices, depth.positions - slice)};
}

std::vector<ConvSegment> Planes::segments(int64_t units, const std::vector<int64_t>& through) const {
  const int64_t count = static_cast<int64_t>(tap_offset.size());
  std::vector<ConvSegment> all;
  all.reserve(blocks * through.size());
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t here = std::min(step, units - b * step);
    for (const int64_t t : through) {
      all.push_back({b * block + tap_offset[t], here, b * step * count + t * here});
    }
  }
  return all;
}

std::vector<int64_t> Planes::taps() const {
  std::vector<int64_t> all(tap_offset.size());
  std::iota(all.begin(), all.end(), 0);
  return all;
}

template <typename From, typename To>
void Planes::fill(const Images<const From>& x, const Span& s, int64_t channels, ConvMoveIn<From, To> move,
                  To* to) const {
  const int64_t rows = s.rows + last[0] / stride[0], columns = s.columns + last[1] / stride[1];
  const From* const image = x.data + s.image * x.image;
  const int64_t slices = s.slices + last_slice / depth.stride;
  for (const auto& phase : phases) {
    const int64_t z0 = s.slice * depth.stride + phase[0] - x.front;
    const int64_t y0 = s.row * stride[0] + phase[1] - x.top, x0 = s.column * stride[1] + phase[2] - x.left;
    const Inside in_columns(x0, stride[1], columns, x.width);
    for (int64_t i = 0; i < slices * rows; ++i) {
      To* const row = to + i / rows * slice_units() + i % rows * row_units();
      const int64_t z = z0 + i / rows * depth.stride, y = y0 + i % rows * stride[0];
      const bool outside = y < 0 || y >= x.height || z < 0 || z >= x.depth;
      const int64_t begin = outside ? columns : in_columns.begin, end = outside ? columns : in_columns.end;
      for (int64_t b = 0; b < blocks; ++b) {
        To* const at = row + b * block;
        std::fill(at, at + begin * step, To{});
        std::fill(at + end * step, at + columns * step, To{});
      }
      if (begin < end) {
        const From* const from = image + z * x.slice + y * x.row + (x0 + begin * stride[1]) * x.column;
        move(from, x.channel, x.column * stride[1], channels, end - begin, row + begin * step, step, step, block);
      }
    }
    to += plane * step;
  }
}

template void Planes::fill(const Images<const float>&, const Span&, int64_t, ConvMoveIn<float, float>, float*) const;
template void Planes::fill(const Images<const double>&, const Span&, int64_t, ConvMoveIn<double, double>,
                           double*) const;
template void Planes::fill(const Images<const Bfloat16>&, const Span&, int64_t, ConvMoveIn<Bfloat16, float>,
                           float*) const;
template void Planes::fill(const Images<const Float16>&, const Span&, int64_t, ConvMoveIn<Float16, float>,
                           float*) const;
template void Planes::fill(const Images<const Bfloat16>&, const Span&, int64_t, ConvMoveIn<Bfloat16, Bfloat16Pair>,
                           Bfloat16Pair*) const;

}  // namespace ulpgrad
