// The sums of a convolution and of its input's gradient: the same with other taps.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <new>

#include "conv_after.h"
#include "conv_planes.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad {

constexpr int64_t kConvGrain = 1 << 18;   // products that are worth a thread
constexpr int64_t kPlaneBytes = 3 << 17;  // that the planes of a span should take: a part of the L2 cache

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
inline const ConvFinish<float>& conv_finish(Isa isa, float) { return table<ConvFinishTable>(isa).f32; }
inline const ConvFinish<double>& conv_finish(Isa isa, double) { return table<ConvFinishTable>(isa).f64; }

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
  Depth depth;  // positions and step of volumes
  Images<const S> x;
  std::vector<Tap> taps;
  const S* weight;
  int64_t weight_group, weight_output, weight_input;  // strides
  const S* bias = nullptr;                            // contiguous, or none
  Images<S> y;                                        // where results lie
  Activation activation = Activation::none;
  const S* scale = nullptr;     // contiguous, or none: a factor of each output, before the bias; not with pooling
  Images<const S> residual{};   // of the results' shape, or none: added behind the activation; not with pooling
  bool residual_first = false;  // or before it
  Pair window = {1, 1};         // of max pooling, which divides `positions`; y and `places` are then what is left
  Images<int64_t> places{};     // of the largest values, on images of `image_width`; none without pooling
  int64_t image_width = 0;
  bool finite = false;  // weights that are not finite are left out (instead of making NaN of the padding's zeros)

  int64_t products() const {
    return images * groups * outputs * inputs * static_cast<int64_t>(taps.size()) * depth.positions * positions[0] *
           positions[1];
  }
  // Whether there are steps between the sums and the activation. The bias is one of them then, else sums start from it.
  bool is_scaled() const { return scale || (residual.data && residual_first); }
};

// Makes one result, in phases that differ in their taps and in where they read and write. Returns whether weights were
// left out. Raises std::bad_alloc where there is no memory for planes.
template <typename S>
bool correlate(std::vector<Correlation<S>> phases, Isa isa);

// The same where groups are small: the lanes of vectors are groups.
template <typename S>
bool by_lanes(const std::vector<Correlation<S>>& phases, Isa isa);

// The same with pixels in the lanes of vectors: weights are read as they lie, in planes channels are not turned. For
// filters that are one stretch of memory each.
template <typename S>
bool suits_pixels(const Correlation<S>& c);
template <typename S>
void by_pixels(const Correlation<S>& c, Isa isa);

// Makes what is infinite or NaN zero; whether there was any.
inline bool drop_special(const ConvMoves& moves, float* x, int64_t n) { return moves.drop_special_f32(x, n); }
inline bool drop_special(const ConvMoves& moves, double* x, int64_t n) { return moves.drop_special_f64(x, n); }

// Whether a value is infinite or NaN.
bool any_special(const float* x, int64_t n);
bool any_special(const double* x, int64_t n);

inline int useful_threads(int64_t products, int64_t tasks) {
  return static_cast<int>(std::min<int64_t>(threads_for(products, kConvGrain), tasks));
}

// Whether any of the outputs sees the image through a tap.
template <typename S>
bool sees(const Tap& tap, Pair positions, Pair step, Depth depth, const Images<const S>& x);

// The same taps on images with less padding, so that the first slice, row and column are those of some tap.
template <typename S>
std::vector<Tap> shifted(std::vector<Tap> taps, Images<const S>& x);

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
