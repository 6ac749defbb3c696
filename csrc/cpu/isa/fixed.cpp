#include "fixed.h"

#include <type_traits>

// Values pass through small buffers of the width that holds them all, one simple loop per step, so that every step
// vectorises and no combination of words, modes and widths needs code of its own. What is commonest, operands and
// result of one 8- or 16-bit word, has loops that do all in registers.

namespace ulpgrad::ULPGRAD_ISA {
namespace {

using int128 = __int128;
using uint128 = unsigned __int128;

// The unsigned type of the same size: the library's own, but of 128 bits, which it need not know.
template <typename W>
using UnsignedOf =
    typename std::conditional_t<sizeof(W) == 16, std::enable_if<true, uint128>, std::make_unsigned<W>>::type;

constexpr int block = 256;

template <typename W>
ULPGRAD_INLINE W shifted(W x, int by) {
  using U = UnsignedOf<W>;
  return W(U(x) << by);
}

template <typename S, typename W>
void load_as(const void* from, int64_t step, int64_t begin, int n, W* x) {
  const S* p = static_cast<const S*>(from) + begin * step;
  if (step == 1) {
    for (int i = 0; i < n; ++i) x[i] = W(p[i]);
  } else {
    for (int i = 0; i < n; ++i) x[i] = W(p[i * step]);
  }
}

template <typename W>
void load(FixedWord word, const void* from, int64_t step, int64_t begin, int n, W* x) {
  switch (word) {
    case FixedWord::i8:
      return load_as<int8_t>(from, step, begin, n, x);
    case FixedWord::i16:
      return load_as<int16_t>(from, step, begin, n, x);
    case FixedWord::i32:
      return load_as<int32_t>(from, step, begin, n, x);
    case FixedWord::i64:
      return load_as<int64_t>(from, step, begin, n, x);
    case FixedWord::u8:
      return load_as<uint8_t>(from, step, begin, n, x);
    case FixedWord::u16:
      return load_as<uint16_t>(from, step, begin, n, x);
    case FixedWord::u32:
      return load_as<uint32_t>(from, step, begin, n, x);
    default:
      return load_as<uint64_t>(from, step, begin, n, x);
  }
}

template <typename S, typename W>
void store_as(const W* x, void* to, int64_t begin, int n) {
  S* p = static_cast<S*>(to) + begin;
  for (int i = 0; i < n; ++i) p[i] = S(x[i]);
}

template <typename W>
void store(FixedWord word, const W* x, void* to, int64_t begin, int n) {
  switch (word) {
    case FixedWord::i8:
      return store_as<int8_t>(x, to, begin, n);
    case FixedWord::i16:
      return store_as<int16_t>(x, to, begin, n);
    case FixedWord::i32:
      return store_as<int32_t>(x, to, begin, n);
    case FixedWord::i64:
      return store_as<int64_t>(x, to, begin, n);
    case FixedWord::u8:
      return store_as<uint8_t>(x, to, begin, n);
    case FixedWord::u16:
      return store_as<uint16_t>(x, to, begin, n);
    case FixedWord::u32:
      return store_as<uint32_t>(x, to, begin, n);
    default:
      return store_as<uint64_t>(x, to, begin, n);
  }
}

// Whether stochastic rounding goes up at a fraction part / whole, taken to `bits` bits with ties to even. A whole that
// is a power of two is given by `log`, else by itself with log < 0.
template <typename W>
bool goes_up(W part, W whole, int log, int bits, uint32_t word) {
  W count, rest;
  if (log >= 0 && log <= bits) {
    count = shifted(part, bits - log);
    rest = 0;
    whole = 2;
  } else if (log >= 0) {
    const int more = log - bits;
    count = part >> more;
    rest = part - shifted(count, more);
    whole = shifted(W(1), more);
  } else {
    const W scaled = shifted(part, bits);
    count = scaled / whole;
    rest = scaled - count * whole;
  }
  count += rest > whole - rest || (rest == whole - rest && (count & 1));
  return uint64_t(count) + (uint64_t(word) >> (32 - bits)) >= uint64_t(1) << bits;
}

template <typename W>
void drop(W* x, int n, const FixedCall& c, const uint32_t* words) {
  const int by = c.drop;
  if (by <= 0) {
    if (by < 0)
      for (int i = 0; i < n; ++i) x[i] = shifted(x[i], -by);
    return;
  }
  const W one = shifted(W(1), by), half = shifted(W(1), by - 1);
  switch (c.rounding) {
    case FixedRounding::nearest_even:
      for (int i = 0; i < n; ++i) x[i] = (x[i] + (half - 1) + ((x[i] >> by) & 1)) >> by;
      return;
    case FixedRounding::nearest_away:
      for (int i = 0; i < n; ++i) x[i] = (x[i] + half - W(x[i] < 0)) >> by;
      return;
    case FixedRounding::toward_zero:
      for (int i = 0; i < n; ++i) x[i] = (x[i] + (x[i] < 0 ? one - 1 : W(0))) >> by;
      return;
    case FixedRounding::up:
      for (int i = 0; i < n; ++i) x[i] = (x[i] + (one - 1)) >> by;
      return;
    case FixedRounding::down:
      for (int i = 0; i < n; ++i) x[i] >>= by;
      return;
    case FixedRounding::to_odd:
      for (int i = 0; i < n; ++i) x[i] = (x[i] >> by) | W((x[i] & (one - 1)) != 0);
      return;
    default:
      for (int i = 0; i < n; ++i) {
        const W size = x[i] < 0 ? -x[i] : x[i];
        const W whole = (size >> by) + W(goes_up<W>(size & (one - 1), one, by, c.random_bits, words[i]));
        x[i] = x[i] < 0 ? -whole : whole;
      }
  }
}

// Whole parts of |x| / y for y > 0, and what is left of x. Where float64 holds both exactly, its quotient is off by
// less than the distance to the next whole number above, so that cutting it off is right; vector units divide those.
template <typename W>
void divide_whole(W* x, const W* y, W* whole, int n) {
  constexpr W exact = W(1) << (sizeof(W) == 4 ? 30 : 51);
  W largest = 0;
  for (int i = 0; i < n; ++i) {
    const W high = x[i] > y[i] ? x[i] : y[i];
    largest = high > largest ? high : largest;
  }
  if (sizeof(W) == 4 || largest < exact) {
    for (int i = 0; i < n; ++i) whole[i] = W(int64_t(double(x[i]) / double(y[i])));
  } else {
    for (int i = 0; i < n; ++i) whole[i] = x[i] / y[i];
  }
  for (int i = 0; i < n; ++i) x[i] -= whole[i] * y[i];
}

// x 2^left / (y 2^right), rounded.
template <typename W>
void divide(W* x, W* y, int n, const FixedCall& c, const uint32_t* words) {
  alignas(64) W whole[block], negative[block];
  for (int i = 0; i < n; ++i) {
    const W a = shifted(x[i], c.left), b = shifted(y[i], c.right);
    negative[i] = W((a < 0) != (b < 0));
    x[i] = a < 0 ? -a : a;
    y[i] = b < 0 ? -b : b;
  }
  divide_whole(x, y, whole, n);  // x is now what is left; the rest counts magnitudes
  switch (c.rounding) {
    case FixedRounding::nearest_even:
      for (int i = 0; i < n; ++i) whole[i] += W(x[i] > y[i] - x[i]) | (W(x[i] == y[i] - x[i]) & whole[i] & 1);
      break;
    case FixedRounding::nearest_away:
      for (int i = 0; i < n; ++i) whole[i] += W(x[i] >= y[i] - x[i]);
      break;
    case FixedRounding::toward_zero:
      break;
    case FixedRounding::up:
      for (int i = 0; i < n; ++i) whole[i] += W(x[i] != 0) & (negative[i] ^ 1);
      break;
    case FixedRounding::down:
      for (int i = 0; i < n; ++i) whole[i] += W(x[i] != 0) & negative[i];
      break;
    case FixedRounding::to_odd:
      for (int i = 0; i < n; ++i) whole[i] |= W(x[i] != 0);
      break;
    default:
      for (int i = 0; i < n; ++i) whole[i] += W(goes_up<W>(x[i], y[i], -1, c.random_bits, words[i]));
  }
  for (int i = 0; i < n; ++i) x[i] = negative[i] ? -whole[i] : whole[i];
}

template <typename W>
void limit(W* x, int n, const FixedCall& c, uint8_t* outside) {
  const W low = W(c.low), high = W(c.high);
  if (outside)
    for (int i = 0; i < n; ++i) outside[i] = uint8_t((x[i] < low) | (x[i] > high));
  if (c.wrap) {
    const W mask = high - low;
    for (int i = 0; i < n; ++i) x[i] = ((x[i] - low) & mask) + low;
  } else {
    for (int i = 0; i < n; ++i) {
      const W raised = x[i] < low ? low : x[i];
      x[i] = raised > high ? high : raised;
    }
  }
}

// a and b to the exact result in x.
template <typename W>
void combine(const FixedCall& c, W* x, W* y, int n, const uint32_t* words) {
  switch (c.kind) {
    case FixedKind::add:
      for (int i = 0; i < n; ++i) x[i] = shifted(x[i], c.left) + shifted(y[i], c.right);
      return;
    case FixedKind::subtract:
      for (int i = 0; i < n; ++i) x[i] = shifted(x[i], c.left) - shifted(y[i], c.right);
      return;
    case FixedKind::multiply:
      for (int i = 0; i < n; ++i) x[i] *= y[i];
      return;
    case FixedKind::divide:
      return divide(x, y, n, c, words);
    case FixedKind::keep:
      return;
    case FixedKind::negate:
      for (int i = 0; i < n; ++i) x[i] = -x[i];
      return;
    case FixedKind::absolute:
      for (int i = 0; i < n; ++i) x[i] = x[i] < 0 ? -x[i] : x[i];
  }
}

template <typename W>
void by_blocks(const FixedCall& c, const FixedRun& r) {
  alignas(64) W x[block], y[block];
  for (int64_t begin = 0; begin < r.n; begin += block) {
    const int n = int(r.n - begin < block ? r.n - begin : block);
    const uint32_t* words = r.words ? r.words + begin : nullptr;
    load(c.a, r.a, r.a_step, begin, n, x);
    if (r.b) load(c.b, r.b, r.b_step, begin, n, y);
    combine(c, x, y, n, words);
    if (c.kind != FixedKind::divide) drop(x, n, c, words);
    limit(x, n, c, r.outside ? r.outside + begin : nullptr);
    store(c.out, x, r.out, begin, n);
  }
}

// out = one(a, b) in words of type S; b without a step is one value.
template <typename S, typename One>
ULPGRAD_INLINE void each(const FixedRun& r, One one) {
  const S* __restrict a = static_cast<const S*>(r.a);
  const S* __restrict b = static_cast<const S*>(r.b);
  S* __restrict out = static_cast<S*>(r.out);
  const int64_t n = r.n;
  if (r.b_step) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) out[i] = one(a[i], b[i]);
  } else {
    const S y = b[0];
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) out[i] = one(a[i], y);
  }
}

