// Conversions between 16-bit floats and float32, one by one and by vectors: exact to float32, rounded once to nearest
// even from it. The same names serve float and double, which stay as they are.
#pragma once

#include "halves.h"
#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

template <typename To, typename From>
ULPGRAD_INLINE To as_bits(From from) {
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

ULPGRAD_INLINE float widen_bfloat16(uint16_t code) { return as_bits<float>(uint32_t(code) << 16); }

ULPGRAD_INLINE uint16_t narrow_bfloat16(float x) {
  const uint32_t bits = as_bits<uint32_t>(x), high = bits >> 16;
  const uint32_t rounded = (bits + 0x7FFF + (high & 1)) >> 16;
  return uint16_t(x != x ? high | 0x40 : rounded);  // a NaN keeps its sign and gains the quiet bit
}

ULPGRAD_INLINE float widen_float16(uint16_t code) {
  const uint32_t sign = uint32_t(code & 0x8000) << 16, size = code & 0x7FFF, moved = size << 13;
  const uint32_t normal = moved + (size >= 0x7C00 ? 0x70000000u : 0x38000000u);
  const uint32_t subnormal = as_bits<uint32_t>(float(int32_t(size)) * 0x1p-24f);
  return as_bits<float>((size < 0x400 ? subnormal : normal) | sign);
}

ULPGRAD_INLINE uint16_t narrow_float16(float x) {
  const uint32_t bits = as_bits<uint32_t>(x), sign = bits >> 16 & 0x8000, size = bits & 0x7FFFFFFF;
  const uint32_t normal = (size - 0x38000000u + 0xFFF + (size >> 13 & 1)) >> 13;
  const uint32_t subnormal = as_bits<uint32_t>(as_bits<float>(size) + 0.5f) - 0x3F000000u;  // rounds to steps of 2^-24
  const uint32_t finite = size < 0x38800000u ? subnormal : normal;
  const uint32_t special = size > 0x7F800000u ? 0x7E00u | (size >> 13 & 0x1FF) : 0x7C00u;
  return uint16_t((size >= 0x47800000u ? special : finite) | sign);
}

ULPGRAD_INLINE float widen(float x) { return x; }
ULPGRAD_INLINE double widen(double x) { return x; }
ULPGRAD_INLINE float widen(Bfloat16 x) { return widen_bfloat16(x.bits); }
ULPGRAD_INLINE float widen(Float16 x) { return widen_float16(x.bits); }

ULPGRAD_INLINE Vec<float> load_wide(const float* p) { return load(p); }
ULPGRAD_INLINE Vec<double> load_wide(const double* p) { return load(p); }
ULPGRAD_INLINE Vec<float> load_wide_some(const float* p, int64_t count) { return load_some(p, count); }
ULPGRAD_INLINE Vec<double> load_wide_some(const double* p, int64_t count) { return load_some(p, count); }
ULPGRAD_INLINE void store_narrow(float* p, Vec<float> x) { store(p, x); }
ULPGRAD_INLINE void store_narrow(double* p, Vec<double> x) { store(p, x); }
ULPGRAD_INLINE void store_narrow_some(float* p, Vec<float> x, int64_t count) { store_some(p, x, count); }
ULPGRAD_INLINE void store_narrow_some(double* p, Vec<double> x, int64_t count) { store_some(p, x, count); }

// The codes of a vector of float32, in the lower half of each of its lanes.
ULPGRAD_INLINE Vec<uint32_t> round_to_bfloat16(Vec<float> x) {
  const Vec<uint32_t> bits = (Vec<uint32_t>)x, high = bits >> 16;
  return x != x ? high | 0x40 : (bits + 0x7FFF + (high & 1)) >> 16;
}

#if ULPGRAD_ISA_LEVEL == 2

using Codes = __m256i;
ULPGRAD_INLINE Codes load_codes(const void* p) { return _mm256_loadu_si256(static_cast<const Codes*>(p)); }
ULPGRAD_INLINE Codes load_codes(const void* p, int64_t count) {
  return _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << count) - 1), p);
}
ULPGRAD_INLINE void store_codes(void* p, Codes x) { _mm256_storeu_si256(static_cast<Codes*>(p), x); }
ULPGRAD_INLINE void store_codes(void* p, Codes x, int64_t count) {
  _mm256_mask_storeu_epi16(p, static_cast<__mmask16>((1u << count) - 1), x);
}
ULPGRAD_INLINE Vec<uint32_t> spread(Codes x) { return (Vec<uint32_t>)_mm512_cvtepu16_epi32(x); }
ULPGRAD_INLINE Codes gather_low(Vec<uint32_t> x) { return _mm512_cvtepi32_epi16((__m512i)x); }
ULPGRAD_INLINE Vec<float> decode_float16(Codes x) { return (Vec<float>)_mm512_cvtph_ps(x); }
ULPGRAD_INLINE Codes encode_float16(Vec<float> x) { return _mm512_cvtps_ph((__m512)x, 0); }

