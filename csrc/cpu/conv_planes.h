// Where a convolution reads: the taps of its filter, and the padded planes that images are copied into.
//
// A padded image is cut into phases, one for each (row, column) modulo the stride, so that neighbouring outputs read
// neighbouring values whatever the stride: each tap is one offset that is the same for all outputs of a span. Planes
// lie [block of channels][phase][slice][row][column][channel of the block]. An image has one slice, a volume several.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "conv.h"

namespace ulpgrad {

using Pair = std::array<int64_t, 2>;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Strided images, and the zeros around them; negative padding crops.
template <typename S>
struct Images {
  S* data;
  int64_t image, channel, row, column;  // strides, in values
  int64_t height, width;
  int64_t top = 0, left = 0;
  int64_t slice = 0, depth = 1, front = 0;  // the same along a volume's depth
};

struct Tap {
  int64_t row, column;  // on the padded image
  int64_t weight;       // where its weight lies, from the start of a filter's channel
  int64_t slice = 0;
};

// What one piece of work covers: a rectangle of an image's outputs, in some slices of a volume.
struct Span {
  int64_t image, row, rows, column, columns, slice, slices;

  int64_t positions() const { return slices * rows * columns; }
};

// Outputs along a volume's depth, and the steps between what they see.
struct Depth {
  int64_t positions = 1, stride = 1;
};

// How outputs of `positions` (rows, columns) are cut into spans whose planes take about `target` units, and where their
// taps read. At least `wanted` spans are made where images are large enough; they hold whole windows of `window`.
// `most`: units of a block.
struct Planes {
  Planes(int64_t images, Pair positions, Pair stride, const std::vector<Tap>& taps, int64_t units, int64_t target,
         int64_t wanted, Pair window = {1, 1}, int64_t most = kConvBlock, Depth depth = {});

  int64_t spans() const { return images * depth_spans * spans_of[0] * spans_of[1]; }
  Span span(int64_t i) const;
  int64_t span_columns() const { return span_size[1]; }  // at most
  int64_t span_positions() const { return span_slices * span_size[0] * span_size[1]; }
  int64_t units() const { return blocks * block; }    // that the planes take
  int64_t row_units() const { return pitch * step; }  // from one row to the next
  int64_t slice_units() const { return (span_size[0] + beyond[0]) * row_units(); }
  int64_t plane_units() const { return plane * step; }
  // What each output reads through some of the taps (all: taps()), block by block; the last block ends with `units`.
  std::vector<ConvSegment> segments(int64_t units, const std::vector<int64_t>& through) const;
  std::vector<int64_t> taps() const;

  // Copy a span's part of `channels` images into planes.
  template <typename From, typename To>
  void fill(const Images<const From>& x, const Span& s, int64_t channels, ConvMoveIn<From, To> move, To* to) const;

  int64_t step;  // units from one position to the next, and those of a block
  int64_t block, blocks;
  int64_t pitch, plane;             // positions of a row, and of a phase
  std::vector<int64_t> tap_offset;  // in units, within a block

 private:
  int64_t images;
  Pair positions, stride, span_size, spans_of, last, beyond;
  Depth depth;
  int64_t span_slices, depth_spans, last_slice = 0;
  std::vector<std::array<int64_t, 3>> phases;  // slice, row, column
};

}  // namespace ulpgrad
