// What becomes of an exact sum of products: it is rounded to the accumulator's fraction, limited to its range, and
// added.
#pragma once

#include "integer.h"
#include "integer_vector.h"

namespace ulpgrad::ULPGRAD_ISA {

// The constants of a plan, in vectors. `inside`: the bits that x - low may have for an x in range.
template <typename T>
struct Constants {
  Vec<T> addend, flipped, bit, low, high, outside;  // flipped: the addend where `bit` of the sum is set
  int shift, to_sign;                               // to_sign: moves that bit to the sign

  explicit Constants(const IntegerPlan& p) {
    constexpr int width = 8 * static_cast<int>(sizeof(T));
    const int bits = p.bits < width ? p.bits : width;
    const T top = static_cast<T>((uint64_t{1} << (bits - 1)) - 1);
    addend = broadcast(static_cast<T>(p.addend)), flipped = broadcast(static_cast<T>(p.addend ^ p.flip));
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

template <typename T, Round round>
ULPGRAD_INLINE Vec<T> rounded(Vec<T> sum, const Constants<T>& k) {
  if constexpr (round == Round::left) return shift_left(sum, k.shift);
  if constexpr (round == Round::by_bit) return shift_right(with_addend<T>(sum, k), k.shift);
  return shift_right(plus<T>(sum, k.addend), k.shift);
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

// total[i] += rounded(sums[i]) for `count` values, a whole number of vectors.
template <typename T, Round round, Limit limit>
static void fold(const IntegerPlan& plan, const T* sums, T* total, T* over, int64_t count) {
  const Constants<T> k(plan);
  for (int64_t i = 0; i < count; i += kLanes<T>) {
    Vec<T> seen = limit == Limit::note ? load(over + i) : Vec<T>{};
    store(total + i, added<T, limit>(load(total + i), rounded<T, round>(load(sums + i), k), k, seen));
    if constexpr (limit == Limit::note) store(over + i, seen);
  }
}

template <typename T>
using Fold = void (*)(const IntegerPlan& plan, const T* sums, T* total, T* over, int64_t count);

template <typename T, Round round>
static Fold<T> fold_for(Limit limit) {
  constexpr Fold<T> table[] = {fold<T, round, Limit::none>, fold<T, round, Limit::clamp>,
                               fold<T, round, Limit::clamp_both>, fold<T, round, Limit::note>};
  return table[static_cast<int>(limit)];
}

template <typename T>
static Fold<T> fold_for(const IntegerPlan& plan) {
  if (plan.round == Round::plain) return fold_for<T, Round::plain>(plan.limit);
  return plan.round == Round::by_bit ? fold_for<T, Round::by_bit>(plan.limit) : fold_for<T, Round::left>(plan.limit);
}

}  // namespace ulpgrad::ULPGRAD_ISA
