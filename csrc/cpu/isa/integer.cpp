// Blocked integer matrix multiplication: panels of packed units, tiles of sums in registers, and an accumulator that
// takes each chunk's sum in its own way. C itself holds the accumulators from one block of k to the next.
#include "integer.h"

#include <algorithm>
#include <type_traits>

#include "integer_fold.h"
#include "integer_pack.h"
#include "integer_vector.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int kWidth = 2 * kLanes<int32_t>;  // columns of a tile

// Rows of a tile of dot products: with its columns they fill the registers.
template <Units kind>
constexpr int kRows = kind == Units::split ? (ULPGRAD_ISA_LEVEL == 2 ? 6 : 2) : (ULPGRAD_ISA_LEVEL == 2 ? 14 : 6);
constexpr int kMostRows = kRows<Units::pairs>;
constexpr int kShortRows = 4;

using DotTile = void (*)(int64_t units, const int32_t* a, const int32_t* b, int32_t* sums, int64_t step);
template <typename T>
using ShortTile = void (*)(const IntegerPlan& plan, int64_t chunks, int64_t units, int64_t last, const int32_t* a,
                           const int32_t* b, T* to, T* over);

namespace plain {
#define ULPGRAD_TARGET
#define ULPGRAD_VNNI 0
#include "integer_tile.h"
#undef ULPGRAD_TARGET
#undef ULPGRAD_VNNI
}  // namespace plain

#if ULPGRAD_ISA_LEVEL == 2
namespace vnni {
#define ULPGRAD_TARGET __attribute__((target("avx512vnni")))
#define ULPGRAD_VNNI 1
#include "integer_tile.h"
#undef ULPGRAD_TARGET
#undef ULPGRAD_VNNI
}  // namespace vnni
#else
namespace vnni = plain;
#endif

constexpr int64_t kBlockUnits = 256;                // of a panel: in the caches nearest to the core
constexpr int64_t kBlockN = 1024;                   // columns of packed B
constexpr int64_t kMostWords = int64_t{1} << 21;    // of packed B, where chunks are long
constexpr int64_t kGrain = int64_t{1} << 20;        // products that make one more thread worth its start
constexpr int64_t kFoldedGrain = int64_t{1} << 17;  // the same where each is rounded

ULPGRAD_INLINE int64_t ceil_div(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }
ULPGRAD_INLINE int64_t round_up(int64_t n, int64_t unit) { return ceil_div(n, unit) * unit; }

ULPGRAD_INLINE int per_unit(const IntegerPlan& plan) {
  if (plan.short_chunks && plan.chunk == 1) return 1;
  return plan.units == Units::bytes ? 4 : 2;
}

ULPGRAD_INLINE int64_t tile_rows(const IntegerPlan& plan) {
  if (plan.short_chunks) return kShortRows;
  return plan.units == Units::split ? kRows<Units::split> : kRows<Units::pairs>;
}

// Calls body(from, count, begins, ends) on each segment of a block of k: whole chunks, cut where 32 bits would not hold
// the sum. `begins`, `ends`: whether the segment is the first or the last of its chunk.
template <typename Body>
ULPGRAD_INLINE void each_segment(const IntegerPlan& plan, int64_t k, const Body& body) {
  const int64_t chunk = plan.chunk ? plan.chunk : k;
  for (int64_t c = 0; c < k; c += chunk) {
    const int64_t end = std::min(k, c + chunk), step = std::min(plan.segment, end - c);
    for (int64_t s = c; s < end; s += step) body(s, std::min(step, end - s), s == c, s + step >= end);
  }
}

// 32-bit words that one lane of a block of k takes.
static int64_t lane_words(const IntegerPlan& plan, int64_t k, bool halves) {
  int64_t words = 0;
  const int64_t per = per_unit(plan), times = halves ? 2 : 1;
  if (plan.short_chunks) return k / plan.chunk * ceil_div(plan.chunk, per) + ceil_div(k % plan.chunk, per);
  each_segment(plan, k, [&](int64_t, int64_t count, bool, bool) { words += 1 + times * ceil_div(count, per); });
  return words;
}

