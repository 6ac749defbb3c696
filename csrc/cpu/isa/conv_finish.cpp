// What becomes of a convolution's sums while they are in the cache: an activation, the largest value of each window.
#include "conv.h"
#include "gemm_finish.h"

namespace ulpgrad::ULPGRAD_ISA {

template <typename T>
static void activate_row(T* x, int64_t step, int64_t width, int64_t positions, Activation activation) {
  Epilogue<T> after;
  after.activation = activation;
  finish(x, step, x, step, positions, width, after, 0, 0);
}

template <typename T>
static void largest(const ConvWindows<T>& w) {
  for (int64_t q = 0; q < w.positions; ++q) {
    for (int64_t lane = 0; lane < w.width; lane += kLanes<T>) {
      const T* const from = w.sums + q * w.window[1] * w.width + lane;
      Vec<T> best = load(from), place{};
      for (int64_t i = 0; i < w.window[0]; ++i) {
        for (int64_t j = 0; j < w.window[1]; ++j) {
          const Vec<T> value = load(from + i * w.row + j * w.width);
          const auto take = (value > best) | ((value != value) & (best == best));
          best = take ? value : best;
          place = take ? broadcast(static_cast<T>(i * w.image_width + j)) : place;
        }
      }
      store(w.y + q * w.width + lane, best);
      store(w.places + q * w.width + lane, place + broadcast(static_cast<T>(w.place + q * w.window[1])));
    }
  }
}

extern const ConvFinishTable conv_finish_table = {{activate_row<float>, largest<float>},
                                                  {activate_row<double>, largest<double>}};

}  // namespace ulpgrad::ULPGRAD_ISA
