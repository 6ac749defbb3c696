// Rows of pixels on their way into and out of planes: layouts are turned by transposing squares in registers, formats
// by the conversions of halves_simd.h.
#include "conv.h"

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // in GCC's own headers, which name undefined registers so
#include "halves_simd.h"
#include "simd.h"
#include "squares_simd.h"

namespace ulpgrad::ULPGRAD_ISA {

// Places are whole numbers, however they have been held.
template <typename V>
ULPGRAD_INLINE void store_narrow_some(int64_t* p, const V& x, int64_t count) {
  constexpr int lanes = sizeof(V) / sizeof(x[0]), step = kLanes<int64_t>;
  typedef int64_t Places __attribute__((vector_size(lanes * sizeof(int64_t))));
  const Places all = __builtin_convertvector(x, Places);
#pragma GCC unroll 2
  for (int i = 0; i < lanes; i += step) {
    Vec<int64_t> some;
    std::memcpy(&some, reinterpret_cast<const int64_t*>(&all) + i, sizeof some);
    if (count - i >= step) {
      store(p + i, some);
    } else if (count > i) {
      store_some(p + i, some, count - i);
    }
  }
}
template <typename V>
ULPGRAD_INLINE void store_narrow(int64_t* p, const V& x) {
  store_narrow_some(p, x, sizeof(V) / sizeof(x[0]));
}

ULPGRAD_INLINE int64_t less(int64_t a, int64_t b) { return a < b ? a : b; }

// A square of `count` columns, whose row i is read by row(i, count), turned and stored `to_row` apart.
template <typename T, typename Row>
ULPGRAD_INLINE void turn(int64_t rows, int64_t count, const Row& row, T* to, int64_t to_row) {
  Vec<T> square[kLanes<T>];
#pragma GCC unroll 16
  for (int i = 0; i < kLanes<T>; ++i) square[i] = i < rows ? row(i) : Vec<T>{};
  transpose<T>(square);
  if (count == kLanes<T>) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<T>; ++i) store(to + i * to_row, square[i]);
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<T>; ++i) {
      if (i < count) store(to + i * to_row, square[i]);
    }
  }
}

// Every second of 2 lanes - 1 values: `first` is the vector of the first ones, `last` that of the last.
template <typename T>
ULPGRAD_INLINE Vec<T> every_second(Vec<T> first, Vec<T> last) {
  constexpr int lanes = kLanes<T>;
  typename Interleave<T>::Index places{};
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) places[i] = i < lanes / 2 ? 2 * i : 2 * i + 1;
  return __builtin_shuffle(first, last, places);
}

// A vector of values that lie `column` apart, 1 or 2; nothing behind them is read.
template <int column, typename From>
ULPGRAD_INLINE Vec<Wide<From>> load_apart(const From* p) {
  if constexpr (column == 1) return load_wide(p);
  return every_second<Wide<From>>(load_wide(p), load_wide(p + kLanes<Wide<From>> - 1));
}

// The first `count` of them, zeros after them.
template <int column, typename From>
ULPGRAD_INLINE Vec<Wide<From>> load_apart(const From* p, int64_t count) {
  constexpr int64_t lanes = kLanes<Wide<From>>;
  if constexpr (column == 1) return load_wide_some(p, count);
  const int64_t reach = 2 * count - 1, more = reach - (lanes - 1);
  const Vec<Wide<From>> first = load_wide_some(p, less(reach, lanes));
  return every_second<Wide<From>>(first, more > 0 ? load_wide_some(p + lanes - 1, more) : Vec<Wide<From>>{});
}

// Squares of a block of channels whose values lie `column` apart.
template <int column, typename From, typename To>
ULPGRAD_INLINE void turn_in(const From* from, int64_t channel, int64_t channels, int64_t count, To* to, int64_t step) {
  constexpr int lanes = kLanes<To>;
  for (int64_t c = 0; c < channels; c += lanes, from += lanes * channel, to += lanes) {
    int64_t q = 0;
    for (; q + lanes <= count; q += lanes) {
      turn(
          channels - c, lanes, [&](int64_t i) { return load_apart<column>(from + i * channel + q * column); },
          to + q * step, step);
    }
    if (const int64_t here = count - q; here > 0) {
      turn(
          channels - c, here, [&](int64_t i) { return load_apart<column>(from + i * channel + q * column, here); },
          to + q * step, step);
    }
  }
}

// A row of a single channel.
template <int column, typename From, typename To>
ULPGRAD_INLINE void copy_in(const From* from, int64_t count, To* to) {
  constexpr int lanes = kLanes<To>;
  int64_t q = 0;
  for (; q + lanes <= count; q += lanes) store(to + q, load_apart<column>(from + q * column));
  if (const int64_t here = count - q; here > 0) store_some(to + q, load_apart<column>(from + q * column, here), here);
}

