// Tiles of sums in registers. No include guard: isa/integer_kernels.h includes this once for the instruction set it is
// compiled for, and once more, in a namespace of its own, with ULPGRAD_TARGET naming its extension and ULPGRAD_VNNI
// set.

// sums + the products of two pairs of 16-bit values.
ULPGRAD_TARGET ULPGRAD_INLINE Ints dot_pairs(Ints sums, Ints a, Ints b) {
#if ULPGRAD_VNNI && ULPGRAD_ISA_LEVEL == 2
  return (Ints)_mm512_dpwssd_epi32((__m512i)sums, (__m512i)a, (__m512i)b);
#elif ULPGRAD_VNNI && ULPGRAD_ISA_LEVEL == 1
  return (Ints)_mm256_dpwssd_avx_epi32((__m256i)sums, (__m256i)a, (__m256i)b);
#else
  return plus_products(sums, a, b);
#endif
}

#if ULPGRAD_VNNI
// sums + the products of four 8-bit values. Where the CPU multiplies signed bytes by unsigned ones (kMixedBytes) one
// side is signed and the other is not, a where `swapped`; else both are signed, or neither where `swapped`.
template <bool swapped>
ULPGRAD_TARGET ULPGRAD_INLINE Ints dot_bytes(Ints sums, Ints a, Ints b) {
#if ULPGRAD_ISA_LEVEL == 2
  return (Ints)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)(swapped ? a : b), (__m512i)(swapped ? b : a));
#elif ULPGRAD_ISA_LEVEL == 1
  return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sums, (__m256i)(swapped ? a : b), (__m256i)(swapped ? b : a));
#else
  if constexpr (swapped) return (Ints)vdotq_u32((uint32x4_t)sums, (uint8x16_t)a, (uint8x16_t)b);
  return (Ints)vdotq_s32((int32x4_t)sums, (int8x16_t)a, (int8x16_t)b);
#endif
}
#endif

template <Units kind, bool swapped>
ULPGRAD_TARGET ULPGRAD_INLINE Ints dot(Ints sums, Ints a, Ints b) {
#if ULPGRAD_VNNI
  if constexpr (kind == Units::bytes) return dot_bytes<swapped>(sums, a, b);
#endif
  return dot_pairs(sums, a, b);
}

// One unit of each row times one of each column.
template <Units kind, bool swapped, int halves, int rows, int vectors>
ULPGRAD_TARGET ULPGRAD_INLINE void dot_step(Ints (&total)[halves][rows][vectors], const char* __restrict a, int64_t row,
                                            const int32_t* __restrict b) {
  constexpr int lanes = kLanes<int32_t>;
  Ints column[halves * vectors];
#pragma GCC unroll 4
  for (int v = 0; v < halves * vectors; ++v) column[v] = load(b + v * lanes);
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
    const Ints value = broadcast(unit_at(a + i * row));
#pragma GCC unroll 2
    for (int h = 0; h < halves; ++h) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v)
        total[h][i][v] = dot<kind, swapped>(total[h][i][v], value, column[h * vectors + v]);
    }
  }
}

// The sums of one segment, or with `adds` what stands in `sums` and these. Rows of `sums` are `step` apart; split: the
// low bytes' sums follow after all rows.
template <Units kind, bool swapped, int rows, int vectors>
ULPGRAD_TARGET static void dot_tile(const TileRows& from, const int32_t* __restrict b, int32_t* __restrict sums,
                                    int64_t step, bool adds) {
  constexpr int lanes = kLanes<int32_t>, halves = kind == Units::split ? 2 : 1;
  Ints total[halves][rows][vectors];
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
    const Ints start = broadcast(from.starts[i]);
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      total[0][i][v] = adds ? plus<int32_t>(start, load(sums + i * step + v * lanes)) : start;
      if constexpr (halves == 2) total[1][i][v] = Ints{};
    }
  }
  const char* a = from.at;
  const int64_t row = from.row;
  for (int64_t u = 0; u < from.units; ++u) {
    dot_step<kind, swapped, halves, rows, vectors>(total, a, row, b);
    a += from.unit, b += halves * vectors * lanes;
  }
  if (from.tails) {
    dot_step<kind, swapped, halves, rows, vectors>(total, reinterpret_cast<const char*>(from.tails), sizeof(int32_t),
                                                   b);
  }
#pragma GCC unroll 2
  for (int h = 0; h < halves; ++h) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) store(sums + (h * rows + i) * step + v * lanes, total[h][i][v]);
    }
  }
}

// The tile for 1 <= wanted <= rows rows and 1 <= wide <= vectors vectors.
template <Units kind, bool swapped, int rows = kRows, int vectors = kVectors<kind>>
static DotTile dot_tile_for(int64_t wanted, int64_t wide) {
  if constexpr (rows > 1) {
    if (wanted < rows) return dot_tile_for<kind, swapped, rows - 1, vectors>(wanted, wide);
  }
  if constexpr (vectors > 1) {
    if (wide < vectors) return dot_tile_for<kind, swapped, rows, vectors - 1>(wanted, wide);
  }
  return dot_tile<kind, swapped, rows, vectors>;
}

static DotTile dot_tile_for(Units kind, [[maybe_unused]] bool swapped, int64_t rows, int64_t vectors) {
#if ULPGRAD_VNNI
  if (kind == Units::bytes)
    return swapped ? dot_tile_for<Units::bytes, true>(rows, vectors) : dot_tile_for<Units::bytes, false>(rows, vectors);
#endif
  return kind == Units::split ? dot_tile_for<Units::split, false>(rows, vectors)
                              : dot_tile_for<Units::pairs, false>(rows, vectors);
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
