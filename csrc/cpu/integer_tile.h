// Tiles of sums in registers. No include guard: isa/integer.cpp includes this once for the instruction set it is
// compiled for, and once more, in a namespace of its own, with ULPGRAD_TARGET naming AVX-512 VNNI and ULPGRAD_VNNI set.

// sums + the products of two pairs of 16-bit values.
ULPGRAD_TARGET ULPGRAD_INLINE Ints dot_pairs(Ints sums, Ints a, Ints b) {
#if ULPGRAD_VNNI
  return (Ints)_mm512_dpwssd_epi32((__m512i)sums, (__m512i)a, (__m512i)b);
#elif ULPGRAD_ISA_LEVEL == 2
  return plus<int32_t>(sums, (Ints)_mm512_madd_epi16((__m512i)a, (__m512i)b));
#elif ULPGRAD_ISA_LEVEL == 1
  return plus<int32_t>(sums, (Ints)_mm256_madd_epi16((__m256i)a, (__m256i)b));
#elif defined(__SSE2__)
  return plus<int32_t>(sums, (Ints)_mm_madd_epi16((__m128i)a, (__m128i)b));
#else
  const auto product = [](Ints x, Ints y) { return x * y; };
  return plus<int32_t>(sums,
                       plus<int32_t>(product(shift_right(shift_left(a, 16), 16), shift_right(shift_left(b, 16), 16)),
                                     product(shift_right(a, 16), shift_right(b, 16))));
#endif
}

#if ULPGRAD_VNNI
// sums + the products of four 8-bit values, those of b unsigned.
ULPGRAD_TARGET ULPGRAD_INLINE Ints dot_bytes(Ints sums, Ints a, Ints b) {
  return (Ints)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)b, (__m512i)a);
}
#endif

// Sums over one segment of packed A and B, each of which begins with the values that the sums start from. Rows of
// `sums` are `step` apart; split: the low bytes' sums follow after all rows.
template <Units kind, int rows, int vectors>
ULPGRAD_TARGET static void dot_tile(int64_t units, const int32_t* __restrict a, const int32_t* __restrict b,
                                    int32_t* __restrict sums, int64_t step) {
  constexpr int lanes = kLanes<int32_t>, width = vectors * lanes, halves = kind == Units::split ? 2 : 1;
  Ints total[halves][rows][vectors];
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
      total[0][i][v] = plus<int32_t>(broadcast(a[i]), load(b + v * lanes));
      if constexpr (halves == 2) total[1][i][v] = Ints{};
    }
  }
  a += rows, b += width;
  for (int64_t u = 0; u < units; ++u) {
    Ints column[halves * vectors];
#pragma GCC unroll 4
    for (int v = 0; v < halves * vectors; ++v) column[v] = load(b + v * lanes);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const Ints value = broadcast(a[i]);
#pragma GCC unroll 2
      for (int h = 0; h < halves; ++h) {
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) {
#if ULPGRAD_VNNI
          if constexpr (kind == Units::bytes) {
            total[h][i][v] = dot_bytes(total[h][i][v], value, column[h * vectors + v]);
            continue;
          }
#endif
          total[h][i][v] = dot_pairs(total[h][i][v], value, column[h * vectors + v]);
        }
      }
    }
    a += rows, b += halves * width;
  }
#pragma GCC unroll 2
  for (int h = 0; h < halves; ++h) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) store(sums + (h * rows + i) * step + v * lanes, total[h][i][v]);
    }
  }
}

// The tile for 1 <= wanted <= rows rows and 1 or 2 vectors.
template <Units kind, int rows = kRows<kind>>
static DotTile dot_tile_for(int64_t wanted, int vectors) {
  if constexpr (rows > 1) {
    if (wanted < rows) return dot_tile_for<kind, rows - 1>(wanted, vectors);
  }
  return vectors == 1 ? dot_tile<kind, rows, 1> : dot_tile<kind, rows, 2>;
}

