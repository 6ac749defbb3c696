// Loops that round to fixed point: scaling by a power of two is exact, so one rounding to a whole number is left.
#include "quantize.h"
#include "rounding.h"

namespace ulpgrad::ULPGRAD_ISA {
namespace {

template <typename Code>
constexpr bool is_value = false;
template <>
constexpr bool is_value<float> = true;
template <>
constexpr bool is_value<double> = true;

// Out holds codes, or values in T.
template <typename T, Rounding mode, typename Out>
int64_t saturate(const FixedGrid& g, const Draws& draws, const void* in, void* out, int64_t n) {
  using Word = typename Ieee<T>::Word;
  using Signed = typename Ieee<T>::Signed;
  constexpr int sign_at = 8 * sizeof(T) - 1;
  const T* __restrict x = static_cast<const T*>(in);
  const uint32_t* __restrict words = draws.words;
  Out* __restrict y = static_cast<Out*>(out);
  const T scale = T(g.scale), step = T(1 / g.scale), low = T(g.low), high = T(g.high);
  const int bits = draws.bits;
  int nans = 0;
#pragma omp simd reduction(+ : nans)
  for (int64_t i = 0; i < n; ++i) {
    const T value = x[i] * scale;
    nans += value != value ? 1 : 0;
    const T above = value > low ? value : low, inside = above < high ? above : high;
    Signed code;
    if constexpr (mode == nearest_even && sizeof(T) == 4) {
      code = whole_units<mode>(inside, 0, 0, bits);  // a tie is even on both sides of zero
    } else {
      const Word negative = Word(as<Signed>(inside) >> sign_at);
      const T size = as<T>(as<Signed>(inside) & ~(Signed(1) << sign_at));
      const Signed units = whole_units<mode>(size, negative, mode == stochastic ? words[i] : 0, bits);
      code = Signed((Word(units) ^ negative) - negative);
    }
    if constexpr (is_value<Out>) {
      y[i] = number(code) * step;
    } else {
      y[i] = Out(code);
    }
  }
  return nans;
}

// Modulo 2^bits, before rounding: that keeps fractions, and floor and differences are exact.
template <Rounding mode, typename Out>
int64_t wrap(const FixedGrid& g, const Draws& draws, const void* in, void* out, int64_t n) {
  const double* __restrict x = static_cast<const double*>(in);
  const uint32_t* __restrict words = draws.words;
  Out* __restrict y = static_cast<Out*>(out);
  const double scale = g.scale, step = 1 / g.scale, modulus = as<double>(int64_t(1023 + g.bits) << 52);
  const double part = 1 / modulus;
  const bool is_signed = g.low < 0;
  const int bits = draws.bits, unused = 32 - g.bits;
  int wild = 0;
#pragma omp simd reduction(+ : wild)
  for (int64_t i = 0; i < n; ++i) {
    const int64_t all = as<int64_t>(x[i]), finite = all & 0x7FFFFFFFFFFFFFFF;
    wild += finite >= 0x7FF0000000000000 ? 1 : 0;
    const double scaled = as<double>(finite) * scale, size = scaled < 0x1p1000 ? scaled : 0.0;  // a multiple of 2^bits
    const double rest = size - __builtin_floor(size * part) * modulus;
    const uint64_t negative = uint64_t(all >> 63);
    const int64_t units = whole_units<mode>(rest, negative, mode == stochastic ? words[i] : 0, bits);
    const uint32_t word = uint32_t((uint64_t(units) ^ negative) - negative) << unused;
    const int64_t code = is_signed ? int64_t(int32_t(word) >> unused) : int64_t(word >> unused);
    if constexpr (is_value<Out>) {
      y[i] = double(code) * step;
    } else {
      y[i] = Out(code);
    }
  }
  return wild;
}

template <typename T, Rounding mode, typename Out>
int64_t to_fixed(const FixedGrid& g, const Draws& draws, const void* in, void* out, int64_t n) {
  if constexpr (sizeof(T) == 8) {
    if (g.wraps) return wrap<mode, Out>(g, draws, in, out, n);
  }
  return saturate<T, mode, Out>(g, draws, in, out, n);
}

#define LOOPS(T, mode) \
  {to_fixed<T, mode, uint8_t>, to_fixed<T, mode, uint16_t>, to_fixed<T, mode, uint32_t>, to_fixed<T, mode, T>}

}  // namespace

extern const ToFixedTable to_fixed_table = {{{EACH_ROUNDING(LOOPS, float)}, {EACH_ROUNDING(LOOPS, double)}}};

}  // namespace ulpgrad::ULPGRAD_ISA
