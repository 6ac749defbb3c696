// Conversions to floats of any size and to fixed point, in every rounding mode, with one rounding.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

enum Rounding { nearest_even, nearest_away, toward_zero, up, down, to_odd, stochastic, roundings };

// A float as rounding sees it. Magnitude codes are ordered as their values are, so that rounding carries into the
// exponent by itself; what lies beyond the finite ones is a table, by the sign of what it comes from.
struct FloatGrid {
  int mantissa_bits;
  int min_exponent;      // of the smallest normal value
  int32_t max_code;      // magnitude code of the largest finite value
  int32_t kept_from;     // smaller magnitude codes become zero: 0, or 2^mantissa_bits to flush subnormals
  uint32_t sign;         // the sign's bit, or 0 without one
  uint32_t zero[2];      // codes of zero,
  uint32_t beyond[2];    // of finite values past the largest,
  uint32_t infinity[2];  // of infinities
  uint32_t nan[2];       // and of NaN
  double beyond_value[2], infinity_value[2];  // what these are worth
};

// Fixed point: values are code / scale, codes are whole numbers from low to high.
struct FixedGrid {
  double scale;
  double low, high;
  int bits;    // word length: what wraps around
  bool wraps;  // instead of saturating
};

// Blocks of `size` elements that share a power of two, which follows from the exponent of their largest magnitude, less
// `max_exponent`; one more where its 52 mantissa bits are at least `carry_from`.
struct BlockGrid {
  FloatGrid element;
  FixedGrid fixed;
  bool is_fixed;  // which of the two
  int max_exponent;
  int64_t carry_from;
  int64_t size;
};

// Random words, of which the upper `bits` count. Stochastic rounding goes up if a fraction of that many digits and the
// random number together reach one.
struct Draws {
  const uint32_t* words;
  int bits;
};

struct Counts {
  int64_t overflowed, underflowed, flushed, nan, infinite;
};

// What is written: codes of one, two or four bytes, or the values themselves in the source's type.
enum Target { codes8, codes16, codes32, same_type, targets };

using FloatLoop = void (*)(const FloatGrid&, const Draws&, const void* x, void* out, int64_t n);
// Returns how many values were NaN, or where it wraps, not finite: their codes mean nothing. n below 2^31.
using FixedLoop = int64_t (*)(const FixedGrid&, const Draws&, const void* x, void* out, int64_t n);
// The last block may be short.
using BlockLoop = void (*)(const BlockGrid&, const Draws&, const void* x, uint8_t* codes, uint8_t* scales, int64_t n);
using CountLoop = void (*)(const FloatGrid&, const Draws&, const void* x, Counts&, int64_t n);

// Sources are float (0) and double (1). A grid that begins below float's normal range takes double.
struct QuantizeTable {
  FloatLoop to_float[2][roundings][targets];
  FloatLoop plain[targets];  // from float to nearest even, for grids that is_plain
  CountLoop count[2][roundings];
};

ULPGRAD_TABLE(QuantizeTable, quantize_table)

// From float: codes of at most 16 bits, scale 1 to 2^100, no wrapping.
struct ToFixedTable {
  FixedLoop to_fixed[2][roundings][targets];
};

ULPGRAD_TABLE(ToFixedTable, to_fixed_table)

struct ToBlockTable {
  BlockLoop to_blocks[2][roundings];
};

ULPGRAD_TABLE(ToBlockTable, to_block_table)

// Whether codes of either sign differ in the sign's bit alone, and infinities become what overflows becomes.
ULPGRAD_INLINE bool is_plain(const FloatGrid& g) {
  return g.mantissa_bits >= 1 && g.mantissa_bits <= 22 && g.min_exponent >= -126 && g.min_exponent <= 100 && g.sign &&
         g.zero[1] == g.sign && g.beyond[1] == (g.beyond[0] | g.sign) && g.nan[1] == (g.nan[0] | g.sign) &&
         g.infinity[0] == g.beyond[0] && g.infinity[1] == g.beyond[1] && g.beyond[0] < (1u << 30);
}

}  // namespace ulpgrad