// One word throughout, 32 bits on the way, to nearest even: all in registers.
template <typename S, FixedKind kind, bool wrap, bool rounds>
void direct(const FixedCall& c, const FixedRun& r) {
  const int32_t low = int32_t(c.low), high = int32_t(c.high), mask = high - low;
  const int by = c.drop;
  const int32_t bias = rounds ? (int32_t(1) << (by - 1)) - 1 : 0;
  each<S>(r, [=](int32_t x, int32_t y) {
    int32_t v = kind == FixedKind::multiply ? x * y : kind == FixedKind::subtract ? x - y : x + y;
    if (rounds) v = (v + bias + ((v >> by) & 1)) >> by;
    if (wrap) return S(((v - low) & mask) + low);
    v = v < low ? low : v;
    return S(v > high ? high : v);
  });
}

// Sums of whole words that saturate: in lanes of the word itself, where a sum that has the sign of neither operand
// overflowed.
template <typename S, bool subtract>
void saturating(const FixedRun& r) {
  using U = UnsignedOf<S>;
  constexpr int sign = 8 * sizeof(S) - 1;
  constexpr U largest = U(U(1) << sign) - 1;
  each<U>(r, [](U x, U y) {
    const U sum = U(subtract ? x - y : x + y);
    const U over = U((x ^ sum) & (subtract ? x ^ y : y ^ sum));
    const U end = U((x >> sign) + largest);
    return over >> sign ? end : sum;
  });
}

