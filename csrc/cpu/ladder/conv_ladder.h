// The convolution's ladder: float32 images, channels first, stride 1, one idea per file. The rung above them all is
// conv_correlate.cpp, which takes any layout, format, stride, dilation and groups.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

struct Windows {
  int64_t images, channels, height, width;
  int64_t outputs, kernel_rows, kernel_columns, top, left;  // zeros above (and below), to the left (and right)
  const float *x, *weight, *bias;
  float *y, *work;  // work: `parts` times part_size() values
  int64_t parts;    // that images are shared out to

  int64_t rows() const { return height + 2 * top - kernel_rows + 1; }
  int64_t columns() const { return width + 2 * left - kernel_columns + 1; }
  int64_t pitch() const { return width + 2 * left; }  // from one row of a padded image to the next
  int64_t positions() const { return rows() * pitch(); }
  int64_t k() const { return channels * kernel_rows * kernel_columns; }

  // A padded image, a tile's rows of sums, and the places that an output sees.
  static constexpr int64_t kTile = 8, kSlack = 256;  // what whole vectors read and write beyond
  int64_t padded_size() const { return (channels * (height + 2 * top) * pitch() + kernel_columns + kSlack) / 16 * 16; }
  int64_t sums_row() const { return positions() + kSlack; }
  int64_t part_size() const { return (padded_size() + kTile * sums_row() + 2 * k() + 15) / 16 * 16; }
};

using Convolve = void (*)(const Windows&);

struct ConvLadder {
  Convolve loops, padded, rows, registers, tile, threads;
};

ULPGRAD_TABLE(ConvLadder, conv_ladder)

#ifdef ULPGRAD_ISA
namespace ULPGRAD_ISA {
void convolve_loops(const Windows&);
void convolve_padded(const Windows&);
void convolve_rows(const Windows&);
void convolve_registers(const Windows&);
void convolve_tile(const Windows&);
void convolve_threads(const Windows&);

// Copies an image, zeros around it.
void pad(const Windows&, int64_t image, float* to);
// Images [begin, end) by register tiles, with the memory of one part.
void convolve_tiles(const Windows&, int64_t begin, int64_t end, float* memory);
}  // namespace ULPGRAD_ISA
#endif

}  // namespace ulpgrad
