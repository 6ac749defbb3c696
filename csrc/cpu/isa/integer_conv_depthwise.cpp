// Sums of pairs of neighbours. A vector of 16-bit values is a vector of pairs as it stands: those that begin at even
// places. The same memory read one value later has the odd ones, so that no pair is ever put together.
#include "integer_conv_depthwise.h"

#include "integer_vector.h"
#include "squares_simd.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int kSums = kLanes<int32_t>;

// `vectors` vectors of sums; with step 1, those of even and odd places by turns.
template <int step, int vectors>
ULPGRAD_INLINE void tile(const PairSums& s, int64_t p, int32_t* to) {
  constexpr auto place = [](int v) { return step == 2 ? v * 2 * kSums : v / 2 * 2 * kSums + v % 2; };
  Ints sums[vectors] = {};
  const int16_t* const x = s.x + p * step;
  for (int64_t i = 0; i < s.pairs; ++i) {
    const Ints weight = broadcast(s.weights[i]);
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) sums[v] = plus_products(sums[v], (Ints)load(x + s.offsets[i] + place(v)), weight);
  }
  if constexpr (step == 2) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) store(to + v * kSums, sums[v]);
  } else {
    const Interleave<int32_t> order;
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v += 2) {
      store(to + v * kSums, __builtin_shuffle(sums[v], sums[v + 1], order.low));
      store(to + (v + 1) * kSums, __builtin_shuffle(sums[v], sums[v + 1], order.high));
    }
  }
}

template <int step>
static void run_by(const PairSums& s) {
  constexpr int least = step == 1 ? 2 : 1;
  int64_t p = 0;
  for (; p + 4 * kSums <= s.count; p += 4 * kSums) tile<step, 4>(s, p, s.sums + p);
  for (; p + least * kSums <= s.count; p += least * kSums) tile<step, least>(s, p, s.sums + p);
  if (p < s.count) {
    int32_t last[least * kSums];
    tile<step, least>(s, p, last);
    std::memcpy(s.sums + p, last, static_cast<size_t>(s.count - p) * sizeof(int32_t));
  }
}

static void run(const PairSums& s) { s.step == 1 ? run_by<1>(s) : run_by<2>(s); }

extern const PairSumsTable pair_sums_table = {run, 2 * kSums};

}  // namespace ulpgrad::ULPGRAD_ISA
