// Twelve vectors that depend only on themselves: enough to fill two units of latency four or five, and with the two
// operands they still fit the sixteen registers of AVX2.
#include "peak.h"

#include "simd.h"

#ifdef __aarch64__
#include <arm_neon.h>
#elif defined(__SSE2__)
#include <immintrin.h>
#endif

namespace ulpgrad::ULPGRAD_ISA {

constexpr int kChains = 12;

#ifdef __aarch64__
#define ULPGRAD_REGISTER "+w"
#elif defined(__SSE2__)
#define ULPGRAD_REGISTER "+v"
#else
#define ULPGRAD_REGISTER "+m"
#endif

// void name(rounds): x = step, on each chain. The empty assembly keeps chains in their registers, and alive.
#define ULPGRAD_PEAK(name, attribute, Type, step)                    \
  attribute static void name(int64_t rounds) {                       \
    Type chains[kChains] = {}, a{}, b{};                             \
    __asm__ volatile("" : ULPGRAD_REGISTER(a), ULPGRAD_REGISTER(b)); \
    for (int64_t r = 0; r < rounds; ++r) {                           \
      _Pragma("GCC unroll 12") for (int i = 0; i < kChains; ++i) {   \
        Type x = chains[i];                                          \
        x = step;                                                    \
        __asm__ volatile("" : ULPGRAD_REGISTER(x));                  \
        chains[i] = x;                                               \
      }                                                              \
    }                                                                \
  }

ULPGRAD_PEAK(fma32, , Vec<float>, a* b + x)
ULPGRAD_PEAK(fma64, , Vec<double>, a* b + x)

#if ULPGRAD_ISA_LEVEL == 2
ULPGRAD_PEAK(words, , __m512i, _mm512_add_epi32(_mm512_madd_epi16(x, a), b))
ULPGRAD_PEAK(dot16, __attribute__((target("avx512vnni"))), __m512i, _mm512_dpwssd_epi32(x, a, b))
ULPGRAD_PEAK(dot8, __attribute__((target("avx512vnni"))), __m512i, _mm512_dpbusd_epi32(x, a, b))
ULPGRAD_PEAK(dot_bfloat16, __attribute__((target("avx512bf16"))), __m512, _mm512_dpbf16_ps(x, (__m512bh)a, (__m512bh)b))
#define ULPGRAD_NAMES "FMA", "VPMADDWD + VPADDD", "VPDPWSSD", "VPDPBUSD", "VDPBF16PS"
constexpr int kPair = 2;
#elif ULPGRAD_ISA_LEVEL == 1
ULPGRAD_PEAK(words, , __m256i, _mm256_add_epi32(_mm256_madd_epi16(x, a), b))
#if __has_include(<avxvnniintrin.h>)
ULPGRAD_PEAK(dot16, __attribute__((target("avxvnni"))), __m256i, _mm256_dpwssd_avx_epi32(x, a, b))
ULPGRAD_PEAK(dot8, __attribute__((target("avxvnni"))), __m256i, _mm256_dpbusd_avx_epi32(x, a, b))
#else
constexpr void (*dot16)(int64_t) = nullptr, (*dot8)(int64_t) = nullptr;
#endif
constexpr void (*dot_bfloat16)(int64_t) = nullptr;
#define ULPGRAD_NAMES "FMA", "VPMADDWD + VPADDD", "VPDPWSSD", "VPDPBUSD", ""
constexpr int kPair = 2;
#elif defined(__SSE2__)
ULPGRAD_PEAK(words, , __m128i, _mm_add_epi32(_mm_madd_epi16(x, a), b))
constexpr void (*dot16)(int64_t) = nullptr, (*dot8)(int64_t) = nullptr, (*dot_bfloat16)(int64_t) = nullptr;
#define ULPGRAD_NAMES "multiply and add", "PMADDWD + PADDD", "", "", ""
constexpr int kPair = 2;
#elif defined(__aarch64__)
ULPGRAD_PEAK(words, , int32x4_t, vmlal_high_s16(x, vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)))
ULPGRAD_PEAK(dot8, __attribute__((target("arch=armv8.2-a+dotprod"))), int32x4_t,
             vdotq_s32(x, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b)))
constexpr void (*dot16)(int64_t) = nullptr, (*dot_bfloat16)(int64_t) = nullptr;
#define ULPGRAD_NAMES "FMLA", "SMLAL", "", "SDOT", ""
constexpr int kPair = 1;
#else
ULPGRAD_PEAK(words, , Vec<int32_t>, a* b + x)
constexpr void (*dot16)(int64_t) = nullptr, (*dot8)(int64_t) = nullptr, (*dot_bfloat16)(int64_t) = nullptr;
#define ULPGRAD_NAMES "multiply and add", "multiply and add", "", "", ""
constexpr int kPair = 1;
#endif

constexpr const char* kNames[] = {ULPGRAD_NAMES};
constexpr int64_t kLane32 = 2 * kChains * kLanes<int32_t>;

extern const PeakTable peak_table = {
    {fma32, kLane32, kNames[0]},     {fma64, kLane32 / 2, kNames[0]}, {words, kLane32 * kPair, kNames[1]},
    {dot16, kLane32 * 2, kNames[2]}, {dot8, kLane32 * 4, kNames[3]},  {dot_bfloat16, kLane32 * 2, kNames[4]},
};

}  // namespace ulpgrad::ULPGRAD_ISA