// Packs a panel. Each segment begins with the values its sums start from: `factor` times the sum of the lane's codes,
// each first moved by `offset`; that takes back the move of bytes between the signed and the unsigned range.
template <typename T>
static void pack_panel(const IntegerPlan& plan, Panel<T> p, int64_t k, int32_t factor, int32_t offset, int32_t* to) {
  uint32_t* out = reinterpret_cast<uint32_t*>(to);
  const T* first = p.from;
  if (plan.short_chunks) {
    if (plan.chunk == 1) return pack_units<1>(p, k, out);
    for (int64_t c = 0; c < k; c += plan.chunk) {
      const int64_t count = std::min(plan.chunk, k - c);
      p.from = first + c * p.k_stride;
      pack_units<2>(p, count, out);
      out += ceil_div(count, 2) * p.width;
    }
    return;
  }
  each_segment(plan, k, [&](int64_t at, int64_t count, bool, bool) {
    p.from = first + at * p.k_stride;
    if (factor) {
      lane_sums(p, count, factor, offset, reinterpret_cast<int32_t*>(out));
    } else {
      for (int64_t l = 0; l < p.width; ++l) out[l] = 0;
    }
    out += p.width;
    if constexpr (sizeof(T) == 1) {
      if (plan.units == Units::bytes) {
        pack_units<4>(p, count, out);
        out += ceil_div(count, 4) * p.width;
        return;
      }
    }
    pack_units<2>(p, count, out);
    out += ceil_div(count, 2) * p.width * (p.halves ? 2 : 1);
  });
}

// The dot-product instruction takes signed bytes of A and unsigned ones of B: others are moved by 128, and
// (a' + p)(b' - q) = a' b' + p b - q a'.
template <typename T>
static void pack_a(const IntegerGemm& g, int64_t i, int64_t rows, int64_t width, int64_t p, int64_t k, int32_t* out) {
  const bool is_unsigned = g.a_codes == Codes::uint8, bytes = g.plan.units == Units::bytes;
  const T* from = static_cast<const T*>(g.a) + i * g.a_row + p * g.a_col;
  const Panel<T> panel{from, g.a_row, g.a_col, rows, width, bytes && is_unsigned ? 0x80808080u : 0, false};
  pack_panel(g.plan, panel, k, bytes && g.b_codes == Codes::int8 ? -128 : 0, is_unsigned ? -128 : 0, out);
}

template <typename T>
static void pack_b(const IntegerGemm& g, int64_t j, int64_t cols, int64_t width, int64_t p, int64_t k, int32_t* out) {
  const bool is_signed = g.b_codes == Codes::int8, bytes = g.plan.units == Units::bytes;
  const T* from = static_cast<const T*>(g.b) + p * g.b_row + j * g.b_col;
  const Panel<T> panel{
      from, g.b_col, g.b_row, cols, width, bytes && is_signed ? 0x80808080u : 0, g.plan.units == Units::split};
  pack_panel(g.plan, panel, k, bytes && g.a_codes == Codes::uint8 ? 128 : 0, 0, out);
}

static void pack(const IntegerGemm& g, bool is_a, int64_t at, int64_t lanes, int64_t width, int64_t p, int64_t k,
                 int32_t* out) {
  switch (is_a ? g.a_codes : g.b_codes) {
    case Codes::int8:
      return is_a ? pack_a<int8_t>(g, at, lanes, width, p, k, out) : pack_b<int8_t>(g, at, lanes, width, p, k, out);
    case Codes::uint8:
      return is_a ? pack_a<uint8_t>(g, at, lanes, width, p, k, out) : pack_b<uint8_t>(g, at, lanes, width, p, k, out);
    case Codes::int16:
      return is_a ? pack_a<int16_t>(g, at, lanes, width, p, k, out) : pack_b<int16_t>(g, at, lanes, width, p, k, out);
  }
}

