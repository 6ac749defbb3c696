// Loops that round to floats of any size: to codes, to the values themselves, or only counting what happens.
#include "quantize.h"

#include "rounding.h"

namespace ulpgrad::ULPGRAD_ISA {
namespace {

template <typename T>
ULPGRAD_INLINE T power_of_two(int exponent) {
  using Signed = typename Ieee<T>::Signed;
  constexpr int mantissa = Ieee<T>::mantissa, bias = Ieee<T>::bias;
  if (exponent > -bias) return as<T>(Signed(exponent + bias) << mantissa);
  return as<T>(Signed(1) << (exponent + bias - 1 + mantissa));  // a subnormal one
}

// Two codes, or the bits of two values, of which the sign chooses one.
template <typename Word>
struct Pair {
  Word plus, change;
  explicit Pair(const uint32_t (&codes)[2]) : plus(codes[0]), change(codes[0] ^ codes[1]) {}
  template <typename T>
  Pair(T positive, T negative) : plus(as<Word>(positive)), change(as<Word>(positive) ^ as<Word>(negative)) {}
  Word of(Word negative) const { return plus ^ (change & negative); }
};

template <typename T, Rounding mode, typename Code>
void encode(const FloatGrid& g, const Draws& draws, const void* in, void* out, int64_t n) {
  using Word = typename Ieee<T>::Word;
  using Signed = typename Ieee<T>::Signed;
  constexpr Signed infinite = Ieee<T>::infinity, rest = ~(Word(1) << (8 * sizeof(T) - 1));
  const T* __restrict x = static_cast<const T*>(in);
  const uint32_t* __restrict words = draws.words;
  Code* __restrict y = static_cast<Code*>(out);
  const int lowest = g.min_exponent + Ieee<T>::bias, mantissa = g.mantissa_bits, bits = draws.bits;
  const Signed largest = g.max_code, kept_from = g.kept_from;
  const Word sign = g.sign;
  const Pair<Word> zero(g.zero), beyond(g.beyond), infinity(g.infinity), nan(g.nan);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const Signed all = as<Signed>(x[i]), size = all & rest;
    const Word negative = Word(all >> (8 * sizeof(T) - 1));  // all ones, or zero
    const Signed near = float_code<mode>(size, negative, lowest, mantissa, mode == stochastic ? words[i] : 0, bits);
    const Signed code = near < kept_from ? 0 : near;
    Word full = Word(code) | (negative & sign);
    full = code == 0 ? zero.of(negative) : full;
    full = code > largest ? beyond.of(negative) : full;
    full = size >= infinite ? infinity.of(negative) : full;
    full = size > infinite ? nan.of(negative) : full;
    y[i] = Code(full);
  }
}

template <typename T, Rounding mode>
void round(const FloatGrid& g, const Draws& draws, const void* in, void* out, int64_t n) {
  using Word = typename Ieee<T>::Word;
  using Signed = typename Ieee<T>::Signed;
  constexpr int sign_at = 8 * sizeof(T) - 1;
  constexpr Signed infinite = Ieee<T>::infinity, rest = ~(Word(1) << sign_at);
  const T* __restrict x = static_cast<const T*>(in);
  const uint32_t* __restrict words = draws.words;
  T* __restrict y = static_cast<T*>(out);
  const int lowest = g.min_exponent + Ieee<T>::bias, mantissa = g.mantissa_bits, bits = draws.bits;
  const Signed largest = g.max_code, kept_from = g.kept_from;
  const T step = power_of_two<T>(g.min_exponent - mantissa);
  const Pair<Word> zero(T(0), g.sign && g.zero[1] == g.sign ? T(-0.0) : T(0));
  const Pair<Word> beyond(T(g.beyond_value[0]), T(g.beyond_value[1]));
  const Pair<Word> infinity(T(g.infinity_value[0]), T(g.infinity_value[1]));
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const Signed all = as<Signed>(x[i]), size = all & rest;
    const Word negative = Word(all >> sign_at);
    const Signed near = float_code<mode>(size, negative, lowest, mantissa, mode == stochastic ? words[i] : 0, bits);
    const Signed code = near < kept_from ? 0 : near;
    const T value = code_value<T>(code > largest ? largest : code, lowest, mantissa, step);
    Word full = as<Word>(value) | (negative & ~Word(rest));
    full = code == 0 ? zero.of(negative) : full;
    full = code > largest ? beyond.of(negative) : full;
    full = size >= infinite ? infinity.of(negative) : full;
    full = size > infinite ? Word(all) : full;
    y[i] = as<T>(full);
  }
}

