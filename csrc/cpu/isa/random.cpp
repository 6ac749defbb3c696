// Sixteen blocks at a time, whose words are put in the order of the stream: plain loops over them follow, which the
// compiler turns into vector code.
//
// Products and sums are not contracted to fused ones here, so that normal values have the same bits on every
// instruction set and in the Numba rung, which spells the same series.
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

#include "random.h"

#include <cmath>
#include <cstring>
#include <type_traits>

#include "philox.h"
#include "rows_math.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int kTogether = 16;  // blocks

// Their words, in the order of the stream.
static inline void draw(const Stream& s, const uint64_t keys[20], int64_t block, uint32_t* out) {
  alignas(64) uint64_t pairs[2][kTogether];
  Word lane;
#pragma GCC unroll 8
  for (int l = 0; l < kLanes<uint64_t>; ++l) lane[l] = static_cast<uint64_t>(l);
#pragma GCC unroll 8
  for (int from = 0; from < kTogether; from += kLanes<uint64_t>) {
    const Word low = lane + (s.counter_low + static_cast<uint64_t>(block + from));
    const Word carry = (Word)(low < broadcast(s.counter_low));  // all ones, which is -1
    Word w[4];
    philox(keys, low, s.counter_high - carry, w);
    store(pairs[0] + from, (w[0] & 0xFFFFFFFF) | w[1] << 32);
    store(pairs[1] + from, (w[2] & 0xFFFFFFFF) | w[3] << 32);
  }
  for (int l = 0; l < kTogether; ++l)
    for (int i = 0; i < 2; ++i) memcpy(out + 4 * l + 2 * i, &pairs[i][l], sizeof(uint64_t));
}

// Calls make(words, values) for each sixteen blocks, which give `PerBlock` values each, and keeps those below `size`.
template <int PerBlock, typename T, typename Make>
static void fill(const Stream& s, T* out, int64_t size, int64_t begin, int64_t end, const Make& make) {
  uint64_t keys[20];
  philox_keys(s.key, keys);
  alignas(64) uint32_t words[4 * kTogether];
  alignas(64) T last[PerBlock * kTogether];
  for (int64_t block = begin; block < end; block += kTogether) {
    draw(s, keys, block, words);
    const int64_t first = block * PerBlock, whole = (end < block + kTogether ? end : block + kTogether) * PerBlock;
    const int64_t count = (whole < size ? whole : size) - first;
    if (count == PerBlock * kTogether) {
      make(words, out + first, first);
    } else {
      make(words, last, first);
      for (int64_t i = 0; i < count; ++i) out[first + i] = last[i];
    }
  }
}

static void bits(const Stream& s, uint32_t* out, int64_t size, int64_t begin, int64_t end) {
  fill<4>(s, out, size, begin, end,
          [](const uint32_t* words, uint32_t* to, int64_t) { memcpy(to, words, 4 * kTogether * sizeof(uint32_t)); });
}

static void uniform(const Stream& s, float* out, int64_t size, int64_t begin, int64_t end, int shift, float scale) {
  fill<4>(s, out, size, begin, end, [=](const uint32_t* words, float* to, int64_t) {
    for (int i = 0; i < 4 * kTogether; ++i) to[i] = static_cast<float>(static_cast<int32_t>(words[i] >> shift)) * scale;
  });
}

// The upper 27 bits of a, then the upper 26 of b, as a whole number. Signed conversions are the ones AVX2 has.
ULPGRAD_INLINE double integer53(uint32_t a, uint32_t b) {
  return static_cast<int32_t>(a >> 5) * 67108864.0 + static_cast<int32_t>(b >> 6);
}

ULPGRAD_INLINE double integer32(uint32_t a) { return static_cast<int32_t>(a ^ 0x80000000u) + 2147483648.0; }

static void uniform53(const Stream& s, double* out, int64_t size, int64_t begin, int64_t end) {
  fill<2>(s, out, size, begin, end, [](const uint32_t* words, double* to, int64_t) {
    for (int i = 0; i < 2 * kTogether; ++i) to[i] = integer53(words[2 * i], words[2 * i + 1]) * 0x1p-53;
  });
}