// part = or += the sums of a segment, its two halves put together.
static void join(const int32_t* __restrict sums, bool halves, bool begins, int64_t count, int64_t* __restrict part) {
  if (begins)
    for (int64_t x = 0; x < count; ++x) part[x] = 0;
  if (halves) {
    for (int64_t x = 0; x < count; ++x) part[x] += int64_t{sums[x]} * 256 + sums[count + x];
  } else {
    for (int64_t x = 0; x < count; ++x) part[x] += sums[x];
  }
}

ULPGRAD_INLINE DotTile dot_tile_for(const IntegerGemm& g, int64_t rows, int vectors) {
  return g.vnni ? vnni::dot_tile_for(g.plan.units, rows, vectors) : plain::dot_tile_for(g.plan.units, rows, vectors);
}

// The accumulators of one tile over a block of k.
template <typename T>
static void accumulate_tile(const IntegerGemm& g, int64_t rows, int vectors, int64_t k, const int32_t* a,
                            const int32_t* b, T* total, T* over) {
  const IntegerPlan& plan = g.plan;
  const int64_t per = per_unit(plan);
  if (plan.short_chunks) {
    const auto tile = g.vnni ? vnni::short_tile_for<T>(plan) : plain::short_tile_for<T>(plan);
    const int64_t chunks = ceil_div(k, plan.chunk), last = k - (chunks - 1) * plan.chunk;
    return tile(plan, chunks, ceil_div(plan.chunk, per), ceil_div(last, per), a, b, total, over);
  }
  const bool halves = plan.units == Units::split;
  const int64_t count = rows * vectors * kLanes<int32_t>;
  const auto dot = dot_tile_for(g, rows, vectors);
  const auto fold = fold_for<T>(plan);
  alignas(64) int32_t sums[kMostRows * kWidth];
  [[maybe_unused]] alignas(64) T part[sizeof(T) == 8 ? kMostRows * kWidth : 1];
  each_segment(plan, k, [&](int64_t, int64_t steps, [[maybe_unused]] bool begins, [[maybe_unused]] bool ends) {
    const int64_t units = ceil_div(steps, per);
    dot(units, a, b, sums, count / rows);
    a += (1 + units) * rows, b += (1 + units * (halves ? 2 : 1)) * vectors * kLanes<int32_t>;
    const TileSums from{sums, count, halves};
    if constexpr (sizeof(T) == 4) {
      fold(plan, from, nullptr, total, over);
    } else if (begins && ends) {
      fold(plan, from, nullptr, total, over);
    } else {
      join(sums, halves, begins, count, part);
      if (ends) fold(plan, from, part, total, over);
    }
  });
}

