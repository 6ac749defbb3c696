// What becomes of an exact sum of products: it is rounded to the accumulator's fraction, limited to its range, and
// added.
#pragma once

#include "integer.h"
#include "integer_vector.h"

namespace ulpgrad::ULPGRAD_ISA {

// The constants of a plan, in vectors. `inside`: the bits that x - low may have for an x in range.
template <typename T>
struct Constants {
  Vec<T> addend, flipped, bit, rest, low, high, outside;  // flipped: the addend where `bit` of the sum is set
  int shift, to_sign;                                     // to_sign: moves that bit to the sign

  explicit Constants(const IntegerPlan& p) {
    constexpr int width = 8 * static_cast<int>(sizeof(T));
    const int bits = p.bits < width ? p.bits : width;
    const T top = static_cast<T>((uint64_t{1} << (bits - 1)) - 1);
    addend = broadcast(static_cast<T>(p.addend)), flipped = broadcast(static_cast<T>(p.addend ^ p.flip));
    rest = broadcast(static_cast<T>(p.flip));
    low = broadcast(static_cast<T>(-top - 1)), high = broadcast(top);
    outside = broadcast(static_cast<T>(bits < width ? ~((uint64_t{2} << (bits - 1)) - 1) : 0));
    shift = p.shift < 0 ? -p.shift : p.shift;
    to_sign = p.by_sign || p.shift <= 0 ? 0 : width - 1 - shift;
    bit = broadcast(static_cast<T>(uint64_t{1} << (width - 1 - to_sign)));
  }
};

// The sum with what rounding by one of its bits adds to it.
template <typename T>
ULPGRAD_INLINE Vec<T> with_addend(Vec<T> sum, const Constants<T>& k) {
#if ULPGRAD_ISA_LEVEL == 2
  const __m512i x = (__m512i)sum, flipped = (__m512i)k.flipped, bit = (__m512i)k.bit;
  const __m512i usual = (__m512i)plus<T>(sum, k.addend);
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_mask_add_epi32(usual, _mm512_test_epi32_mask(x, bit), x, flipped);
  return (Vec<T>)_mm512_mask_add_epi64(usual, _mm512_test_epi64_mask(x, bit), x, flipped);
#else
  const Vec<T> is_set = shift_right(shift_left(sum, k.to_sign), 8 * static_cast<int>(sizeof(T)) - 1);
  return plus<T>(sum, k.addend ^ ((k.addend ^ k.flipped) & is_set));
#endif
}

// A sum with half a unit added, shifted: where the bits that leave are zeros it was a tie, and the last bit goes too.
template <typename T>
ULPGRAD_INLINE Vec<T> to_even(Vec<T> sum, const Constants<T>& k) {
  const Vec<T> down = shift_right(sum, k.shift), odd = broadcast(T{1});
#if ULPGRAD_ISA_LEVEL == 2
  const __m512i x = (__m512i)sum, rest = (__m512i)k.rest, q = (__m512i)down, even = (__m512i)~odd;
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_mask_and_epi32(q, _mm512_testn_epi32_mask(x, rest), q, even);
  return (Vec<T>)_mm512_mask_and_epi64(q, _mm512_testn_epi64_mask(x, rest), q, even);
#else
  return down & ~(((sum & k.rest) == Vec<T>{}) & odd);
#endif
}

// What rounding does after its constant is added.
template <typename T, Round round>
ULPGRAD_INLINE Vec<T> shifted(Vec<T> sum, const Constants<T>& k) {
  if constexpr (round == Round::even) return to_even<T>(sum, k);
  return shift_right(sum, k.shift);
}

template <typename T, Round round>
ULPGRAD_INLINE Vec<T> rounded(Vec<T> sum, const Constants<T>& k) {
  if constexpr (round == Round::left) return shift_left(sum, k.shift);
  if constexpr (round == Round::by_bit) return shift_right(with_addend<T>(sum, k), k.shift);
  return shifted<T, round>(plus<T>(sum, k.addend), k);
}

// The accumulator after one more rounded sum. Bits are set in `over` where something did not fit.
template <typename T, Limit limit>
ULPGRAD_INLINE Vec<T> added(Vec<T> total, Vec<T> more, const Constants<T>& k, [[maybe_unused]] Vec<T>& over) {
  if constexpr (limit == Limit::clamp_both) more = clamp(more, k.low, k.high);
  if constexpr (limit == Limit::note) over |= minus<T>(more, k.low) & k.outside;
  total = plus<T>(total, more);
  if constexpr (limit == Limit::clamp || limit == Limit::clamp_both) total = clamp(total, k.low, k.high);
  if constexpr (limit == Limit::note) over |= minus<T>(total, k.low) & k.outside;
  return total;
}

// The sums of a tile's segment, and where `halves` those of the low bytes `count` further on.
struct TileSums {
  const int32_t* sums;
  int64_t count;
  bool halves;
};

// total[i] += rounded(sum i), for a whole number of vectors. The sums of a chunk of several segments are in `part`.
template <typename T, Round round, Limit limit>
static void fold(const IntegerPlan& plan, const TileSums& from, const T* part, T* total, T* over) {
  constexpr int wide = kLanes<int32_t> / kLanes<T>;
  const Constants<T> k(plan);
  for (int64_t i = 0; i < from.count; i += kLanes<int32_t>) {
    Vec<T> sums[wide];
    if constexpr (wide == 1) {
      sums[0] = load(from.sums + i);
    } else if (part) {
      sums[0] = load(part + i), sums[1] = load(part + i + kLanes<T>);
    } else {
      widen(load(from.sums + i), sums[0], sums[1]);
      if (from.halves) {
        Longs low[2];
        widen(load(from.sums + from.count + i), low[0], low[1]);
        for (int h = 0; h < 2; ++h) sums[h] = plus<T>(shift_left(sums[h], 8), low[h]);
      }
    }
    for (int h = 0; h < wide; ++h) {
      const int64_t at = i + h * kLanes<T>;
      Vec<T> seen = limit == Limit::note ? load(over + at) : Vec<T>{};
      store(total + at, added<T, limit>(load(total + at), rounded<T, round>(sums[h], k), k, seen));
      if constexpr (limit == Limit::note) store(over + at, seen);
    }
  }
}

template <typename T>
using Fold = void (*)(const IntegerPlan& plan, const TileSums& from, const T* part, T* total, T* over);

template <typename T, Round round>
static Fold<T> fold_for(Limit limit) {
  constexpr Fold<T> table[] = {fold<T, round, Limit::none>, fold<T, round, Limit::clamp>,
                               fold<T, round, Limit::clamp_both>, fold<T, round, Limit::note>};
  return table[static_cast<int>(limit)];
}

template <typename T>
static Fold<T> fold_for(const IntegerPlan& plan) {
  switch (plan.round) {
    case Round::plain:
      return fold_for<T, Round::plain>(plan.limit);
    case Round::even:
      return fold_for<T, Round::even>(plan.limit);
    case Round::by_bit:
      return fold_for<T, Round::by_bit>(plan.limit);
    case Round::left:
      break;
  }
  return fold_for<T, Round::left>(plan.limit);
}

}  // namespace ulpgrad::ULPGRAD_ISA