template <typename From, typename To>
static void move_in(const From* from, int64_t channel, int64_t column, int64_t channels, int64_t count, To* to,
                    int64_t step, int64_t block_channels, int64_t block) {
  constexpr int lanes = kLanes<To>;
  for (int64_t c0 = 0; c0 < channels; c0 += block_channels, from += block_channels * channel, to += block) {
    const int64_t some = less(block_channels, channels - c0);
    if (block_channels % lanes == 0 && channel == 1) {
      for (int64_t q = 0; q < count; ++q) {
        int64_t c = 0;
        for (; c + lanes <= some; c += lanes) store(to + q * step + c, load_wide(from + q * column + c));
        if (c < some) store(to + q * step + c, load_wide_some(from + q * column + c, some - c));
      }
    } else if (block_channels % lanes == 0 && column == 1) {
      turn_in<1>(from, channel, some, count, to, step);
    } else if (block_channels % lanes == 0 && column == 2) {
      turn_in<2>(from, channel, some, count, to, step);
    } else if (step == 1 && column == 1) {
      copy_in<1>(from, count, to);
    } else if (step == 1 && column == 2) {
      copy_in<2>(from, count, to);
    } else {
      for (int64_t q = 0; q < count; ++q) {
        for (int64_t c = 0; c < some; ++c) to[q * step + c] = widen(from[c * channel + q * column]);
      }
    }
  }
}

template <typename From, typename To>
static void move_out(const From* from, int64_t step, int64_t channels, int64_t count, To* to, int64_t channel,
                     int64_t column) {
  constexpr int lanes = kLanes<From>;
  for (int64_t c = 0; c < channels; c += lanes, from += lanes, to += lanes * channel) {
    const int64_t some = less(lanes, channels - c);
    if (channel == 1) {
      for (int64_t q = 0; q < count; ++q) {
        const Vec<From> v = load(from + q * step);
        if (some == lanes) {
          store_narrow(to + q * column, v);
        } else {
          store_narrow_some(to + q * column, v, some);
        }
      }
    } else if (column == 1) {
      for (int64_t q = 0; q < count; q += lanes) {
        const int64_t here = less(lanes, count - q);
        Vec<From> square[lanes];
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) square[i] = i < here ? load(from + (q + i) * step) : Vec<From>{};
        transpose<From>(square);
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) {
          if (i >= some) break;
          if (here == lanes) {
            store_narrow(to + i * channel + q, square[i]);
          } else {
            store_narrow_some(to + i * channel + q, square[i], here);
          }
        }
      }
    } else {
      for (int64_t q = 0; q < count; ++q) {
        To values[lanes];
        store_narrow(values, load(from + q * step));
        for (int64_t i = 0; i < some; ++i) to[i * channel + q * column] = values[i];
      }
    }
  }
}

template <typename T, typename Bits, Bits infinity>
static bool drop_special(T* x, int64_t n) {
  Bits found = 0;
  for (int64_t i = 0; i < n; ++i) {
    Bits bits;
    std::memcpy(&bits, x + i, sizeof(T));
    const bool special = (bits & infinity) == infinity;
    x[i] = special ? T(0) : x[i];
    found |= special;
  }
  return found;
}

// Squares of pairs of channels whose values lie `column` apart.
template <int column>
ULPGRAD_INLINE void turn_pairs_in(const Bfloat16* from, int64_t channel, int64_t channels, int64_t count,
                                  Bfloat16Pair* to, int64_t step) {
  constexpr int lanes = kLanes<float>;
  for (int64_t u = 0; 2 * u < channels; u += lanes) {
    const Bfloat16* const rows = from + 2 * u * channel;
    for (int64_t q = 0; q < count; q += lanes) {
      const int64_t here = less(lanes, count - q);
      const auto both = [&](int64_t i) {
        const Bfloat16* const first = rows + 2 * i * channel + q * column;
        const auto low = (Vec<uint32_t>)load_apart<column>(first, here) >> 16;
        if (2 * (u + i) + 1 >= channels) return (Vec<float>)low;
        return (Vec<float>)(low | (Vec<uint32_t>)load_apart<column>(first + channel, here));
      };
      turn((channels + 1) / 2 - u, here, both, reinterpret_cast<float*>(to + q * step + u), step);
    }
  }
}

