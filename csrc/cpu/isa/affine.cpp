// The quotient is a double's, as in the definition, so that ties are where they are there. Adding 1.5 * 2^52 rounds it
// to nearest even in any vector unit; far quotients are cut before, which changes no code.
#include "affine.h"

#include <type_traits>

namespace ulpgrad::ULPGRAD_ISA {

constexpr double kRound = 0x1.8p52, kFar = 1024;

template <typename T, typename Out, bool per_value>
static bool run(const T* __restrict x, Out* __restrict y, int64_t n, AffineGrid g) {
  const double* const __restrict scales = g.scale;
  const double* const __restrict zero_points = g.zero_point;
  int64_t unordered = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double scale = scales[per_value ? i : 0], zero_point = zero_points[per_value ? i : 0];
    double quotient = static_cast<double>(x[i]) / scale;
    unordered += quotient != quotient;
    quotient = quotient > -kFar ? quotient : -kFar;  // NaN too
    quotient = quotient < kFar ? quotient : kFar;
    double code = (quotient + kRound) - kRound + zero_point;
    code = code > g.low ? code : g.low;
    code = code < g.high ? code : g.high;
    if constexpr (std::is_floating_point_v<Out>) {
      y[i] = static_cast<Out>((code - zero_point) * scale);
    } else {
      y[i] = static_cast<Out>(static_cast<int32_t>(code));
    }
  }
  return unordered != 0;
}

template <typename T>
constexpr AffineKernels<T> kKernels = {{run<T, int8_t, false>, run<T, int8_t, true>},
                                       {run<T, uint8_t, false>, run<T, uint8_t, true>},
                                       {run<T, T, false>, run<T, T, true>}};

extern const AffineTable affine_table = {kKernels<float>, kKernels<double>};

}  // namespace ulpgrad::ULPGRAD_ISA