// Lowers *first to `value`.
ULPGRAD_INLINE void lower(int64_t* first, int64_t value) {
  int64_t seen = __atomic_load_n(first, __ATOMIC_RELAXED);
  while (value < seen && !__atomic_compare_exchange_n(first, &seen, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

// C's lines are on their way while the tile is computed.
template <typename Out>
ULPGRAD_INLINE void prefetch(const Out* c, int64_t rows, int64_t c_row, int64_t cols) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t x = 0; x < cols; x += 64 / sizeof(Out)) __builtin_prefetch(c + r * c_row + x, 1);
}

// The tile where nothing is done to its sums but to add them to C, which wraps.
static void add_tile(const IntegerGemm& g, int64_t i, int64_t rows, int64_t, int64_t j, int64_t cols, int vectors,
                     bool first, int64_t k, const int32_t* a, const int32_t* b) {
  const int64_t width = vectors * kLanes<int32_t>, per = per_unit(g.plan);
  const auto dot = dot_tile_for(g, rows, vectors);
  alignas(64) int32_t sums[kMostRows * kWidth];
  int32_t* __restrict c = static_cast<int32_t*>(g.c) + i * g.c_row + j;
  prefetch(c, rows, g.c_row, cols);
  each_segment(g.plan, k, [&](int64_t, int64_t steps, bool, bool) {
    const int64_t units = ceil_div(steps, per);
    const bool direct = first && cols == width;
    dot(units, a, b, direct ? c : sums, direct ? g.c_row : width);
    a += (1 + units) * rows, b += (1 + units) * width;
    for (int64_t r = 0; r < rows && !direct; ++r) {
      const int32_t* __restrict row = sums + r * width;
      int32_t* __restrict to = c + r * g.c_row;
      for (int64_t x = 0; x < cols; ++x) {
        const uint32_t before = first ? 0 : static_cast<uint32_t>(to[x]);
        to[x] = static_cast<int32_t>(before + static_cast<uint32_t>(row[x]));
      }
    }
    first = false;
  });
  for (int64_t r = 0; first && r < rows; ++r)
    for (int64_t x = 0; x < cols; ++x) c[r * g.c_row + x] = 0;
}

// Results are stored modulo 2^bits, with their sign. C holds int64 (Out) where bits > 32.
template <typename T, typename Out>
static void run_tile(const IntegerGemm& g, int64_t i, int64_t rows, int64_t packed_rows, int64_t j, int64_t cols,
                     int vectors, bool first, int64_t k, const int32_t* a, const int32_t* b) {
  const int64_t width = vectors * kLanes<int32_t>;
  alignas(64) T total[kMostRows * kWidth], over[kMostRows * kWidth];
  const bool notes = g.plan.limit == Limit::note;
  for (int64_t x = 0; x < packed_rows * width; ++x) total[x] = 0;
  if (notes)
    for (int64_t x = 0; x < packed_rows * width; ++x) over[x] = 0;
  Out* __restrict c = static_cast<Out*>(g.c) + i * g.c_row + j;
  prefetch(c, rows, g.c_row, cols);
  if (!first)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t x = 0; x < cols; ++x) total[r * width + x] = static_cast<T>(c[r * g.c_row + x]);
  accumulate_tile(g, packed_rows, vectors, k, a, b, total, over);
  const int spare = std::max(0, 8 * static_cast<int>(sizeof(Out)) - g.plan.bits);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t x = 0; x < cols; ++x) {
      const auto value = static_cast<std::make_unsigned_t<Out>>(static_cast<Out>(total[r * width + x]));
      c[r * g.c_row + x] = static_cast<Out>(value << spare) >> spare;
    }
  }
  for (int64_t r = 0; notes && r < rows; ++r) {
    for (int64_t x = 0; x < cols; ++x)
      if (over[r * width + x]) return lower(g.overflowed, g.c_first + (i + r) * g.c_row + j + x);
  }
}

using RunTile = void (*)(const IntegerGemm& g, int64_t i, int64_t rows, int64_t packed_rows, int64_t j, int64_t cols,
                         int vectors, bool first, int64_t k, const int32_t* a, const int32_t* b);

