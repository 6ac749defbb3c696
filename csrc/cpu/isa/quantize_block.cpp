// Blocks with a shared power of two: a sweep for the largest magnitude, whose exponent bits give the scale, and one
// that rounds. Elements are not multiplied: their format is moved by the scale instead, so nothing can underflow on the
// way.
#include "quantize.h"
#include "rounding.h"

namespace ulpgrad::ULPGRAD_ISA {
namespace {

constexpr int kScaleBias = 127, kNanScale = 0xFF;

template <typename T>
ULPGRAD_INLINE typename Ieee<T>::Signed largest_size(const T* x, int64_t n) {
  using Signed = typename Ieee<T>::Signed;
  Signed most = 0;
#pragma omp simd reduction(max : most)
  for (int64_t i = 0; i < n; ++i) {
    const Signed size = as<Signed>(x[i]) & ~(Signed(1) << (8 * sizeof(T) - 1));
    most = size > most ? size : most;
  }
  return most;
}

// The exponent of the scale for a largest magnitude; -127 for zero.
ULPGRAD_INLINE int scale_exponent(const BlockGrid& g, double largest) {
  int64_t all = as<int64_t>(largest);
  int below = 0;
  if (all < int64_t(1) << 52) {
    if (!all) return -kScaleBias;
    all = as<int64_t>(largest * 0x1p64);
    below = 64;
  }
  const int carry = (all & 0xFFFFFFFFFFFFF) >= g.carry_from ? 1 : 0;
  const int exponent = int(all >> 52) - 1023 - below + carry - g.max_exponent;
  return exponent < -kScaleBias ? -kScaleBias : exponent > kScaleBias ? kScaleBias : exponent;
}

template <typename T, Rounding mode>
ULPGRAD_INLINE void float_elements(const FloatGrid& g, int lowest, const T* __restrict x,
                                   const uint32_t* __restrict words, int bits, uint8_t* __restrict codes, int64_t n) {
  using Word = typename Ieee<T>::Word;
  using Signed = typename Ieee<T>::Signed;
  const Signed largest = g.max_code, kept_from = g.kept_from;
  const uint32_t sign = g.sign;
  const int mantissa = g.mantissa_bits;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const Signed all = as<Signed>(x[i]), size = all & ~(Signed(1) << (8 * sizeof(T) - 1));
    const Word negative = Word(all >> (8 * sizeof(T) - 1));
    Signed code = float_code<mode>(size, negative, lowest, mantissa, mode == stochastic ? words[i] : 0, bits);
    code = code < kept_from ? 0 : code;
    code = code > largest ? largest : code;
    codes[i] = uint8_t(Word(code) | (negative & sign));
  }
}

ULPGRAD_INLINE void plain_elements(const FloatGrid& g, const PlainRounding& rounding, const float* __restrict x,
                                   uint8_t* __restrict codes, int64_t n) {
  const int largest = g.max_code, kept_from = g.kept_from;
  const uint32_t sign = g.sign;
  const int sign_at = __builtin_clz(sign);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t all = as<uint32_t>(x[i]);
    int code = plain_code(rounding, int(all & 0x7FFFFFFF));
    code = code < kept_from ? 0 : code;
    code = code > largest ? largest : code;
    codes[i] = uint8_t(uint32_t(code) | (all >> sign_at & sign));
  }
}

template <typename T, Rounding mode>
ULPGRAD_INLINE void fixed_elements(const FixedGrid& g, int exponent, const T* __restrict x,
                                   const uint32_t* __restrict words, int bits, uint8_t* __restrict codes, int64_t n) {
  const double scale = g.scale * as<double>(int64_t(1023 - exponent) << 52), low = g.low, high = g.high;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const double value = double(x[i]) * scale;
    const double above = value > low ? value : low, inside = above < high ? above : high;
    const int64_t all = as<int64_t>(inside);
    const uint64_t negative = uint64_t(all >> 63);
    const double size = kept(as<double>(all & 0x7FFFFFFFFFFFFFFF), x[i] != T(0));
    const int64_t units = whole_units<mode>(size, negative, mode == stochastic ? words[i] : 0, bits);
    codes[i] = uint8_t((uint64_t(units) ^ negative) - negative);
  }
}