template <typename Code>
void encode_plain(const FloatGrid& g, const Draws&, const void* in, void* out, int64_t n) {
  const float* __restrict x = static_cast<const float*>(in);
  Code* __restrict y = static_cast<Code*>(out);
  const PlainRounding rounding = PlainRounding::of(g.min_exponent + 127, g.mantissa_bits);
  const int largest = g.max_code, kept_from = g.kept_from, beyond = int(g.beyond[0]), nan = int(g.nan[0]);
  const uint32_t sign = g.sign;
  const int sign_at = __builtin_clz(sign);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t all = as<uint32_t>(x[i]);
    const int size = int(all & 0x7FFFFFFF);
    int code = plain_code(rounding, size);
    code = code < kept_from ? 0 : code;
    code = code > largest ? beyond : code;
    code = size > 0x7F800000 ? nan : code;
    y[i] = Code(uint32_t(code) | (all >> sign_at & sign));
  }
}

void round_plain(const FloatGrid& g, const Draws&, const void* in, void* out, int64_t n) {
  const float* __restrict x = static_cast<const float*>(in);
  float* __restrict y = static_cast<float*>(out);
  const int lowest = g.min_exponent + 127, mantissa = g.mantissa_bits;
  const PlainRounding rounding = PlainRounding::of(lowest, mantissa);
  const int largest = g.max_code, kept_from = g.kept_from;
  const float step = power_of_two<float>(g.min_exponent - mantissa), beyond = float(g.beyond_value[0]);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t all = as<uint32_t>(x[i]);
    const int size = int(all & 0x7FFFFFFF);
    int code = plain_code(rounding, size);
    code = code < kept_from ? 0 : code;
    float value = code_value<float>(code > largest ? largest : code, lowest, mantissa, step);
    value = code > largest ? beyond : value;
    value = size > 0x7F800000 ? as<float>(size) : value;
    y[i] = as<float>(as<uint32_t>(value) | (all & 0x80000000));
  }
}

template <typename T, Rounding mode>
void count(const FloatGrid& g, const Draws& draws, const void* in, Counts& counts, int64_t n) {
  using Word = typename Ieee<T>::Word;
  using Signed = typename Ieee<T>::Signed;
  constexpr Signed infinite = Ieee<T>::infinity, rest = ~(Word(1) << (8 * sizeof(T) - 1));
  const T* __restrict x = static_cast<const T*>(in);
  const uint32_t* __restrict words = draws.words;
  const int lowest = g.min_exponent + Ieee<T>::bias, mantissa = g.mantissa_bits, bits = draws.bits;
  const Signed largest = g.max_code, kept_from = g.kept_from;
  Signed overflowed = 0, underflowed = 0, flushed = 0, nan = 0, endless = 0;
#pragma omp simd reduction(+ : overflowed, underflowed, flushed, nan, endless)
  for (int64_t i = 0; i < n; ++i) {
    const Signed all = as<Signed>(x[i]), size = all & rest;
    const Signed code = float_code<mode>(size, Word(all >> (8 * sizeof(T) - 1)), lowest, mantissa,
                                         mode == stochastic ? words[i] : 0, bits);
    const Signed finite = size < infinite ? 1 : 0;
    overflowed += code > largest ? finite : 0;
    underflowed += code == 0 && size != 0 ? 1 : 0;
    flushed += code > 0 && code < kept_from ? 1 : 0;
    nan += size > infinite ? 1 : 0;
    endless += size == infinite ? 1 : 0;
  }
  counts.overflowed += overflowed;
  counts.underflowed += underflowed;
  counts.flushed += flushed;
  counts.nan += nan;
  counts.infinite += endless;
}

#define LOOPS(T, mode) {encode<T, mode, uint8_t>, encode<T, mode, uint16_t>, encode<T, mode, uint32_t>, round<T, mode>}
#define COUNT(T, mode) count<T, mode>

}  // namespace

extern const QuantizeTable quantize_table = {
    {{EACH_ROUNDING(LOOPS, float)}, {EACH_ROUNDING(LOOPS, double)}},
    {encode_plain<uint8_t>, encode_plain<uint16_t>, encode_plain<uint32_t>, round_plain},
    {{EACH_ROUNDING(COUNT, float)}, {EACH_ROUNDING(COUNT, double)}},
};

}  // namespace ulpgrad::ULPGRAD_ISA
