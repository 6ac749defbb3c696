// Rounding of one value, for loops that the compiler turns into vector code: no branches, no tables.
//
// To floats it works on the bits of the source: the significand is shifted to whole units of the last place, further
// for subnormals, and what was shifted out decides.
#pragma once

#include "quantize.h"

namespace ulpgrad::ULPGRAD_ISA {

template <typename To, typename From>
ULPGRAD_INLINE To as(From from) {
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

template <typename T>
struct Ieee;
template <>
struct Ieee<float> {
  using Word = uint32_t;
  using Signed = int32_t;  // for magnitudes, which leave the sign's bit free: signed comparisons cost less
  static constexpr int mantissa = 23, bias = 127;
  static constexpr Signed infinity = 0x7F800000;
};
template <>
struct Ieee<double> {
  using Word = uint64_t;
  using Signed = int64_t;
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr Signed infinity = 0x7FF0000000000000;
};

constexpr double kWhole =
    0x1p52;  // added to a number from 0 to 2^51, rounds it; its bits then end in that whole number

ULPGRAD_INLINE int64_t whole_bits(double n) { return as<int64_t>(n + kWhole) & 0xFFFFFFFFFFFFF; }

// A magnitude times a power of two; where that is lost to underflow, the least there is: directions must see it.
ULPGRAD_INLINE double kept(double scaled, int64_t size) {
  return as<double>(as<int64_t>(scaled) | int64_t((scaled == 0.0) & (size != 0)));
}

// The number itself, from -2^51 to 2^51.
ULPGRAD_INLINE double number(int64_t n) { return as<double>(n + 0x4338000000000000) - 0x1.8p52; }
ULPGRAD_INLINE float number(int32_t n) { return float(n); }

// Whether a fraction, rounded to `bits` binary digits (ties to even), and a random number of as many reach one.
ULPGRAD_INLINE int64_t reaches_one(double fraction, uint32_t word, int bits) {
  const int64_t digits = whole_bits(fraction * double(int64_t(1) << bits));
  return digits + int64_t(uint64_t(word) >> (32 - bits)) >= int64_t(1) << bits ? 1 : 0;
}

// A magnitude below 2^52 in units of the last place as a whole number of them. `negative` is all ones or zero.
template <Rounding mode>
ULPGRAD_INLINE int64_t whole_units(double units, uint64_t negative, uint32_t word, int bits) {
  const double near = (units + kWhole) - kWhole;
  if constexpr (mode == nearest_even) return whole_bits(near);
  const double low = near > units ? near - 1.0 : near, fraction = units - low;
  const int64_t count = whole_bits(low), inexact = fraction > 0.0 ? 1 : 0;
  if constexpr (mode == nearest_away) return count + (fraction >= 0.5 ? 1 : 0);
  if constexpr (mode == toward_zero) return count;
  if constexpr (mode == up) return count + (inexact & int64_t(~negative));
  if constexpr (mode == down) return count + (inexact & int64_t(negative));
  if constexpr (mode == to_odd) return count | inexact;
  return count + reaches_one(fraction, word, bits);
}

// The same below 2^22.
template <Rounding mode>
ULPGRAD_INLINE int32_t whole_units(float units, uint32_t negative, uint32_t word, int bits) {
  const int32_t count = int32_t(units);
  const float fraction = units - float(count);
  const int32_t inexact = fraction > 0.0f ? 1 : 0;
  if constexpr (mode == nearest_even) return as<int32_t>(units + 0x1.8p23f) - as<int32_t>(0x1.8p23f);
  if constexpr (mode == nearest_away) return count + (fraction >= 0.5f ? 1 : 0);
  if constexpr (mode == toward_zero) return count;
  if constexpr (mode == up) return count + (inexact & int32_t(~negative));
  if constexpr (mode == down) return count + (inexact & int32_t(negative));
  if constexpr (mode == to_odd) return count | inexact;
  return count + int32_t(reaches_one(double(fraction), word, bits));
}

// The magnitude code that `size`, the bits of |x|, rounds to in a float with `mantissa` bits whose smallest normal
// value has the exponent `lowest`, with the source's bias; `negative` is all ones or zero. What overflows gets the code
// it would have without a limit.
//
// From double, |x| is scaled to units of the last place. `lowest` must be at least `mantissa`.
template <Rounding mode>
ULPGRAD_INLINE int64_t float_code(int64_t size, uint64_t negative, int lowest, int mantissa, uint32_t word, int bits) {
  const int64_t field = size >> 52, low = lowest, finite = field < 2046 ? field : 2046;
  const int64_t exponent = finite > low ? finite : low;
  const double scaled = as<double>(size) * as<double>((2046 + mantissa - exponent) << 52);
  const double units = kept(scaled, size);
  return int64_t(uint64_t(exponent - low) << mantissa) + whole_units<mode>(units, negative, word, bits);
}

// From float, the significand is shifted, with `guard` zeros below it: shifts by all bits of a word but one then leave
// less than half a unit. `lowest` must be at least 1.
template <Rounding mode>
ULPGRAD_INLINE int32_t float_code(int32_t size, uint32_t negative, int lowest, int mantissa, uint32_t word, int bits) {
  constexpr int guard = 6;
  const int field = size >> 23, exponent = field > 1 ? field : 1;
  const uint32_t significand = uint32_t(size - ((exponent - 1) << 23)) << guard;
  const int above = exponent - lowest, under = above < 0 ? above : 0;
  const int shift = 23 + guard - mantissa - under, by = shift < 31 ? shift : 31;
  const uint32_t one = 1u << by, rest = one - 1;
  uint32_t units;
  if constexpr (mode == nearest_even) {
    units = (significand + (rest >> 1) + (significand >> by & 1)) >> by;
  } else if constexpr (mode == nearest_away) {
    units = (significand + (one >> 1)) >> by;
  } else if constexpr (mode == toward_zero) {
    units = significand >> by;
  } else if constexpr (mode == up) {
    units = (significand + (rest & ~negative)) >> by;
  } else if constexpr (mode == down) {
    units = (significand + (rest & negative)) >> by;
  } else if constexpr (mode == to_odd) {
    units = significand >> by | uint32_t((significand & rest) != 0);
  } else {
    const int64_t scale = 1023 + bits - int64_t(shift), least = scale > 1 ? scale : 1;
    const int64_t digits = whole_bits(number(int64_t(significand & rest)) * as<double>(least << 52));
    const int64_t drawn = int64_t(uint64_t(word) >> (32 - bits));
    units = (significand >> by) + (digits + drawn >= int64_t(1) << bits ? 1u : 0u);
  }
  return int32_t((uint32_t(above > 0 ? above : 0) << mantissa) + units);
}

// The same for float to nearest even, where `mantissa` is 1 to 22 and `lowest` at least 1: normal values round as the
// bits they are, and subnormals in a sum with a number whose last place is theirs.
struct PlainRounding {
  int drop, lowest, magic;
  uint32_t offset;

  ULPGRAD_INLINE PlainRounding of(int lowest, int mantissa) {
    const int drop = 23 - mantissa;
    return {drop, lowest << 23, (drop + lowest) << 23, (1u << (drop - 1)) - 1 - (uint32_t(lowest - 1) << 23)};
  }
};

ULPGRAD_INLINE int plain_code(const PlainRounding& r, int size) {
  const int normal = int((uint32_t(size) + r.offset + (uint32_t(size) >> r.drop & 1)) >> r.drop);
  const int subnormal = as<int>(as<float>(size) + as<float>(r.magic)) - r.magic;
  return size < r.lowest ? subnormal : normal;
}

// The value of a magnitude code, exactly; `step` is the smallest subnormal value.
template <typename T>
ULPGRAD_INLINE T code_value(typename Ieee<T>::Signed code, int lowest, int mantissa, T step) {
  using L = Ieee<T>;
  using Signed = typename L::Signed;
  const T normal = as<T>((code << (L::mantissa - mantissa)) + (Signed(lowest - 1) << L::mantissa));
  const T subnormal = number(code) * step;
  return code >> mantissa ? normal : subnormal;
}

}  // namespace ulpgrad::ULPGRAD_ISA

// A table's row for each rounding.
#define EACH_ROUNDING(ROW, T)                                                                                \
  ROW(T, nearest_even), ROW(T, nearest_away), ROW(T, toward_zero), ROW(T, up), ROW(T, down), ROW(T, to_odd), \
      ROW(T, stochastic)
