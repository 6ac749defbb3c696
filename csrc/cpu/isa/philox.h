// Philox4x32-10, a block in each 64-bit lane. See kernels/random/philox.py.
#pragma once

#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

using Word = Vec<uint64_t>;

// Products of the lower halves.
ULPGRAD_INLINE Word multiply32(Word a, Word b) {
#if ULPGRAD_ISA_LEVEL == 2
  return (Word)_mm512_maskz_mul_epu32(0xFF, (__m512i)a, (__m512i)b);
#elif ULPGRAD_ISA_LEVEL == 1
  return (Word)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#else
  return (a & 0xFFFFFFFF) * (b & 0xFFFFFFFF);
#endif
}

// The keys of the ten rounds, two for each.
ULPGRAD_INLINE void philox_keys(uint64_t key, uint64_t keys[20]) {
  for (uint32_t round = 0; round < 10; ++round) {
    keys[2 * round] = static_cast<uint32_t>(key) + round * 0x9E3779B9u;
    keys[2 * round + 1] = static_cast<uint32_t>(key >> 32) + round * 0xBB67AE85u;
  }
}

// The blocks of counters low + 2^64 high: words in the lower halves, anything in the upper ones.
ULPGRAD_INLINE void philox(const uint64_t keys[20], Word low, Word high, Word words[4]) {
  Word c0 = low, c1 = low >> 32, c2 = high, c3 = high >> 32;
  const Word m0 = broadcast(uint64_t{0xD2511F53}), m1 = broadcast(uint64_t{0xCD9E8D57});
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const Word p0 = multiply32(c0, m0), p1 = multiply32(c2, m1);
    c0 = (p1 >> 32) ^ c1 ^ keys[2 * round];
    c2 = (p0 >> 32) ^ c3 ^ keys[2 * round + 1];
    c1 = p1;
    c3 = p0;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

}  // namespace ulpgrad::ULPGRAD_ISA