template <typename S, FixedKind kind>
void direct_of(const FixedCall& c, const FixedRun& r) {
  if constexpr (kind != FixedKind::multiply) {
    constexpr int64_t half = int64_t(1) << (8 * sizeof(S) - 1);
    if (c.drop == 0 && !c.wrap && c.low == -half && c.high == uint64_t(half - 1))
      return saturating<S, kind == FixedKind::subtract>(r);
  }
  if (c.drop > 0) return c.wrap ? direct<S, kind, true, true>(c, r) : direct<S, kind, false, true>(c, r);
  return c.wrap ? direct<S, kind, true, false>(c, r) : direct<S, kind, false, false>(c, r);
}

template <typename S>
void direct_as(const FixedCall& c, const FixedRun& r) {
  switch (c.kind) {
    case FixedKind::add:
      return direct_of<S, FixedKind::add>(c, r);
    case FixedKind::subtract:
      return direct_of<S, FixedKind::subtract>(c, r);
    default:
      return direct_of<S, FixedKind::multiply>(c, r);
  }
}

bool is_direct(const FixedCall& c, const FixedRun& r) {
  return c.width == 32 && c.a == c.b && c.a == c.out && (c.a == FixedWord::i8 || c.a == FixedWord::i16) && r.b &&
         int(c.kind) <= int(FixedKind::multiply) && c.left == 0 && c.right == 0 && !r.outside &&
         (c.drop == 0 || (c.drop > 0 && c.rounding == FixedRounding::nearest_even)) && r.a_step == 1 &&
         (r.b_step == 1 || r.b_step == 0);
}

