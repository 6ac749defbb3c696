// Floats of 8 bits, which only results are.
#pragma once

#include "device.cuh"

namespace ulpgrad {

// float8_e4m3fn, with 4 bits of exponent, or float8_e5m2, with 5.
template <int EXPONENT_BITS>
struct Float8 {
  unsigned char bits;
};

// To nearest even. What is too large becomes NaN or infinity, as these formats say: the instruction for it would give
// the largest value.
template <int EXPONENT_BITS>
__device__ inline void narrow(float value, Float8<EXPONENT_BITS>& x) {
  constexpr int BIAS = (1 << (EXPONENT_BITS - 1)) - 1, MANTISSA = 7 - EXPONENT_BITS, SHIFT = 23 - MANTISSA;
  constexpr unsigned LARGEST = EXPONENT_BITS == 4 ? 0x7e : 0x7b, BEYOND = EXPONENT_BITS == 4 ? 0x7f : 0x7c;
  // A power of two whose last place is the least subnormal: below the least normal value, a sum with it rounds as it
  // should.
  constexpr unsigned ANCHOR = static_cast<unsigned>(127 + 23 + 1 - BIAS - MANTISSA) << 23;
  const unsigned bits = __float_as_uint(value), size = bits & 0x7fffffffu;
  unsigned code;
  if (size < static_cast<unsigned>(128 - BIAS) << 23) {
    code = __float_as_uint(__uint_as_float(size) + __uint_as_float(ANCHOR)) - ANCHOR;
  } else {
    const unsigned even = size + (1u << (SHIFT - 1)) - 1 + (size >> SHIFT & 1);
    code = (even >> SHIFT) - (static_cast<unsigned>(127 - BIAS) << MANTISSA);
    code = code > LARGEST ? BEYOND : code;
  }
  if (size > 0x7f800000u) code = EXPONENT_BITS == 4 ? 0x7f : 0x7e;
  x.bits = static_cast<unsigned char>(code | (bits >> 24 & 0x80u));
}

}  // namespace ulpgrad
