// A factor, a bias and a residual behind a convolution's sums, while these are in the cache.
//
// Products and sums are not contracted: the bits are those of the same steps one after the other, on every instruction
// set.
#if defined(__clang__)
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif

#include "conv_after.h"

#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

template <typename T>
static void after(const ConvAfter<T>& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    T* const x = a.x + r * a.step;
    const T* const residual = a.residual ? a.residual + r * a.residual_step : nullptr;
    for (int64_t i = 0; i < a.width; i += kLanes<T>) {
      Vec<T> y = load(x + i);
      if (a.scale) y = y * (a.by_row ? broadcast(a.scale[r]) : load(a.scale + i));
      if (a.bias) y = y + (a.by_row ? broadcast(a.bias[r]) : load(a.bias + i));
      if (residual) y = y + load(residual + i);
      store(x + i, y);
    }
  }
}

extern const ConvAfterTable conv_after_table = {after<float>, after<double>};

}  // namespace ulpgrad::ULPGRAD_ISA
