// Blocked integer matrix multiplication: panels of packed units, tiles of sums in registers, and an accumulator that
// takes each chunk's sum in its own way. C itself holds the accumulators from one block of k to the next.
#include "integer.h"

#include <algorithm>
#include <type_traits>

#include "integer_along.h"
#include "integer_kernels.h"
#include "integer_rows.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int64_t kBlockUnits = 512;                // of a panel: six rows fit the cache nearest to the core
constexpr int64_t kBlockN = 512;                    // columns of packed B
constexpr int64_t kStepBlock = 256, kStepN = 512;   // of k and of columns, where every product is rounded
constexpr int64_t kMostWords = int64_t{1} << 21;    // of packed B, where chunks are long
constexpr int64_t kGrain = int64_t{3} << 17;        // products that make one more thread worth its start
constexpr int64_t kFoldedGrain = int64_t{1} << 17;  // the same where each is rounded, or read from memory

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

ULPGRAD_INLINE DotTile dot_tile_for(const IntegerGemm& g, int64_t rows, int64_t vectors) {
  const bool swapped = g.a_codes == Codes::uint8;
  return g.vnni ? vnni::dot_tile_for(g.plan.units, swapped, rows, vectors)
                : plain::dot_tile_for(g.plan.units, swapped, rows, vectors);
}