static void pairs_in(const Bfloat16* from, int64_t channel, int64_t column, int64_t channels, int64_t count,
                     Bfloat16Pair* to, int64_t step, int64_t block_channels, int64_t block) {
  constexpr int lanes = kLanes<float>;
  for (int64_t c0 = 0; c0 < channels; c0 += 2 * block_channels, from += 2 * block_channels * channel, to += block) {
    const int64_t some = less(2 * block_channels, channels - c0), whole = some / 2;
    if (channel == 1 && some == 2 * kConvBlock) {
      for (int64_t q = 0; q < count; ++q) std::memcpy(to + q * step, from + q * column, 4 * kConvBlock);
    } else if (block_channels % lanes == 0 && column == 1) {
      turn_pairs_in<1>(from, channel, some, count, to, step);
    } else if (block_channels % lanes == 0 && column == 2) {
      turn_pairs_in<2>(from, channel, some, count, to, step);
    } else {
      for (int64_t q = 0; q < count; ++q) {
        const Bfloat16* const at = from + q * column;
        for (int64_t u = 0; u < whole; ++u) {
          to[q * step + u] = {at[2 * u * channel].bits, at[(2 * u + 1) * channel].bits};
        }
        if (some % 2) to[q * step + whole] = {at[2 * whole * channel].bits, 0};
        for (int64_t u = (some + 1) / 2; u < block_channels; ++u) to[q * step + u] = {0, 0};
      }
    }
  }
}

static void weight_pairs(const Bfloat16* from, bool paired, int64_t second, int64_t channel, int64_t column,
                         int64_t channels, int64_t count, Bfloat16Pair* to, int64_t step) {
  constexpr int lanes = kLanes<float>;
  if (column != 1) {
    for (int64_t q = 0; q < count; ++q) {
      for (int64_t i = 0; i < channels; ++i) {
        const Bfloat16* const at = from + i * channel + q * column;
        to[q * step + i] = {at[0].bits, paired ? at[second].bits : uint16_t(0)};
      }
    }
    return;
  }
  for (int64_t i0 = 0; i0 < channels; i0 += lanes, from += lanes * channel, to += lanes) {
    for (int64_t q = 0; q < count; q += lanes) {
      const int64_t here = less(lanes, count - q);
      const auto both = [&](int64_t i) {
        const Bfloat16* const first = from + i * channel + q;
        const auto low = (Vec<uint32_t>)load_wide_some(first, here) >> 16;
        if (!paired) return (Vec<float>)low;
        return (Vec<float>)(low | (Vec<uint32_t>)load_wide_some(first + second, here));
      };
      turn(channels - i0, here, both, reinterpret_cast<float*>(to + q * step), step);
    }
  }
}

ULPGRAD_INLINE void pair_vector(const uint32_t* first, const uint32_t* second, uint32_t* to) {
  const Vec<uint32_t> low = load(first) >> 16, high = load(second) & 0xFFFF0000u;
  store(to, low | high);
}

static void pair_up(const void* from, int64_t apart, int64_t n, void* to) {
  const uint32_t* const x = static_cast<const uint32_t*>(from);
  for (int64_t i = 0; i < n; i += kLanes<float>) pair_vector(x + i, x + i + apart, static_cast<uint32_t*>(to) + i);
}

static void pair_row(const void* from, int64_t step, int64_t count, void* to) {
  const uint32_t* x = static_cast<const uint32_t*>(from);
  uint32_t* y = static_cast<uint32_t*>(to);
  for (; count > 1; count -= 2, x += 2 * step, y += step) {
    for (int64_t i = 0; i < step; i += kLanes<float>) pair_vector(x + i, x + step + i, y + i);
  }
  for (int64_t i = 0; count && i < step; i += kLanes<float>) store(y + i, load(x + i) >> 16);
}

// Whether no code is subnormal, infinite or NaN.
static bool plain_b16(const void* pairs, int64_t n) {
  const uint16_t* const codes = static_cast<const uint16_t*>(pairs);
  uint16_t odd = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t size = codes[i] & 0x7FFF;
    odd |= static_cast<uint16_t>((size > 0 && size < 0x80) || size >= 0x7F80);
  }
  return !odd;
}

extern const ConvMoves conv_moves = {
    move_in<float, float>,
    move_out<float, float>,
    move_in<double, double>,
    move_out<double, double>,
    move_in<Bfloat16, float>,
    move_out<float, Bfloat16>,
    move_in<Float16, float>,
    move_out<float, Float16>,
    move_out<float, int64_t>,
    move_out<double, int64_t>,
    pairs_in,
    weight_pairs,
    pair_up,
    pair_row,
    drop_special<float, uint32_t, 0x7f800000>,
    drop_special<double, uint64_t, 0x7ff0000000000000>,
    plain_b16,
};

}  // namespace ulpgrad::ULPGRAD_ISA
