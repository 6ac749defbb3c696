// Accumulators that take every product by itself, rounded: one fused multiply-add and one addition for each.
//
// Codes are packed as float32. Beside M = 3 2^22 units of the accumulator, float32 has the digits of its units and no
// more, so that fma(a, b, M) is the product, rounded once in the wanted direction; and as an integer, its code is that
// of M plus the rounded product. Codes are added up, and the codes of M taken off again.
//
// Limits cost more than that, but most sums stay far from them. Products are taken in stretches; the sum of |a| along a
// row times the largest |b| of a column says how far a stretch may go, and where that is not beyond the limits there is
// no need to look at them.
#pragma once

#include "integer_fold.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int kStepRows = kManyRegisters ? 8 : 4, kStepVectors = 2;
constexpr int kStretch = 64;  // products between two looks at the limits

enum class Direction : int { nearest, down, up };

ULPGRAD_INLINE Direction direction(const IntegerPlan& p) {
  if (p.round == Round::even || p.shift <= 0) return Direction::nearest;
  return p.addend ? Direction::up : Direction::down;
}

// Whether the instruction set can: a fused multiply-add, for other directions one that rounds as it is told.
ULPGRAD_INLINE bool can_step(const IntegerPlan& p) {
  return p.by_steps && (ULPGRAD_ISA_LEVEL == 2 || (ULPGRAD_ISA_LEVEL == 1 && direction(p) == Direction::nearest));
}

// The code of M plus the product.
template <Direction to>
ULPGRAD_INLINE Ints step(Vec<float> a, Vec<float> b, Vec<float> base) {
#if ULPGRAD_ISA_LEVEL == 2
  constexpr int way = (to == Direction::nearest ? _MM_FROUND_TO_NEAREST_INT
                       : to == Direction::down  ? _MM_FROUND_TO_NEG_INF
                                                : _MM_FROUND_TO_POS_INF) |
                      _MM_FROUND_NO_EXC;
  return (Ints)_mm512_fmadd_round_ps((__m512)a, (__m512)b, (__m512)base, way);
#elif ULPGRAD_ISA_LEVEL == 1
  return (Ints)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)base);
#else
  return (Ints)(a * b + base);
#endif
}

// A stretch of products, added to the accumulators; those that are limited are so at every addition.
template <Direction way, Limit limit>
static void add_stretch(const IntegerPlan& plan, int64_t count, const float* __restrict a, const float* __restrict b,
                        int32_t* __restrict to, int32_t* __restrict over) {
  constexpr int lanes = kLanes<int32_t>;
  const Constants<int32_t> k(plan);
  const Vec<float> base = broadcast(__builtin_ldexpf(3, 22 + plan.shift));
  const Ints code = (Ints)base;
  Ints total[kStepRows][kStepVectors], seen[kStepRows][kStepVectors] = {};
#pragma GCC unroll 8
  for (int i = 0; i < kStepRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kStepVectors; ++v) total[i][v] = load(to + (i * kStepVectors + v) * lanes);
  }
  for (int64_t s = 0; s < count; ++s) {
    Vec<float> column[kStepVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kStepVectors; ++v) column[v] = load(b + v * lanes);
#pragma GCC unroll 8
    for (int i = 0; i < kStepRows; ++i) {
      const Vec<float> value = broadcast(a[i]);
#pragma GCC unroll 2
      for (int v = 0; v < kStepVectors; ++v) {
        const Ints more = step<way>(value, column[v], base);
        total[i][v] = limit == Limit::none
                          ? plus<int32_t>(total[i][v], more)
                          : added<int32_t, limit>(total[i][v], minus<int32_t>(more, code), k, seen[i][v]);
      }
    }
    a += kStepRows, b += kStepVectors * lanes;
  }
  const auto codes = static_cast<uint32_t>(code[0]) * static_cast<uint32_t>(limit == Limit::none ? count : 0);
#pragma GCC unroll 8
  for (int i = 0; i < kStepRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kStepVectors; ++v) {
      const int64_t at = (i * kStepVectors + v) * lanes;
      store(to + at, minus<int32_t>(total[i][v], broadcast(static_cast<int32_t>(codes))));
      if constexpr (limit == Limit::note) store(over + at, load(over + at) | seen[i][v]);
    }
  }
}

// Whether the accumulators stay within their limits for sure. `a`, `b`: a stretch's bounds.
ULPGRAD_INLINE bool stays(const IntegerPlan& plan, const float* a, const float* b, const int32_t* total) {
  constexpr int lanes = kLanes<int32_t>;
  const float top = static_cast<float>((uint32_t{1} << (plan.bits - 1)) - 1);
  const Vec<float> unit = broadcast(__builtin_ldexpf(1, -plan.shift)),
                   most = broadcast(top * (1 - 0x1p-20f) - kStretch);
  const Ints size = broadcast(INT32_MAX);  // of a float: all bits but its sign
  Vec<float> column[kStepVectors];
#pragma GCC unroll 2
  for (int v = 0; v < kStepVectors; ++v) column[v] = load(b + v * lanes) * unit;
  Ints beyond{};
#pragma GCC unroll 8
  for (int i = 0; i < kStepRows; ++i) {
    const Vec<float> along = broadcast(a[i]);
#pragma GCC unroll 2
    for (int v = 0; v < kStepVectors; ++v) {
      const Vec<float> at = __builtin_convertvector(load(total + (i * kStepVectors + v) * lanes), Vec<float>);
      beyond -= along * column[v] + (Vec<float>)((Ints)at & size) > most;
    }
  }
  return sum<int32_t>(beyond) == 0;
}

// The accumulators of a tile over k steps, of which each stretch is followed by its bounds.
template <Direction way, Limit limit>
static void step_tile(const IntegerPlan& plan, int64_t k, const float* a, const float* b, int32_t* total,
                      int32_t* over) {
  constexpr int64_t width = kStepVectors * kLanes<int32_t>;
  for (int64_t first = 0; first < k; first += kStretch) {
    const int64_t count = k - first < kStretch ? k - first : kStretch;
    if (limit == Limit::none || stays(plan, a + count * kStepRows, b + count * width, total)) {
      add_stretch<way, Limit::none>(plan, count, a, b, total, over);
    } else {
      add_stretch<way, limit>(plan, count, a, b, total, over);
    }
    a += (count + 1) * kStepRows, b += (count + 1) * width;
  }
}

using StepTile = void (*)(const IntegerPlan& plan, int64_t k, const float* a, const float* b, int32_t* total,
                          int32_t* over);

template <Direction way>
static StepTile step_tile_for(Limit limit) {
  constexpr StepTile table[] = {step_tile<way, Limit::none>, step_tile<way, Limit::clamp>,
                                step_tile<way, Limit::clamp_both>, step_tile<way, Limit::note>};
  return table[static_cast<int>(limit)];
}

static StepTile step_tile_for(const IntegerPlan& plan) {
  switch (direction(plan)) {
    case Direction::down:
      return step_tile_for<Direction::down>(plan.limit);
    case Direction::up:
      return step_tile_for<Direction::up>(plan.limit);
    case Direction::nearest:
      break;
  }
  return step_tile_for<Direction::nearest>(plan.limit);
}

}  // namespace ulpgrad::ULPGRAD_ISA
