// Twelve vectors that depend only on themselves: enough to fill two units of latency four or five, and with the two
// operands they still fit the sixteen registers of AVX2.
#include "peak.h"

#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int kChains = 12;

template <typename T>
static T fma(int64_t rounds, T a, T b) {
  const Vec<T> va = broadcast<T>(a), vb = broadcast<T>(b);
  Vec<T> x[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) x[i] = broadcast<T>(static_cast<T>(i));
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) x[i] = x[i] * va + vb;
  }
  Vec<T> total = x[0];
#pragma GCC unroll 12
  for (int i = 1; i < kChains; ++i) total += x[i];
  return sum<T>(total);
}

using Sums = Vec<int32_t>;

// Products of pairs, added; one product where there is no such instruction.
ULPGRAD_INLINE Sums pairs(Sums x, Sums a) {
#if ULPGRAD_ISA_LEVEL == 2
  return reinterpret_cast<Sums>(_mm512_madd_epi16(reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(a)));
#elif ULPGRAD_ISA_LEVEL == 1
  return reinterpret_cast<Sums>(_mm256_madd_epi16(reinterpret_cast<__m256i>(x), reinterpret_cast<__m256i>(a)));
#else
  return x * a;
#endif
}

constexpr int kPair = ULPGRAD_ISA_LEVEL == 0 ? 1 : 2;

static int32_t dot16(int64_t rounds, int32_t a, int32_t b) {
  const Sums va = broadcast<int32_t>(a), vb = broadcast<int32_t>(b);
  Sums x[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) x[i] = broadcast<int32_t>(i);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) x[i] = pairs(x[i], va) + vb;
  }
  Sums total = x[0];
#pragma GCC unroll 12
  for (int i = 1; i < kChains; ++i) total += x[i];
  return total[0];
}

#if ULPGRAD_ISA_LEVEL == 2
// The empty assembly keeps each chain in its register: GCC else copies them all in every step.
#define VNNI_LOOP(name, instruction)                                                                  \
  __attribute__((target("avx512vnni"))) static int32_t name(int64_t rounds, int32_t a, int32_t b) {   \
    const __m512i va = _mm512_set1_epi32(a), vb = _mm512_set1_epi32(b);                               \
    __m512i x[kChains];                                                                               \
    _Pragma("GCC unroll 12") for (int i = 0; i < kChains; ++i) x[i] = _mm512_set1_epi32(i);           \
    for (int64_t r = 0; r < rounds; ++r) {                                                            \
      _Pragma("GCC unroll 12") for (int i = 0; i < kChains; ++i) {                                    \
        x[i] = instruction(x[i], va, vb);                                                             \
        __asm__("" : "+v"(x[i]));                                                                     \
      }                                                                                               \
    }                                                                                                 \
    Sums total{};                                                                                     \
    _Pragma("GCC unroll 12") for (int i = 0; i < kChains; ++i) total += reinterpret_cast<Sums>(x[i]); \
    return total[0];                                                                                  \
  }
VNNI_LOOP(vnni16, _mm512_dpwssd_epi32)
VNNI_LOOP(vnni8, _mm512_dpbusd_epi32)
#undef VNNI_LOOP
constexpr int kVnni16 = kChains * 32, kVnni8 = kChains * 64;
#else
constexpr int kVnni16 = 0, kVnni8 = 0;
constexpr decltype(&dot16) vnni16 = nullptr, vnni8 = nullptr;
#endif

extern const PeakTable peak_table = {fma<float>,
                                     fma<double>,
                                     kChains * kLanes<float>,
                                     kChains * kLanes<double>,
                                     dot16,
                                     kChains * kLanes<int32_t> * kPair,
                                     vnni16,
                                     vnni8,
                                     kVnni16,
                                     kVnni8};

}  // namespace ulpgrad::ULPGRAD_ISA