ULPGRAD_INLINE int64_t as_bits(double x) {
  int64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

ULPGRAD_INLINE double as_double(int64_t bits) {
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

constexpr double kLn2High = 0.6931471803691238, kLn2Low = 1.9082149292705877e-10;  // the upper one has 32 bits
constexpr double kRounder = 0x1.8p52;  // added and taken off again, rounds to the nearest integer
constexpr int64_t kSqrtHalf = 0x3FE6A09E667F3BCD;
constexpr double kQuarterTurn = 1.5707963267948966;

// ln((1 + s) / (1 - s)) = 2 (s + s^3/3 + s^5/5 + ...), sine and cosine: coefficients from the highest power down.
constexpr double kLog[] = {1.0 / 21, 1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13,
                           1.0 / 11, 1.0 / 9,  1.0 / 7,  1.0 / 5,  1.0 / 3};
constexpr double kSine[] = {-1.0 / 1307674368000, 1.0 / 6227020800, -1.0 / 39916800, 1.0 / 362880,
                            -1.0 / 5040,          1.0 / 120,        -1.0 / 6};
constexpr double kCosine[] = {1.0 / 20922789888000, -1.0 / 87178291200, 1.0 / 479001600, -1.0 / 3628800,
                              1.0 / 40320,          -1.0 / 720,         1.0 / 24,        -1.0 / 2};

template <int N>
ULPGRAD_INLINE double horner(const double (&coefficients)[N], double z) {
  double value = coefficients[0];
#pragma GCC unroll 16
  for (int i = 1; i < N; ++i) value = coefficients[i] + z * value;
  return value;
}

// sqrt(-2 ln(a 2^-width)) times cosine and sine of `turns` quarter turns; a is a whole number of at least 1.
ULPGRAD_INLINE void pair(double a, int width, double turns, double& x, double& y) {
  const int64_t code = as_bits(a);
  // a >= 1, so the difference is positive and its exponent fits the mantissa of a double: no 64-bit conversions.
  const int64_t exponent = static_cast<int64_t>(static_cast<uint64_t>(code - kSqrtHalf) >> 52);
  const double k = (as_double(exponent | 0x4330000000000000) - 0x1p52) - width;
  const double f = as_double(code - static_cast<int64_t>(static_cast<uint64_t>(exponent) << 52)) - 1.0;
  const double s = f / (2.0 + f), z = s * s;
  const double series = horner(kLog, z);
  const double log = k * kLn2High + (2.0 * s + (2.0 * s * (z * series) + k * kLn2Low));
  const double radius = std::sqrt(-2.0 * log);

  const double shifted = turns + kRounder;
  const int64_t quadrant = as_bits(shifted);
  const double r = (turns - (shifted - kRounder)) * kQuarterTurn, q = r * r;
  const double sine = r + r * (q * horner(kSine, q));
  const double cosine = 1.0 + q * horner(kCosine, q);

  // Quadrants 0 to 3 give (c, s), (-s, c), (-c, -s), (s, -c): a swap in odd ones, then sign bits.
  const int64_t swap = -(quadrant & 1), c = as_bits(radius * cosine), t = as_bits(radius * sine);
  const int64_t both = (c ^ t) & swap;
  x = as_double((c ^ both) ^ static_cast<int64_t>(static_cast<uint64_t>((quadrant + 1) & 2) << 62));
  y = as_double((t ^ both) ^ static_cast<int64_t>(static_cast<uint64_t>(quadrant & 2) << 62));
}

static void normal(const Stream& s, float* out, int64_t size, int64_t begin, int64_t end) {
  fill<4>(s, out, size, begin, end, [](const uint32_t* words, float* to, int64_t) {
    alignas(64) double z[2][2 * kTogether];
    for (int i = 0; i < 2 * kTogether; ++i)
      pair(integer32(words[2 * i]) + 1.0, 32, integer32(words[2 * i + 1]) * 0x1p-30, z[0][i], z[1][i]);
    for (int i = 0; i < 4 * kTogether; ++i) to[i] = static_cast<float>(z[i % 2][i / 2]);
  });
}

static void normal53(const Stream& s, double* out, int64_t size, int64_t begin, int64_t end) {
  fill<2>(s, out, size, begin, end, [](const uint32_t* words, double* to, int64_t) {
    alignas(64) double z[2][kTogether];
    for (int l = 0; l < kTogether; ++l) {
      const uint32_t* w = words + 4 * l;
      pair(integer53(w[0], w[1]) + 1.0, 53, integer53(w[2], w[3]) * 0x1p-51, z[0][l], z[1][l]);
    }
    for (int i = 0; i < 2 * kTogether; ++i) to[i] = z[i % 2][i / 2];
  });
}

template <typename S, typename T = Wide<S>>
static void dropout(const Stream& s, const S* x, S* out, int64_t size, int64_t begin, int64_t end, uint64_t limit,
                    T scale) {
  if (limit >> 32) {  // p = 1: no word is kept
    for (int64_t i = 4 * begin; i < (4 * end < size ? 4 * end : size); ++i) out[i] = S{};
    return;
  }
  const uint32_t least = static_cast<uint32_t>(limit);
  fill<4>(s, out, size, begin, end, [=](const uint32_t* words, S* to, int64_t first) {
    const int64_t count = size - first < 4 * kTogether ? size - first : 4 * kTogether;
    typedef std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t> Index;
    each<T>(count, [&](const auto& at) {
      Vec<Index> word;
      if constexpr (sizeof(T) == 4) {
        word = load(words + at.j);
      } else {
        for (int l = 0; l < kLanes<T>; ++l) word[l] = words[at.j + l];
      }
      at.put(to, word >= static_cast<Index>(least) ? at(x + first) * scale : Vec<T>{});
    });
  });
}

extern const RandomTable random_table = {
    bits, uniform, uniform53, normal, normal53, {dropout<float>, dropout<double>, dropout<Bfloat16>, dropout<Float16>}};

}  // namespace ulpgrad::ULPGRAD_ISA
