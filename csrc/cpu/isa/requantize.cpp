// One pass without branches, which becomes vector code. From a shift of 33 on, the upper half of the product holds
// all that the result needs, so that only the product itself is 64 bits wide.
#include "requantize.h"

#include <type_traits>

namespace ulpgrad::ULPGRAD_ISA {

template <typename T>
ULPGRAD_INLINE T wrapping_sum(T a, T b) {
  using Bits = std::make_unsigned_t<T>;
  return static_cast<T>(static_cast<Bits>(a) + static_cast<Bits>(b));
}

// A limit in the type of the values that are clamped; where it lies outside, none of them reaches it.
template <typename T>
ULPGRAD_INLINE T bounded(int64_t limit) {
  if (sizeof(T) > 4) return static_cast<T>(limit);
  return static_cast<T>(limit < INT32_MIN ? INT32_MIN : limit > INT32_MAX ? INT32_MAX : limit);
}

template <typename T>
ULPGRAD_INLINE T clamp(T value, T least, T most) {
  value = value < least ? least : value;
  return value > most ? most : value;
}

// value / 2^shift to the nearest integer, from its last bit: nothing is added that could overflow. (Written such that
// GCC makes vector code of it: with minima instead of 64-bit conditions, and without shifts of a constant.)
template <typename T, bool even>
ULPGRAD_INLINE T round_shift(T value, T shift) {
  const T some = shift < 1 ? shift : 1, before = shift - some, whole = value >> shift, halves = value >> before;
  T last = halves & some;
  if (even) {
    using Bits = std::make_unsigned_t<T>;  // negative numbers are not shifted up as they are
    const T rest = value - static_cast<T>(static_cast<Bits>(halves) << before);
    last &= (rest < 1 ? rest : 1) | whole;
  }
  return whole + last;
}

// Wide is the type of products and shifts.
template <typename Acc, typename Wide, typename Out, bool multiplied, bool even, bool per_value>
static void run(const Acc* __restrict x, Out* __restrict y, int64_t n, Scales<Acc> s, Range range) {
  const Wide zero_point = static_cast<Wide>(range.zero_point);
  const Wide least = bounded<Wide>(range.least), most = bounded<Wide>(range.most);
  const int32_t* const __restrict multiplier = s.multiplier;
  const Acc* const __restrict shift = s.shift;
  const Acc* const __restrict bias = s.bias;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t at = per_value ? i : 0;
    Wide value = wrapping_sum(x[i], bias[at]);
    if (multiplied) value *= multiplier[at];
    const Wide whole = round_shift<Wide, even>(value, shift[at]);
    y[i] = static_cast<Out>(clamp(whole, least, most) + zero_point);
  }
}

template <typename Out, bool per_value>
static void high(const int32_t* __restrict x, Out* __restrict y, int64_t n, Scales<int32_t> s, Range range) {
  const int32_t zero_point = static_cast<int32_t>(range.zero_point);
  const int32_t least = bounded<int32_t>(range.least), most = bounded<int32_t>(range.most);
  const int32_t* const __restrict multiplier = s.multiplier;
  const int32_t* const __restrict shift = s.shift;
  const int32_t* const __restrict bias = s.bias;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t at = per_value ? i : 0;
    const int64_t product = int64_t{wrapping_sum(x[i], bias[at])} * multiplier[at];
    const int32_t upper = static_cast<int32_t>(product >> 32);  // holds the last bit of the quotient and what is below
    const int32_t whole = (upper >> (shift[at] - 32)) + ((upper >> (shift[at] - 33)) & 1);
    y[i] = static_cast<Out>(clamp(whole, least, most) + zero_point);
  }
}

#define RUNS(Acc, Wide, multiplied)                                                                  \
  {                                                                                                  \
    {run<Acc, Wide, Out, multiplied, false, false>, run<Acc, Wide, Out, multiplied, false, true>}, { \
      run<Acc, Wide, Out, multiplied, true, false>, run<Acc, Wide, Out, multiplied, true, true>      \
    }                                                                                                \
  }

template <typename Out>
constexpr RequantizeKernels<Out> kKernels = {RUNS(int32_t, int64_t, true),
                                             {high<Out, false>, high<Out, true>},
                                             RUNS(int32_t, int32_t, false),
                                             RUNS(int64_t, int64_t, false)};

extern const RequantizeTable requantize_table = {kKernels<int8_t>, kKernels<uint8_t>, kKernels<int16_t>,
                                                 kKernels<int32_t>};

}  // namespace ulpgrad::ULPGRAD_ISA
