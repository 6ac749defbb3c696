// The sums of a convolution and of its input's gradient: the same with other taps.
#pragma once

#include <atomic>
#include <cmath>
#include <new>

#include "conv_planes.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad {

constexpr int64_t kConvGrain = 1 << 18;  // products that are worth a thread

// What values of S are multiplied as, and what copies them into and out of planes. U: the units of planes.
template <typename S, typename U = Wide<S>>
struct ConvRoad;

template <>
struct ConvRoad<float> {
  static constexpr auto in = &ConvMoves::in_f32, out = &ConvMoves::out_f32;
};
template <>
struct ConvRoad<double> {
  static constexpr auto in = &ConvMoves::in_f64, out = &ConvMoves::out_f64;
};
template <>
struct ConvRoad<Bfloat16> {
  static constexpr auto in = &ConvMoves::in_b16;
  static constexpr auto out = &ConvMoves::out_b16;
};
template <>
struct ConvRoad<Float16> {
  static constexpr auto in = &ConvMoves::in_f16;
  static constexpr auto out = &ConvMoves::out_f16;
};
template <>
struct ConvRoad<Bfloat16, Bfloat16Pair> {
  static constexpr auto in = &ConvMoves::in_pairs;
  static constexpr auto out = &ConvMoves::out_b16;
};

inline const ConvTiles<float>& conv_tiles(Isa isa, float) { return table<ConvTable>(isa).f32; }
inline const ConvTiles<double>& conv_tiles(Isa isa, double) { return table<ConvTable>(isa).f64; }

// One value of S, exactly, and rounded to it.
inline float wide_value(float x) { return x; }
inline double wide_value(double x) { return x; }
float wide_value(Bfloat16 x);
float wide_value(Float16 x);

template <typename S>
struct Correlation {
  int64_t images, groups, inputs, outputs;  // channels of one group
  Pair positions;                           // rows and columns of y
  Pair step;
  Images<const S> x;
  std::vector<Tap> taps;
  const S* weight;
  int64_t weight_group, weight_output, weight_input;  // strides
  const S* bias = nullptr;                            // contiguous, or none
  Images<S> y;                                        // where results lie
  bool finite = false;  // weights that are not finite are left out (instead of making NaN of the padding's zeros)

  int64_t products() const {
    return images * groups * outputs * inputs * static_cast<int64_t>(taps.size()) * positions[0] * positions[1];
  }
};

// Returns whether weights were left out. Raises std::bad_alloc where there is no memory for planes.
template <typename S>
bool correlate(Correlation<S> c, Isa isa);

// Whether any of the outputs sees the image through a tap.
bool sees(const Tap& tap, Pair positions, Pair step, Pair padding, Pair size);

// The same taps on images with less padding, so that the first row and column are those of some tap.
std::vector<Tap> shifted(std::vector<Tap> taps, int64_t& top, int64_t& left);

// parallel_tasks for bodies that ask for memory: what they throw is thrown again after all threads are done.
template <typename Body>
void allocating_tasks(int64_t n, int threads, const Body& body) {
  std::atomic<bool> failed{false};
  parallel_tasks(n, threads, [&](int64_t i) {
    try {
      if (!failed) body(i);
    } catch (const std::bad_alloc&) {
      failed = true;
    }
  });
  if (failed) throw std::bad_alloc();
}

}  // namespace ulpgrad
