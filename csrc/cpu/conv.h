// Convolution without a patch matrix: images are copied once into padded planes on which every tap of the filter is the
// same plane read at another offset. A row of the patch matrix is then a pointer, not a copy.
//
// Planes hold blocks of channels: [block][row][column][channel of the block], whatever the images' layout is. A
// register tile is pixels x outputs: outputs lie in vectors, and each pixel's channels are broadcast one after the
// other. Copying in and out is where layouts and formats end: the tiles know float, double and pairs of bfloat16.
#pragma once

#include <cstdint>

#include "gemm.h"
#include "halves.h"
#include "isa.h"

namespace ulpgrad {

// Two bfloat16 that are multiplied together; the first in the low half.
struct Bfloat16Pair {
  uint16_t first, second;
};

constexpr int64_t kConvBlock = 16;   // channels (units) of a block of planes; a single channel is a block of one
constexpr int64_t kLanePixels = 12;  // most of a tile that has channels in lanes on both sides

// Consecutive units of one block seen through one tap, and the first of their weights.
struct ConvSegment {
  int64_t offset, units, weight;
};

// y[q][lane] = start + sum over segments and their units u of x[q * step + offset + u] * w[weight + u][lane], for
// `positions` q. The lanes are those of `vectors` vectors. Without `start`, y is added to. Every `together` segments
// have a sum of their own, so that rounding errors do not grow with the length of the whole sum.
template <typename T>
struct ConvRow {
  const void* x;
  int64_t step;  // kConvBlock or 1
  const ConvSegment* segments;
  int64_t segment_count, together;
  const void* w;
  const T* start;
  T* y;
  int64_t y_step, positions;
  int64_t vectors;  // 1, 2 or 4
};

// A value that each output sees, and its weights.
struct ConvLaneTap {
  int64_t offset, weight;
};

// The same with channels in lanes on both sides: y[q * y_step + lane] = start[lane] + sum over taps of x[q * x_step +
// offset + lane] * w[weight + lane], for the kConvBlock lanes of a block of groups.
template <typename T>
struct ConvLanes {
  const T* x;
  int64_t x_step;
  const ConvLaneTap* taps;
  int64_t tap_count;
  const T* w;
  const T* start;
  T* y;
  int64_t y_step, positions;
};

// sum[p][lane] += sum over images n, rows r and positions q of x[n * x_image + r * x_row + q * step + offset[p]] *
// g[n * g_image + r * g_row + q][lane], the lanes those of `vectors` vectors.
template <typename T>
struct ConvDots {
  const void* x;
  int64_t step, x_row, x_image;
  const int64_t* offset;
  int64_t k;
  const void* g;
  int64_t g_row, g_image, images, rows, positions;
  T* sum;
  int64_t vectors;  // 1 or 2
};

// The same with channels in lanes on both sides: sum[weight of a tap + lane] += x[r * x_row + q * x_step + its offset +
// lane] * g[r * g_row + q * g_step + lane].
template <typename T>
struct ConvLaneDots {
  const T* x;
  int64_t x_step, x_row;
  const ConvLaneTap* taps;
  int64_t tap_count;
  const T* g;
  int64_t g_step, g_row, rows, positions;
  T* sum;
};

constexpr int64_t kConvPixelSteps = 128;                 // most of a sum that is made in registers
constexpr int64_t kConvPixelRow = kConvPixelSteps + 16;  // from one output's weights to the next one's

// The same with pixels in lanes: y[output * y_row + q] = start[output] + sum over k steps i of x[offset[i] + q] *
// w[output * kConvPixelRow + i], for all positions q up to the next multiple of two vectors. Without `start`, y is
// added to.
template <typename T>
struct ConvPixels {
  const T* x;
  const int64_t* offset;
  int64_t k;  // at most kConvPixelSteps
  const T *w, *start;
  T* y;
  int64_t y_row, outputs, positions;  // `outputs` at most those of a tile
};

template <typename T>
struct ConvTiles {
  int64_t lanes;      // of a vector
  int64_t pixels[5];  // of a tile of that many vectors
  int64_t outputs;    // of a tile with pixels in lanes
  void (*row)(const ConvRow<T>&);
  void (*pixels_row)(const ConvPixels<T>&);
  void (*lanes_row)(const ConvLanes<T>&);
  void (*dots)(const ConvDots<T>&);
  void (*lane_dots)(const ConvLaneDots<T>&);
};

struct ConvTable {
  ConvTiles<float> f32;
  ConvTiles<double> f64;
};

// The tiles on pairs of bfloat16: null below AVX-512, and they need has_avx512_bf16().
struct ConvPairsTable {
  void (*row)(const ConvRow<float>&);
  void (*dots)(const ConvDots<float>&);  // of pairs of positions: two steps of x at a time, and one of g
};

// The largest value of each window of sums, whose rows lie `row` apart and whose positions have `width` lanes, and its
// place in the image: whole numbers, the first window's first being `place`. The first of equal values is taken, and
// NaN is larger than all.
template <typename T>
struct ConvWindows {
  const T* sums;
  int64_t row, width, window[2], positions;  // positions of the result
  int64_t place, image_width;
  T *y, *places;  // [positions][width]
};

// What becomes of sums before they are written.
template <typename T>
struct ConvFinish {
  // `width` lanes (whole vectors) of each of `positions`, `step` apart, in place
  void (*activate)(T* x, int64_t step, int64_t width, int64_t positions, Activation);
  void (*largest)(const ConvWindows<T>&);
};

struct ConvFinishTable {
  ConvFinish<float> f32;
  ConvFinish<double> f64;
};

// One row of pixels on its way into or out of planes. In: to[(c / block_channels) * block + q * step + c %
// block_channels] = from[c * channel + q * column]; the rest of a block's last vector is undefined. Out: to[c * channel
// + q * column] = from[q * step + c], where as many vectors are read as hold `channels`.
template <typename From, typename To>
using ConvMoveIn = void (*)(const From* from, int64_t channel, int64_t column, int64_t channels, int64_t count, To* to,
                            int64_t step, int64_t block_channels, int64_t block);
template <typename From, typename To>
using ConvMoveOut = void (*)(const From* from, int64_t step, int64_t channels, int64_t count, To* to, int64_t channel,
                             int64_t column);

struct ConvMoves {
  ConvMoveIn<float, float> in_f32;
  ConvMoveOut<float, float> out_f32;
  ConvMoveIn<double, double> in_f64;
  ConvMoveOut<double, double> out_f64;
  ConvMoveIn<Bfloat16, float> in_b16;
  ConvMoveOut<float, Bfloat16> out_b16;
  ConvMoveIn<Float16, float> in_f16;
  ConvMoveOut<float, Float16> out_f16;
  ConvMoveOut<float, int64_t> places_f32;  // whole numbers
  ConvMoveOut<double, int64_t> places_f64;
  ConvMoveIn<Bfloat16, Bfloat16Pair> in_pairs;  // two channels to a unit; an odd last one is paired with zero
  // Weights of pairs of inputs, `second` values apart (or the first with zero): to[q * step + i] = from[i * channel + q
  // * column].
  void (*weight_pairs)(const Bfloat16* from, bool paired, int64_t second, int64_t channel, int64_t column,
                       int64_t channels, int64_t count, Bfloat16Pair* to, int64_t step);
  // Positions in pairs, from floats that are bfloat16: to[i] = (from[i], from[i + apart]) for whole vectors of n
  // values, in place or not; and to[p * step + i] = (from[2 * p * step + i], from[(2 * p + 1) * step + i]) for a row of
  // `count` positions, the last of an odd number paired with zero.
  void (*pair_up)(const void* from, int64_t apart, int64_t n, void* to);
  void (*pair_row)(const void* from, int64_t step, int64_t count, void* to);
  bool (*drop_special_f32)(float* x, int64_t n);  // makes what is not finite zero; whether there was any
  bool (*drop_special_f64)(double* x, int64_t n);
  bool (*plain_b16)(const void* codes, int64_t n);  // whether no code is subnormal, infinite or NaN
};

ULPGRAD_TABLE(ConvTable, conv_table)
ULPGRAD_TABLE(ConvPairsTable, conv_pairs_table)
ULPGRAD_TABLE(ConvFinishTable, conv_finish_table)
ULPGRAD_TABLE(ConvMoves, conv_moves)

}  // namespace ulpgrad