// Rows [i0, i1) and columns [j0, j1) of C, on the calling thread.
static void multiply_range(const IntegerGemm& g, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
  const IntegerPlan& plan = g.plan;
  const bool halves = plan.units == Units::split, long_c = plan.bits > 32;
  const bool adds = !plan.chunk && !plan.wide && plan.shift == 0 && plan.bits == 32;
  const RunTile run = adds        ? add_tile
                      : plan.wide ? (long_c ? run_tile<int64_t, int64_t> : run_tile<int64_t, int32_t>)
                                  : (long_c ? run_tile<int32_t, int64_t> : run_tile<int32_t, int32_t>);
  const int64_t target = kBlockUnits * per_unit(plan), tile = tile_rows(plan);
  const int64_t unit = plan.chunk ? std::min(plan.chunk, std::max<int64_t>(1, g.k)) : 1;
  const int64_t block_k = std::min(std::max<int64_t>(1, g.k), std::max(unit, target / unit * unit));
  const int64_t a_words = lane_words(plan, block_k, false), b_words = lane_words(plan, block_k, halves);
  const int64_t block_m =
      std::min(std::max<int64_t>(1, std::min<int64_t>(12, (kMostWords >> 3) / (a_words * tile))) * tile,
               round_up(i1 - i0, tile));
  const int64_t block_n = std::min(std::max<int64_t>(1, std::min(kBlockN, kMostWords / b_words) / kWidth) * kWidth,
                                   round_up(j1 - j0, kWidth));
  int32_t* a = static_cast<int32_t*>(scratch(Slot::gemm_a, (block_m * a_words + kUnitSlack) * sizeof(int32_t)));
  int32_t* b = static_cast<int32_t*>(scratch(Slot::gemm_b, (block_n * b_words + kUnitSlack) * sizeof(int32_t)));
  for (int64_t j = j0; j < j1; j += block_n) {
    const int64_t n = std::min(block_n, j1 - j);
    for (int64_t p = 0; p == 0 || p < g.k; p += block_k) {
      const int64_t k = std::min(block_k, g.k - p);
      const int64_t wa = lane_words(plan, k, false), wb = lane_words(plan, k, halves);
      const auto vectors = [&](int64_t cols) { return plan.short_chunks || cols > kLanes<int32_t> ? 2 : 1; };
      for (int64_t y = 0; y < n; y += kWidth) {
        const int64_t cols = std::min<int64_t>(kWidth, n - y);
        pack(g, false, j + y, cols, vectors(cols) * kLanes<int32_t>, p, k, b + y * wb);
      }
      for (int64_t i = i0; i < i1; i += block_m) {
        const int64_t m = std::min(block_m, i1 - i);
        const auto packed = [&](int64_t rows) { return plan.short_chunks ? tile : rows; };
        for (int64_t x = 0; x < m; x += tile) {
          const int64_t rows = std::min(tile, m - x);
          pack(g, true, i + x, rows, packed(rows), p, k, a + x * wa);
        }
        for (int64_t y = 0; y < n; y += kWidth) {
          const int64_t cols = std::min<int64_t>(kWidth, n - y);
          for (int64_t x = 0; x < m; x += tile) {
            const int64_t rows = std::min(tile, m - x);
            run(g, i + x, rows, packed(rows), j + y, cols, vectors(cols), p == 0, k, a + x * wa, b + y * wb);
          }
        }
      }
    }
  }
}

// How many threads share out the rows; the others share out the columns: the split with the smallest largest part, each
// of which packs its own panels.
static int row_parts(const IntegerGemm& g, int threads) {
  constexpr int64_t packing = 24;  // products of a whole tile that cost as much as packing a code
  int best = 1;
  int64_t least = INT64_MAX;
  for (int rows = 1; rows <= threads; ++rows) {
    if (threads % rows) continue;
    const int64_t m = round_up(ceil_div(g.m, rows), tile_rows(g.plan));
    const int64_t n = round_up(ceil_div(g.n, threads / rows), kWidth);
    const int64_t cost = (m + packing) * (n + packing);
    if (cost < least) least = cost, best = rows;
  }
  return best;
}

static void multiply(const IntegerGemm& g) {
  if (g.m <= 0 || g.n <= 0) return;
  const int64_t grain = g.plan.chunk ? kFoldedGrain : kGrain;
  const int threads = g.threaded ? threads_for(g.m * g.n * std::max<int64_t>(1, g.k), grain) : 1;
  if (threads == 1) return multiply_range(g, 0, g.m, 0, g.n);
  const int64_t rows = row_parts(g, threads), cols = threads / rows;
  const int64_t m = round_up(ceil_div(g.m, rows), tile_rows(g.plan)), n = round_up(ceil_div(g.n, cols), kWidth);
  parallel_tasks(threads, threads, [&](int64_t part) {
    const int64_t i = part / cols * m, j = part % cols * n;
    multiply_range(g, std::min(i, g.m), std::min(i + m, g.m), std::min(j, g.n), std::min(j + n, g.n));
  });
}

extern const IntegerTable integer_table = {multiply, kWidth};

}  // namespace ulpgrad::ULPGRAD_ISA