static DotTile dot_tile_for(Units kind, int64_t rows, int vectors) {
#if ULPGRAD_VNNI
  if (kind == Units::bytes) return dot_tile_for<Units::bytes>(rows, vectors);
#endif
  return kind == Units::split ? dot_tile_for<Units::split>(rows, vectors) : dot_tile_for<Units::pairs>(rows, vectors);
}

// kShortRows rows by two vectors of accumulators in registers, for chunks of a few units of pairs: each chunk's sum is
// rounded, limited and added where it arises. The last chunk has `last` units.
template <typename T, Round round, Limit limit>
ULPGRAD_TARGET static void short_tile(const IntegerPlan& plan, int64_t chunks, int64_t units, int64_t last,
                                      const int32_t* __restrict a, const int32_t* __restrict b, T* __restrict to,
                                      T* __restrict over) {
  constexpr int lanes = kLanes<int32_t>, parts = sizeof(T) / sizeof(int32_t), vectors = 2 * parts;
  constexpr bool started = (round == Round::plain || round == Round::even) && parts == 1;  // from the addend
  const Constants<T> k(plan);
  Ints start{};
  if constexpr (started) start = k.addend;
  Vec<T> total[kShortRows][vectors], seen[kShortRows][vectors] = {};
#pragma GCC unroll 4
  for (int i = 0; i < kShortRows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) total[i][v] = load(to + (i * vectors + v) * kLanes<T>);
  }
  for (int64_t c = 0; c < chunks; ++c) {
    Ints sums[kShortRows][2];
#pragma GCC unroll 4
    for (int i = 0; i < kShortRows; ++i) sums[i][0] = sums[i][1] = start;
    int64_t left = c + 1 < chunks ? units : last;
    do {
      const Ints first = load(b), second = load(b + lanes);
#pragma GCC unroll 4
      for (int i = 0; i < kShortRows; ++i) {
        const Ints value = broadcast(a[i]);
        sums[i][0] = dot_pairs(sums[i][0], value, first);
        sums[i][1] = dot_pairs(sums[i][1], value, second);
      }
      a += kShortRows, b += 2 * lanes;
    } while (--left > 0);
#pragma GCC unroll 4
    for (int i = 0; i < kShortRows; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        if constexpr (parts == 1) {
          const Ints more = started ? shifted<T, round>(sums[i][v], k) : rounded<T, round>(sums[i][v], k);
          total[i][v] = added<T, limit>(total[i][v], more, k, seen[i][v]);
        } else {
          Longs half[2];
          widen(sums[i][v], half[0], half[1]);
#pragma GCC unroll 2
          for (int h = 0; h < 2; ++h) {
            const int at = 2 * v + h;
            total[i][at] = added<T, limit>(total[i][at], rounded<T, round>(half[h], k), k, seen[i][at]);
          }
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kShortRows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      store(to + (i * vectors + v) * kLanes<T>, total[i][v]);
      if constexpr (limit == Limit::note) store(over + (i * vectors + v) * kLanes<T>, seen[i][v]);
    }
  }
}

template <typename T, Round round>
static ShortTile<T> short_tile_for(Limit limit) {
  constexpr ShortTile<T> table[] = {short_tile<T, round, Limit::none>, short_tile<T, round, Limit::clamp>,
                                    short_tile<T, round, Limit::clamp_both>, short_tile<T, round, Limit::note>};
  return table[static_cast<int>(limit)];
}

template <typename T>
static ShortTile<T> short_tile_for(const IntegerPlan& plan) {
  switch (plan.round) {
    case Round::plain:
      return short_tile_for<T, Round::plain>(plan.limit);
    case Round::even:
      return short_tile_for<T, Round::even>(plan.limit);
    case Round::by_bit:
      return short_tile_for<T, Round::by_bit>(plan.limit);
    case Round::left:
      break;
  }
  return short_tile_for<T, Round::left>(plan.limit);
}
