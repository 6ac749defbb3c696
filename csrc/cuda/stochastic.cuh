// Stochastic rounding of float32 values by the words of a stream: Philox4x32-10 (Salmon et al., SC 2011), whose words
// kernels/random/philox.py defines, and the bits of kernels/quantize.
#pragma once

#include "device.cuh"

namespace ulpgrad {

// What values are rounded to, a float of `mantissa` bits behind the point whose least normal exponent is `least`, and
// where the stream begins. No random bits: values stay as they are.
struct Drawn {
  unsigned long long low, high;  // the first block's number
  unsigned key[2];
  int random_bits, mantissa, least;
};

// Word `place` of the stream. A call too: rounding has no registers for the rounds.
__device__ inline unsigned word_of(const Drawn& d, long long place) {
  const unsigned long long block = static_cast<unsigned long long>(place) >> 2, low = d.low + block;
  const unsigned long long high = d.high + (low < block);
  unsigned w[4] = {static_cast<unsigned>(low), static_cast<unsigned>(low >> 32), static_cast<unsigned>(high),
                   static_cast<unsigned>(high >> 32)};
  unsigned k0 = d.key[0], k1 = d.key[1];
#pragma unroll 1
  for (int round = 0; round < 10; ++round) {
    const unsigned long long p0 = w[0] * 0xD2511F53ull, p1 = w[2] * 0xCD9E8D57ull;
    w[0] = static_cast<unsigned>(p1 >> 32) ^ w[1] ^ k0, w[1] = static_cast<unsigned>(p1);
    w[2] = static_cast<unsigned>(p0 >> 32) ^ w[3] ^ k1, w[3] = static_cast<unsigned>(p0);
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  const unsigned upper = place & 1 ? w[3] : w[2], lower = place & 1 ? w[1] : w[0];
  return place & 2 ? upper : lower;
}

// Whether stochastic rounding goes up at a fraction part / 2^drop, which is taken to `bits` bits, ties to even.
__device__ inline bool goes_up(long long part, int drop, int bits, unsigned word) {
  const long long one = 1ll << drop, scaled = part << bits;
  long long count = scaled >> drop;
  const long long rest = 2 * (scaled - (count << drop));
  if (rest > one || (rest == one && (count & 1))) ++count;
  return count + (word >> (32 - bits)) >= 1ll << bits;
}

// A value on the grid of the format, as if that had no largest value. A call, for those who want it.
__device__ __attribute__((noinline)) inline float rounded_by_word(const Drawn& d, float value, long long place) {
  const unsigned bits = __float_as_uint(value), size = bits & 0x7fffffffu;
  if (size >= 0x7f800000u) return value;
  const int field = size >> 23 ? static_cast<int>(size >> 23) : 1, missing = d.least + 127 - field;
  const unsigned digits = size >> 23 ? (size & 0x7fffffu) | 0x800000u : size;
  // What is far below the last place never goes up: 24 digits are less than 2^-34 of it.
  const int wanted = 23 - d.mantissa + (missing > 0 ? missing : 0), drop = wanted < 58 ? wanted : 58;
  const long long whole = static_cast<long long>(digits) >> drop, part = digits - (whole << drop);
  const unsigned found = static_cast<unsigned>(whole) + goes_up(part, drop, d.random_bits, word_of(d, place));
  // In places of the last normal exponent, or of the value's own: 2^(exponent - mantissa) is normal where bits are
  // missing.
  const unsigned rounded =
      missing > 0 ? __float_as_uint(static_cast<float>(found) *
                                    __uint_as_float(static_cast<unsigned>(d.least + 127 - d.mantissa) << 23))
                  : (size & ~((1u << drop) - 1)) + (found - static_cast<unsigned>(whole) << drop);
  return __uint_as_float(rounded | (bits & 0x80000000u));
}

}  // namespace ulpgrad