// The accumulators of one tile over a block of k.
template <typename T>
static void accumulate_tile(const IntegerGemm& g, const RowBlock& a, int64_t rows, int64_t vectors, int64_t k,
                            const int32_t* b, T* total, T* over) {
  const IntegerPlan& plan = g.plan;
  if constexpr (sizeof(T) == 4) {
    if (plan.by_steps) {
      const float* const rows_a = reinterpret_cast<const float*>(a.part.at);
      return step_tile_for(plan)(plan, k, rows_a, reinterpret_cast<const float*>(b), total, over);
    }
  }
  if (plan.short_chunks) {
    const auto tile = g.vnni ? vnni::short_tile_for<T>(plan) : plain::short_tile_for<T>(plan);
    const int64_t per = per_unit(plan), chunks = ceil_div(k, plan.chunk), last = k - (chunks - 1) * plan.chunk;
    return tile(plan, chunks, ceil_div(plan.chunk, per), ceil_div(last, per),
                reinterpret_cast<const int32_t*>(a.part.at), b, total, over);
  }
  const bool halves = plan.units == Units::split;
  const int64_t width = vectors * kLanes<int32_t>, count = rows * width;
  const auto dot = dot_tile_for(g, rows, vectors);
  const auto fold = fold_for<T>(plan);
  alignas(64) int32_t sums[kRows * kMostWidth];
  [[maybe_unused]] alignas(64) T part[sizeof(T) == 8 ? kRows * kMostWidth : 1];
  each_part(plan, a, k,
            [&](const TileRows& part_a, int64_t units, [[maybe_unused]] bool begins, [[maybe_unused]] bool ends) {
              dot(part_a, b, sums, width, false);
              b += units * (halves ? 2 : 1) * width;
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

// The tile where nothing is done to its sums but to add them to C, which wraps: the whole block is one segment.
static void add_tile(const IntegerGemm& g, const RowBlock& a, int64_t i, int64_t rows, int64_t j, int64_t cols,
                     int64_t vectors, bool first, int64_t k, const int32_t* b) {
  const int64_t width = vectors * kLanes<int32_t>;
  const auto dot = dot_tile_for(g, rows, vectors);
  alignas(64) int32_t sums[kRows * kMostWidth];
  int32_t* __restrict c = static_cast<int32_t*>(g.c) + i * g.c_row + j;
  prefetch(c, rows, g.c_row, cols);
  if (k == 0) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t x = 0; x < cols; ++x) c[r * g.c_row + x] = 0;
    return;
  }
  if (cols == width) return dot(a.part, b, c, g.c_row, !first);
  dot(a.part, b, sums, width, false);
  for (int64_t r = 0; r < rows; ++r) {
    const int32_t* __restrict row = sums + r * width;
    int32_t* __restrict to = c + r * g.c_row;
    for (int64_t x = 0; x < cols; ++x) {
      const uint32_t before = first ? 0 : static_cast<uint32_t>(to[x]);
      to[x] = static_cast<int32_t>(before + static_cast<uint32_t>(row[x]));
    }
  }
}

// Results are stored modulo 2^bits, with their sign. C holds int64 (Out) where bits > 32.
template <typename T, typename Out>
static void run_tile(const IntegerGemm& g, const RowBlock& a, int64_t i, int64_t rows, int64_t j, int64_t cols,
                     int64_t vectors, bool first, int64_t k, const int32_t* b) {
  const int64_t width = vectors * kLanes<int32_t>, computed = g.plan.short_chunks ? tile_rows(g.plan) : rows;
  alignas(64) T total[kRows * kMostWidth], over[kRows * kMostWidth];
  const bool notes = g.plan.limit == Limit::note;
  for (int64_t x = 0; x < computed * width; ++x) total[x] = 0;
  if (notes)
    for (int64_t x = 0; x < computed * width; ++x) over[x] = 0;
  Out* __restrict c = static_cast<Out*>(g.c) + i * g.c_row + j;
  prefetch(c, rows, g.c_row, cols);
  if (!first)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t x = 0; x < cols; ++x) total[r * width + x] = static_cast<T>(c[r * g.c_row + x]);
  accumulate_tile(g, a, rows, vectors, k, b, total, over);
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

// Lines [first, last) of the next tile's rows, up to `bytes`: they are on their way while a panel passes by.
ULPGRAD_INLINE void fetch_rows(const TileRows& rows, int64_t count, int64_t first, int64_t last, int64_t bytes) {
  for (int64_t r = 0; r < count; ++r)
    for (int64_t x = 64 * first; x < std::min(64 * last, bytes); x += 64)
      __builtin_prefetch(rows.at + r * rows.row + x);
}

using RunTile = void (*)(const IntegerGemm& g, const RowBlock& a, int64_t i, int64_t rows, int64_t j, int64_t cols,
                         int64_t vectors, bool first, int64_t k, const int32_t* b);

// Rows [i0, i1) and columns [j0, j1) of C, on the calling thread: a tile's rows stay in the nearest cache, while the
// panels of B, which the next one holds, pass by.
static void multiply_range(const IntegerGemm& g, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
  if (i0 >= i1 || j0 >= j1) return;
  const IntegerPlan& plan = g.plan;
  const bool halves = plan.units == Units::split, long_c = plan.bits > 32;
  const auto finish = [&](int64_t i, int64_t j, int64_t m, int64_t n) {
    if (g.finish) g.finish(g.with, i, j, m, n);
  };
  for (const bool a_passes : {true, false}) {
    if (!may_pass(g, a_passes, a_passes ? j1 - j0 : i1 - i0)) continue;
    multiply_along(g, a_passes, i0, i1, j0, j1);
    return finish(i0, j0, i1 - i0, j1 - j0);
  }
  const RunTile run = adds_only(plan) ? add_tile
                      : plan.wide     ? (long_c ? run_tile<int64_t, int64_t> : run_tile<int64_t, int32_t>)
                                      : (long_c ? run_tile<int32_t, int64_t> : run_tile<int32_t, int32_t>);
  const int64_t target = plan.by_steps ? kStepBlock : kBlockUnits * per_unit(plan), tile = tile_rows(plan),
                width = panel_width(plan);
  const int64_t block_m = plan.short_chunks || stands_in_units(g) ? tile : kBlockRows;
  const int64_t unit = plan.chunk ? std::min(plan.chunk, std::max<int64_t>(1, g.k)) : 1;
  const int64_t block_k = std::min(std::max<int64_t>(1, g.k), std::max(unit, target / unit * unit));
  const int64_t a_words = stands_in_units(g) ? 0 : lane_words(plan, block_k, false);
  const int64_t b_words = lane_words(plan, block_k, halves), parts = segments(plan, block_k);
  const int64_t block_n =
      std::min(std::max<int64_t>(1, std::min(plan.by_steps ? kStepN : kBlockN, kMostWords / b_words) / width) * width,
               round_up(j1 - j0, width));
  int32_t* a = static_cast<int32_t*>(
      scratch(Slot::gemm_a, static_cast<size_t>((a_words + 2 * parts) * kBlockRows + kUnitSlack) * sizeof(int32_t)));
  int32_t* b = static_cast<int32_t*>(
      scratch(Slot::gemm_b, static_cast<size_t>(block_n * b_words + kUnitSlack) * sizeof(int32_t)));
  const auto vectors = [&](int64_t cols) { return plan.short_chunks ? 2 : ceil_div(cols, kLanes<int32_t>); };
  for (int64_t j = j0; j < j1; j += block_n) {
    const int64_t n = std::min(block_n, j1 - j);
    for (int64_t p = 0; p == 0 || p < g.k; p += block_k) {
      const int64_t k = std::min(block_k, g.k - p), words = lane_words(plan, k, halves);
      for (int64_t y = 0; y < n; y += width) {
        const int64_t cols = std::min(width, n - y);
        pack_b(g, j + y, cols, vectors(cols) * kLanes<int32_t>, p, k, b + y * words);
      }
      const int64_t lines = ceil_div(ceil_div(k * int64_t{sizeof(int32_t)} / per_unit(plan), 64), ceil_div(n, width));
      for (int64_t i = i0; i < i1; i += block_m) {
        const int64_t m = std::min(block_m, i1 - i);
        const RowBlock block = row_block(g, i, m, plan.short_chunks ? tile : m, p, k, parts, a);
        for (int64_t x = 0; x < m; x += tile) {
          const RowBlock rows = block.from(x), next = block.from(x + tile);
          const int64_t count = std::min(tile, m - x), more = std::min(tile, i1 - i - x - tile);
          for (int64_t y = 0, l = 0; y < n; y += width, l += lines) {
            if (block.size) fetch_rows(next.part, more, l, l + lines, k * block.size);
            const int64_t cols = std::min(width, n - y);
            run(g, rows, i + x, count, j + y, cols, vectors(cols), p == 0, k, b + y * words);
          }
        }
        if (p + k >= g.k) finish(i, j, m, n);
      }
    }
  }
}

// What columns are shared out by: at most half a panel, since whole ones are few.
ULPGRAD_INLINE int64_t column_unit(const IntegerPlan& plan) {
  return std::min<int64_t>(panel_width(plan), 2 * kLanes<int32_t>);
}

// How many threads share out the rows; the others share out the columns: the split with the smallest largest part, each
// of which packs its own panels.
static int row_parts(const IntegerGemm& g, int threads) {
  // As products of a whole tile: packing a code; and a row of C of which each thread writes a part, since processors
  // fetch lines ahead that the other one is writing.
  constexpr int64_t packing = 12, sharing = 1 << 14;
  const int64_t packing_a = stands_in_units(g) ? 0 : packing;
  int best = 1;
  int64_t least = INT64_MAX;
  for (int rows = 1; rows <= threads; ++rows) {
    if (threads % rows) continue;
    const int64_t m = round_up(ceil_div(g.m, rows), tile_rows(g.plan));
    const int64_t n = round_up(ceil_div(g.n, threads / rows), column_unit(g.plan));
    const int64_t shared = rows < threads ? m * sharing / std::max<int64_t>(1, g.k) : 0;
    const int64_t cost = (m + packing) * (n + packing_a) + shared;
    if (cost < least) least = cost, best = rows;
  }
  return best;
}

static void multiply(const IntegerGemm& asked) {
  IntegerGemm g = asked;
  g.plan.by_steps = can_step(g.plan);
  if (g.m <= 0 || g.n <= 0) return;
  const bool passes = may_pass(g, true, g.n) || may_pass(g, false, g.m);
  const int64_t grain = g.plan.chunk || passes ? kFoldedGrain : kGrain;
  const int threads = g.threaded ? threads_for(g.m * g.n * std::max<int64_t>(1, g.k), grain) : 1;
  if (threads == 1) return multiply_range(g, 0, g.m, 0, g.n);
  const int64_t rows = row_parts(g, threads), cols = threads / rows;
  const int64_t m = round_up(ceil_div(g.m, rows), tile_rows(g.plan));
  const int64_t n = round_up(ceil_div(g.n, cols), column_unit(g.plan));
  parallel_tasks(threads, threads, [&](int64_t part) {
    const int64_t i = part / cols * m, j = part % cols * n;
    multiply_range(g, std::min(i, g.m), std::min(i + m, g.m), std::min(j, g.n), std::min(j + n, g.n));
  });
}

extern const IntegerTable integer_table = {multiply, kMostWidth};

}  // namespace ulpgrad::ULPGRAD_ISA