#else

struct alignas(2 * kLanes<float>) Codes {
  uint16_t code[kLanes<float>];
};
ULPGRAD_INLINE Codes load_codes(const void* p, int64_t count = kLanes<float>) {
  Codes x = {};
  std::memcpy(&x, p, static_cast<size_t>(count) * sizeof(uint16_t));
  return x;
}
ULPGRAD_INLINE void store_codes(void* p, const Codes& x, int64_t count = kLanes<float>) {
  std::memcpy(p, &x, static_cast<size_t>(count) * sizeof(uint16_t));
}

#if ULPGRAD_ISA_LEVEL == 1
ULPGRAD_INLINE __m128i whole(const Codes& x) { return _mm_load_si128(reinterpret_cast<const __m128i*>(&x)); }
ULPGRAD_INLINE Codes codes(__m128i x) {
  Codes out;
  _mm_store_si128(reinterpret_cast<__m128i*>(&out), x);
  return out;
}
ULPGRAD_INLINE Vec<uint32_t> spread(const Codes& x) { return (Vec<uint32_t>)_mm256_cvtepu16_epi32(whole(x)); }
ULPGRAD_INLINE Codes gather_low(Vec<uint32_t> x) {
  const __m256i v = (__m256i)x;
  return codes(_mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)));
}
ULPGRAD_INLINE Vec<float> decode_float16(const Codes& x) { return (Vec<float>)_mm256_cvtph_ps(whole(x)); }
ULPGRAD_INLINE Codes encode_float16(Vec<float> x) { return codes(_mm256_cvtps_ph((__m256)x, 0)); }
#else
ULPGRAD_INLINE Vec<uint32_t> spread(const Codes& x) {
  Vec<uint32_t> out;
  for (int l = 0; l < kLanes<float>; ++l) out[l] = x.code[l];
  return out;
}
ULPGRAD_INLINE Codes gather_low(Vec<uint32_t> x) {
  Codes out;
  for (int l = 0; l < kLanes<float>; ++l) out.code[l] = static_cast<uint16_t>(x[l]);
  return out;
}
ULPGRAD_INLINE Vec<float> decode_float16(const Codes& x) {
  Vec<float> out;
  for (int l = 0; l < kLanes<float>; ++l) out[l] = widen_float16(x.code[l]);
  return out;
}
ULPGRAD_INLINE Codes encode_float16(Vec<float> x) {
  Codes out;
  for (int l = 0; l < kLanes<float>; ++l) out.code[l] = narrow_float16(x[l]);
  return out;
}
#endif

#endif

ULPGRAD_INLINE Vec<float> load_wide(const Bfloat16* p) { return (Vec<float>)(spread(load_codes(p)) << 16); }
ULPGRAD_INLINE Vec<float> load_wide(const Float16* p) { return decode_float16(load_codes(p)); }
ULPGRAD_INLINE Vec<float> load_wide_some(const Bfloat16* p, int64_t count) {
  return (Vec<float>)(spread(load_codes(p, count)) << 16);
}
ULPGRAD_INLINE Vec<float> load_wide_some(const Float16* p, int64_t count) {
  return decode_float16(load_codes(p, count));
}
ULPGRAD_INLINE void store_narrow(Bfloat16* p, Vec<float> x) { store_codes(p, gather_low(round_to_bfloat16(x))); }
ULPGRAD_INLINE void store_narrow(Float16* p, Vec<float> x) { store_codes(p, encode_float16(x)); }
ULPGRAD_INLINE void store_narrow_some(Bfloat16* p, Vec<float> x, int64_t count) {
  store_codes(p, gather_low(round_to_bfloat16(x)), count);
}
ULPGRAD_INLINE void store_narrow_some(Float16* p, Vec<float> x, int64_t count) {
  store_codes(p, encode_float16(x), count);
}

}  // namespace ulpgrad::ULPGRAD_ISA
