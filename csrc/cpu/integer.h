// Integer matrix multiplication, exact to the bit: what a call asks for, and how it is to be computed.
//
// A and B are packed into units of 32 bits that the CPU's dot-product instructions take: four 8-bit values (bytes), or
// two 16-bit ones (pairs). Products of full 16-bit values overflow the 32-bit sums of these instructions; where the sum
// must be exact, B is split into its high and low bytes (split), and each half is safe for 256 steps of k.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

// The type of an operand's codes.
enum class Codes : int { int8, uint8, int16 };

// What a packed unit holds.
enum class Units : int { bytes, pairs, split };

// How an exact sum of products is brought to the accumulator's fraction: shifted right after a constant is added; the
// same, ties then made even; right after a constant that depends on one of its bits; left.
enum class Round : int { plain, even, by_bit, left };

// What is done about overflow: nothing (it cannot happen, or wraps); the accumulator is clamped; the rounded sum and
// the accumulator are clamped; either is noted.
enum class Limit : int { none, clamp, clamp_both, note };

struct IntegerPlan {
  Units units = Units::pairs;
  bool wide = false;    // accumulators of 64 bits instead of 32
  bool scalar = false;  // none of the vectors' widths is safe: one by one, in 128 bits
  bool short_chunks = false;
  bool by_steps = false;  // chunks of one product, which a float32 multiply-add may round: see integer_steps.h
  int64_t chunk = 0;      // steps of k between roundings; 0: sums may be cut anywhere
  int64_t segment = 0;    // steps of k whose sum surely fits 32 bits
  Round round = Round::plain;
  Limit limit = Limit::none;
  int shift = 0;       // right, or left by -shift
  int64_t addend = 0;  // added before the shift
  int64_t flip =
      0;  // by_bit: bits of it that change where the deciding bit of the sum is set; even: the bits that leave
  bool by_sign = false;  // the deciding bit is the sign; else the last one that stays
  int bits = 32;         // width of the accumulator
};

struct IntegerGemm {
  int64_t m = 0, n = 0, k = 0;
  const void *a = nullptr, *b = nullptr;
  Codes a_codes = Codes::int8, b_codes = Codes::int8;
  int64_t a_row = 0, a_col = 0, b_row = 0, b_col = 0;  // strides in codes
  void* c = nullptr;                                   // int32, or int64 where plan.bits > 32
  int64_t c_row = 0;
  int64_t c_first = 0;            // position of c[0][0] in the whole result
  int64_t* overflowed = nullptr;  // with Limit::note: lowered to the position of the first result that overflowed
  // Called with each finished part of C, rows [i, i + m) of columns [j, j + n), on the thread that made it; or null.
  void (*finish)(const void* with, int64_t i, int64_t j, int64_t m, int64_t n) = nullptr;
  const void* with = nullptr;
  bool threaded = true;
  bool vnni = false;  // use the instruction set's extension for dot products of bytes
  IntegerPlan plan;
};

struct IntegerTable {
  void (*multiply)(const IntegerGemm&);
  int64_t panel;  // columns that are computed together
};

ULPGRAD_TABLE(IntegerTable, integer_table)

}  // namespace ulpgrad