void run(const FixedCall& c, const FixedRun& r) {
  if (r.n == 0) return;
  if (is_direct(c, r)) return c.a == FixedWord::i8 ? direct_as<int8_t>(c, r) : direct_as<int16_t>(c, r);
  if (c.width == 32) return by_blocks<int32_t>(c, r);
  if (c.width == 64) return by_blocks<int64_t>(c, r);
  by_blocks<int128>(c, r);
}

template <typename W>
void finish_row(const FixedCall& c, const FixedRow& r, W* sums) {
  for (int64_t begin = 0; begin < r.n; begin += block) {
    const int n = int(r.n - begin < block ? r.n - begin : block);
    drop(sums + begin, n, c, r.words ? r.words + begin : nullptr);
    limit(sums + begin, n, c, r.outside ? r.outside + begin : nullptr);
    store(c.out, sums + begin, r.out, begin, n);
  }
}

template <typename W>
void row_of(const FixedCall& c, const FixedRow& r) {
  W* sums = static_cast<W*>(r.sums);
  alignas(64) W y[block];
  for (int64_t j = 0; j < r.n; ++j) sums[j] = 0;
  for (int64_t p = 0; p < r.k; ++p) {
    W scale;
    load(c.a, r.a, r.a_step, p, 1, &scale);
    for (int64_t begin = 0; begin < r.n; begin += block) {
      const int n = int(r.n - begin < block ? r.n - begin : block);
      load(c.b, r.b, 1, p * r.n + begin, n, y);
      for (int i = 0; i < n; ++i) sums[begin + i] += scale * y[i];
    }
  }
  finish_row(c, r, sums);
}

constexpr int64_t segment = 1 << 13;  // products of 32 and 16 bits whose sum fits 64

// Words of up to 32 bits whose sums need more than 64: products with the upper and the lower half of b are summed
// apart, in 64 bits, and joined now and then.
void row_by_halves(const FixedCall& c, const FixedRow& r) {
  int128* sums = static_cast<int128*>(r.sums);
  alignas(64) int64_t y[block], low[block], high[block];
  for (int64_t begin = 0; begin < r.n; begin += block) {
    const int n = int(r.n - begin < block ? r.n - begin : block);
    for (int i = 0; i < n; ++i) sums[begin + i] = 0;
    for (int64_t first = 0; first < r.k; first += segment) {
      const int64_t last = r.k - first < segment ? r.k : first + segment;
      for (int i = 0; i < n; ++i) low[i] = high[i] = 0;
      for (int64_t p = first; p < last; ++p) {
        int64_t scale;
        load(c.a, r.a, r.a_step, p, 1, &scale);
        load(c.b, r.b, 1, p * r.n + begin, n, y);
        for (int i = 0; i < n; ++i) {
          low[i] += scale * (y[i] & 0xFFFF);
          high[i] += scale * (y[i] >> 16);
        }
      }
      for (int i = 0; i < n; ++i) sums[begin + i] += int128(high[i]) * 65536 + low[i];
    }
  }
  finish_row(c, r, sums);
}

bool is_long(FixedWord word) { return word == FixedWord::i64 || word == FixedWord::u64; }

void row(const FixedCall& c, const FixedRow& r) {
  if (c.width == 32) return row_of<int32_t>(c, r);
  if (c.width == 64) return row_of<int64_t>(c, r);
  if (!is_long(c.a) && !is_long(c.b)) return row_by_halves(c, r);
  row_of<int128>(c, r);
}

}  // namespace

extern const FixedTable fixed_table = {run, row};

}  // namespace ulpgrad::ULPGRAD_ISA
