#include "cast.h"

#include "halves_simd.h"

namespace ulpgrad::ULPGRAD_ISA {
namespace {

// float64 to float32 rounded to odd: what does not fit sets the last bit, so that rounding again to fewer bits is as
// good as rounding once.
ULPGRAD_INLINE float round_to_odd(double x) {
  const float near = float(x);
  const double back = near;
  const uint32_t bits = as_bits<uint32_t>(near);
  const uint32_t toward_zero = bits - uint32_t(__builtin_fabs(back) > __builtin_fabs(x));
  return as_bits<float>(back == x ? bits : toward_zero | 1);
}

template <typename From, typename To, To (*convert)(From)>
void each(const void* in, void* out, int64_t n) {
  const From* __restrict x = static_cast<const From*>(in);
  To* __restrict y = static_cast<To*>(out);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = convert(x[i]);
}

ULPGRAD_INLINE uint16_t d_to_b(double x) { return narrow_bfloat16(round_to_odd(x)); }
ULPGRAD_INLINE double b_to_d(uint16_t code) { return widen_bfloat16(code); }
ULPGRAD_INLINE double s_to_d(float x) { return x; }
ULPGRAD_INLINE float d_to_s(double x) { return float(x); }

#ifdef __F16C__

void h_to_s(const void* in, void* out, int64_t n) {
  const uint16_t* x = static_cast<const uint16_t*>(in);
  float* y = static_cast<float*>(out);
  int64_t i = 0;
#ifdef __AVX512F__
  for (; i + 16 <= n; i += 16)
    _mm512_storeu_ps(y + i, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i))));
#endif
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i))));
  for (; i < n; ++i) y[i] = _cvtsh_ss(x[i]);
}

void s_to_h(const void* in, void* out, int64_t n) {
  const float* x = static_cast<const float*>(in);
  uint16_t* y = static_cast<uint16_t*>(out);
  int64_t i = 0;
#ifdef __AVX512F__
  for (; i + 16 <= n; i += 16)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + i), _mm512_cvtps_ph(_mm512_loadu_ps(x + i), 0));
#endif
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), 0));
  for (; i < n; ++i) y[i] = _cvtss_sh(x[i], 0);
}

#else

constexpr CastLoop h_to_s = each<uint16_t, float, widen_float16>;
constexpr CastLoop s_to_h = each<float, uint16_t, narrow_float16>;

#endif

constexpr int64_t chunk = 512;

void d_to_h(const void* in, void* out, int64_t n) {
  alignas(64) float odd[chunk];
  for (int64_t i = 0; i < n; i += chunk) {
    const int64_t size = n - i < chunk ? n - i : chunk;
    each<double, float, round_to_odd>(static_cast<const double*>(in) + i, odd, size);
    s_to_h(odd, static_cast<uint16_t*>(out) + i, size);
  }
}

void h_to_d(const void* in, void* out, int64_t n) {
  alignas(64) float wide[chunk];
  for (int64_t i = 0; i < n; i += chunk) {
    const int64_t size = n - i < chunk ? n - i : chunk;
    h_to_s(static_cast<const uint16_t*>(in) + i, wide, size);
    each<float, double, s_to_d>(wide, static_cast<double*>(out) + i, size);
  }
}

}  // namespace

extern const CastTable cast_table = {
    each<uint16_t, float, widen_bfloat16>,
    each<float, uint16_t, narrow_bfloat16>,
    h_to_s,
    s_to_h,
    each<double, uint16_t, d_to_b>,
    d_to_h,
    each<uint16_t, double, b_to_d>,
    h_to_d,
    each<float, double, s_to_d>,
    each<double, float, d_to_s>,
};

}  // namespace ulpgrad::ULPGRAD_ISA