template <typename T, Rounding mode>
ULPGRAD_INLINE uint8_t block(const BlockGrid& g, const Draws& draws, const T* x, const uint32_t* words, uint8_t* codes,
                             int64_t n) {
  const auto most = largest_size(x, n);
  if (most >= Ieee<T>::infinity) {
    for (int64_t i = 0; i < n; ++i) codes[i] = 0;
    return kNanScale;
  }
  const int exponent = scale_exponent(g, double(as<T>(most)));
  const int first = g.element.min_exponent + exponent;  // of the smallest normal value of the moved format
  if (g.is_fixed) {
    fixed_elements<T, mode>(g.fixed, exponent, x, words, draws.bits, codes, n);
  } else if constexpr (sizeof(T) == 4) {
    const int mantissa = g.element.mantissa_bits;
    if (mode == nearest_even && first >= -126 && first <= 104 + mantissa) {
      plain_elements(g.element, PlainRounding::of(first + 127, mantissa), x, codes, n);
    } else if (first >= -126) {
      float_elements<float, mode>(g.element, first + 127, x, words, draws.bits, codes, n);
    } else {  // float's subnormal numbers are normal ones of double
      constexpr int64_t part = 64;
      double wide[part];
      for (int64_t begin = 0; begin < n; begin += part) {
        const int64_t count = n - begin < part ? n - begin : part;
        for (int64_t i = 0; i < count; ++i) wide[i] = x[begin + i];
        float_elements<double, mode>(g.element, first + 1023, wide, words + (mode == stochastic ? begin : 0),
                                     draws.bits, codes + begin, count);
      }
    }
  } else {
    float_elements<double, mode>(g.element, first + 1023, x, words, draws.bits, codes, n);
  }
  return uint8_t(exponent + kScaleBias);
}

constexpr int kTogether = 16, kPlainSize = 32;  // blocks, values in each

// So many blocks of floats to nearest even, if the moved format is plain in all of them: their scales are found side by
// side, where one block's would wait for its largest value. False, with nothing done that counts, if it is not.
bool plain_blocks(const BlockGrid& g, const float* __restrict x, uint8_t* __restrict codes,
                  uint8_t* __restrict scales) {
  const int mantissa = g.element.mantissa_bits, shift = g.element.min_exponent + 127;
  constexpr int64_t dropped = int64_t(1) << 29, never = int64_t(1) << 52;  // carry_from counts bits of a double
  const int carry_from = int(((g.carry_from < never ? g.carry_from : never) + dropped - 1) / dropped);
  const int offset = 127 + g.max_exponent;
  alignas(64) int most[kTogether], lowest[kTogether];
  for (int b = 0; b < kTogether; ++b) most[b] = largest_size(x + b * kPlainSize, kPlainSize);
  int beside = 0;
#pragma omp simd reduction(| : beside)
  for (int b = 0; b < kTogether; ++b) {
    const int field = most[b] >> 23, carry = (most[b] & 0x7FFFFF) >= carry_from ? 1 : 0;
    const int raised = field - offset + carry > -kScaleBias ? field - offset + carry : -kScaleBias;
    const int exponent = raised < kScaleBias ? raised : kScaleBias;
    lowest[b] = shift + exponent;
    scales[b] = uint8_t(exponent + kScaleBias);
    beside |= (field < 1) | (field > 254) | (lowest[b] < 1) | (lowest[b] > 231 + mantissa);
  }
  if (beside) return false;
  for (int b = 0; b < kTogether; ++b)
    plain_elements(g.element, PlainRounding::of(lowest[b], mantissa), x + b * kPlainSize, codes + b * kPlainSize,
                   kPlainSize);
  return true;
}

template <typename T, Rounding mode>
void to_blocks(const BlockGrid& g, const Draws& draws, const void* in, uint8_t* codes, uint8_t* scales, int64_t n) {
  const T* x = static_cast<const T*>(in);
  const uint32_t* words = draws.words;
  constexpr int64_t part = kTogether * kPlainSize;
  for (int64_t at = 0; at < n;) {
    const int64_t end = n - at < part ? n : at + part;
    if constexpr (sizeof(T) == 4 && mode == nearest_even) {
      if (!g.is_fixed && g.size == kPlainSize && end - at == part && plain_blocks(g, x + at, codes + at, scales)) {
        scales += kTogether;
        at = end;
      }
    }
    for (; at < end; at += g.size) {
      const int64_t count = n - at < g.size ? n - at : g.size;
      const uint32_t* drawn = mode == stochastic ? words + at : words;
      *scales++ = count == kPlainSize ? block<T, mode>(g, draws, x + at, drawn, codes + at, kPlainSize)
                                      : block<T, mode>(g, draws, x + at, drawn, codes + at, count);
    }
  }
}

#define LOOPS(T, mode) to_blocks<T, mode>

}  // namespace

extern const ToBlockTable to_block_table = {{{EACH_ROUNDING(LOOPS, float)}, {EACH_ROUNDING(LOOPS, double)}}};

}  // namespace ulpgrad::ULPGRAD_ISA
