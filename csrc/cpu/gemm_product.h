// A product in blocks. A block of one operand is packed once, by all threads, and shared; then threads take blocks of
// the other one by one, pack them for themselves and multiply. Which operand is shared depends on the shape only for
// speed: every sum has the same terms in the same order.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <type_traits>

#include "gemm.h"
#include "gemm_finish.h"
#include "gemm_pack.h"
#include "gemm_tile.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int64_t kMostLane = int64_t{1} << 12;     // bytes of a row or column in a block of k
constexpr int64_t kSharedBytes = int64_t{1} << 23;  // of shared panels of B: in the L3 cache
constexpr int64_t kSumBytes = int64_t{1} << 24;     // of sums that wait between blocks of k, where C cannot hold them
constexpr int64_t kPage = int64_t{1} << 12;         // bytes from one value to another on the same set of that cache
constexpr int64_t kTaskWork = int64_t{1} << 16;     // multiply-adds that are worth a task

ULPGRAD_INLINE int64_t parts_of(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }
ULPGRAD_INLINE int64_t round_up(int64_t n, int64_t unit) { return parts_of(n, unit) * unit; }

// k falls into equal blocks of a whole number of kChunk steps; the sums' bits depend on this, so nothing else may.
template <typename Math>
ULPGRAD_INLINE int64_t block_k(int64_t k) {
  constexpr int64_t chunk = Math::depth * kChunk;
  constexpr int64_t most = Math::depth * kMostLane / static_cast<int64_t>(sizeof(typename Math::Packed));
  const int64_t blocks = parts_of(k, most);
  return blocks ? round_up(parts_of(k, blocks), chunk) : chunk;
}

// Bytes of the L2 cache of a core; 512 KiB where the system does not say.
static int64_t l2_bytes() {
#ifdef _SC_LEVEL2_CACHE_SIZE
  static const int64_t found = sysconf(_SC_LEVEL2_CACHE_SIZE);
  return found > 0 ? found : 1 << 19;
#else
  return 1 << 19;
#endif
}

// Panels of an operand's rows (A) or columns (B) for one block of k; `tiny`: those that the tile for ordinary values
// must not take.
template <typename Math>
struct Panels {
  typename Math::Packed* values;
  bool* tiny;
};

// So many tiles in blocks of at most `fitting`. Several threads are left small ones at last: then they end together,
// though one of them was held up.
class Blocks {
 public:
  Blocks(int64_t tiles, int64_t fitting, int threads)
      : count(tiles),
        tail(threads == 1 ? 0 : std::min(tiles, threads * fitting)),
        small(std::max<int64_t>(1, tail / (4 * threads))),
        large(parts_of(count - tail, fitting)) {}

  int64_t size() const { return large + parts_of(tail, small); }
  int64_t begin(int64_t block) const {
    return block < large ? (count - tail) * block / large : std::min(count, count - tail + (block - large) * small);
  }

 private:
  const int64_t count, tail, small, large;
};

template <typename Math>
class Product {
 public:
  using Value = typename Math::Value;
  using Sum = typename Math::Sum;
  using Packed = typename Math::Packed;

  Product(const Gemm<Value>& product, int most_threads)
      : g(product),
        threads(most_threads),
        step_k(block_k<Math>(g.k)),
        most_steps(std::max<int64_t>(1, parts_of(std::min(step_k, g.k), Math::depth))),
        height(parts_of(g.m, parts_of(g.m, kTileRows))),
        tiles(parts_of(g.m, height)),
        columns(parts_of(g.n, kWidth)),
        in_place(kSumsFit && g.stored == Stored::own),
        a_in_place(reads_a_in_place()),
        b_in_place(reads_b_in_place()) {}

  static int64_t packed_bytes(int64_t n, int64_t k) {
    const int64_t columns = parts_of(n, kWidth);
    return parts_of(k, Math::depth) * kWidth * columns * kSize +
           std::max<int64_t>(1, parts_of(k, block_k<Math>(k))) * columns;
  }

  // All panels of B, block of k after block of k, and behind them which of them are tiny.
  void pack(void* to) const {
    for (int64_t p = 0; p == 0 || p < g.k; p += step_k) {
      const Panels<Math> block = packed_block(to, p);
      pack_shared_b(block, columns, 0, p, std::min(step_k, g.k - p));
    }
  }

  void run() const {
    if constexpr (kReads) {
      if (a_in_place && b_in_place && threads == 1 && !waits()) {
        for (int64_t p = 0; p == 0 || p < g.k; p += step_k)
          multiply({}, 0, g.m, {}, 0, g.n, p, std::min(step_k, g.k - p), nullptr, 0);
        return;
      }
    }
    if (threads > 1 && g.k > step_k && tiles * columns <= 4 * threads && !g.packed) return by_depth();
    shares_a() ? by_columns() : by_rows();
  }

 private:
  static constexpr bool kSumsFit = std::is_same_v<Sum, Value>;
  static constexpr int64_t kWidth = 2 * kLanes<Sum>;  // of a panel of B
  static constexpr int64_t kSize = sizeof(Packed);
  static constexpr int64_t kPackTogether =
      8;  // most panels of B that are packed side by side: memory is read in longer runs
  static constexpr bool kReads = std::is_same_v<Value, Packed> && ULPGRAD_ISA_LEVEL >= 1;  // matrices where they stand

  const Gemm<Value>& g;
  const int threads;
  const int64_t step_k, most_steps;
  const int64_t height;          // rows of a tile: all alike, since one of few rows is slow
  const int64_t tiles, columns;  // panels of A and of B
  const bool in_place;           // sums wait in C
  const bool a_in_place, b_in_place;

  // Packing pays where values are used several times, by several tiles, and where it gathers them into cache lines of
  // their own: not where a core's cache holds the whole operand.
  static int64_t near() { return l2_bytes() / 4; }
  bool reads_a_in_place() const {
    if (!kReads || g.a_row * kSize % kPage == 0) return false;
    return columns == 1 || (columns <= 8 && g.m * g.k * kSize <= near());
  }
  bool reads_b_in_place() const {
    return kReads && !g.packed && g.b_col == 1 && (tiles == 1 || (tiles <= 8 && g.n * g.k * kSize <= near()));
  }

  // A is shared where every core's L2 cache holds it beside what passes: then B passes once, a panel at a time. Of two
  // ways for several threads, the one whose largest share is smaller.
  bool shares_a() const {
    const int64_t bytes = tiles * height * most_steps * kSize, cache = l2_bytes();
    if (threads == 1) return bytes <= cache / 2;
    constexpr int64_t packing = 8;  // multiply-adds of a whole tile that cost as much as packing a value
    const int64_t width = round_up(g.n, kLanes<Sum>);
    const int64_t by_rows = parts_of(tiles, threads) * height * (width + packing) + width * packing / threads;
    const int64_t by_columns =
        parts_of(columns, threads) * kWidth * (tiles * height + packing) + tiles * height * packing / threads;
    return bytes <= cache * 3 / 4 && by_columns <= by_rows;
  }

  bool waits() const { return !in_place && g.k > step_k; }  // sums that C cannot hold between two blocks of k

  // Packed values from one panel of A to the next: threads pack them side by side, and packing may write beyond one.
  int64_t a_size(int64_t steps) const { return round_up(height * steps, 16) + kPackSlack; }
  static int64_t b_size(int64_t steps) { return kWidth * steps; }

  // This thread's memory for `count` panels of `size` values, and `sums` after them.
  static Panels<Math> room(Slot slot, int64_t count, int64_t panel, int64_t sums, Sum** waiting) {
    const int64_t size = round_up(count * panel, 16);
    char* memory = static_cast<char*>(scratch(slot, size * kSize + sums * static_cast<int64_t>(sizeof(Sum)) + count));
    if (waiting) *waiting = sums ? reinterpret_cast<Sum*>(memory + size * kSize) : nullptr;
    return {reinterpret_cast<Packed*>(memory),
            reinterpret_cast<bool*>(memory + size * kSize + sums * static_cast<int64_t>(sizeof(Sum)))};
  }

  Panels<Math> packed_block(void* all, int64_t p) const {
    Packed* values = static_cast<Packed*>(all);
    bool* tiny = reinterpret_cast<bool*>(values + parts_of(g.k, Math::depth) * kWidth * columns);
    return {values + parts_of(p, Math::depth) * kWidth * columns, tiny + p / step_k * columns};
  }

  // The panels of B from column j0 on for the block of k that begins with p: packed before, or those that are packed
  // now.
  Panels<Math> panels_of_b(const Panels<Math>& now, int64_t j0, int64_t p, int64_t k) const {
    if (!g.packed) return now;
    const Panels<Math> block = packed_block(const_cast<void*>(g.packed), p);  // which nobody writes to
    return {block.values + j0 / kWidth * b_size(parts_of(k, Math::depth)), block.tiny + j0 / kWidth};
  }

  // One vector wide where that holds the rest of the columns, else two.
  static int vectors_for(int64_t cols) { return cols > kLanes<Sum> ? 2 : 1; }

  // Panel `at` of those that begin with row i0.
  void pack_a(const Panels<Math>& to, int64_t at, int64_t i0, int64_t p, int64_t k) const {
    if (a_in_place) return;
    const int64_t steps = parts_of(k, Math::depth), i = i0 + at * height, rows = std::min(height, g.m - i);
    Packed* out = to.values + at * a_size(steps);
    pack_panel<Math>(rows, rows, k, g.a + i * g.a_row + p * g.a_col, g.a_row, g.a_col, out);
    if constexpr (Math::depth == 2) to.tiny[at] = holds_tiny(out, rows * steps);
  }

  // Panels [at, at + count) of those that begin with column j0.
  void pack_b(const Panels<Math>& to, int64_t at, int64_t count, int64_t j0, int64_t p, int64_t k) const {
    if (b_in_place) return;
    const int64_t steps = parts_of(k, Math::depth), size = b_size(steps), j = j0 + at * kWidth;
    const int64_t whole = g.b_col == 1 ? std::min(count, (g.n - j) / kWidth) : 0;
    pack_rows<Math>(kWidth, whole * kWidth, k, g.b + p * g.b_row + j, g.b_row, to.values + at * size, size);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t first = j + i * kWidth, cols = std::min(kWidth, g.n - first);
      const int64_t width = vectors_for(cols) * kLanes<Sum>;
      Packed* out = to.values + (at + i) * size;
      if (i >= whole) pack_panel<Math>(width, cols, k, g.b + p * g.b_row + first * g.b_col, g.b_col, g.b_row, out);
      if constexpr (Math::depth == 2) to.tiny[at + i] = holds_tiny(out, width * steps);
    }
  }

  // Panels that all threads read, packed by all.
  void pack_shared_b(const Panels<Math>& to, int64_t count, int64_t j0, int64_t p, int64_t k) const {
    const int64_t together = std::clamp(count / (2 * threads), int64_t{1}, kPackTogether);
    parallel_tasks(parts_of(count, together), threads, [&](int64_t task) {
      const int64_t at = task * together;
      pack_b(to, at, std::min(together, count - at), j0, p, k);
    });
  }

  // The panels of A that begin with row i0 times those of B that begin with column j0. The sums stand in C, or in
  // `waiting` (none: they are finished at once), and are finished with the last block of k.
  void multiply(const Panels<Math>& a, int64_t i0, int64_t m, const Panels<Math>& b, int64_t j0, int64_t n, int64_t p,
                int64_t k, Sum* waiting, int64_t waiting_row) const {
    const int64_t steps = parts_of(k, Math::depth);
    const bool finishes = p + k >= g.k && (!in_place || !g.after.nothing());
    const bool add = p > 0;
    Sum* sums = waiting;
    int64_t sums_row = waiting_row;
    if constexpr (kSumsFit)
      if (in_place) sums = g.c + i0 * g.c_row + j0, sums_row = g.c_row;
    alignas(64) Sum held[kTileRows * kWidth];
    for (int64_t j = 0; j < n; j += kWidth) {
      const int64_t cols = std::min(kWidth, n - j);
      const int vectors = vectors_for(cols);
      TileInput<Packed> in{steps,   nullptr, b.values + j / kWidth * b_size(steps), 1, 0, vectors * kLanes<Sum>,
                           nullptr, 0};
      if constexpr (kReads)
        if (b_in_place) in.b = g.b + p * g.b_row + j0 + j, in.b_step = g.b_row;
      for (int64_t i = 0; i < m; i += height) {
        const int64_t rows = std::min(height, m - i);
        Sum* to = sums ? sums + i * sums_row + j : held;
        const int64_t to_row = sums ? sums_row : kWidth;
        in.a = a.values + i / height * a_size(steps), in.a_step = rows;
        in.ahead = reinterpret_cast<const char*>(in.b);  // which is there
        if (!b_in_place && j + kWidth < n) {             // the next panel of B comes from far: each tile fetches a part
          in.ahead_step = parts_of(kWidth * kSize, parts_of(m, height));
          in.ahead = reinterpret_cast<const char*>(in.b + b_size(steps)) + i / height * in.ahead_step * steps;
        }
        Tile<Math> tile = tile_for<Math>(rows, vectors);
        if constexpr (kReads) {
          if (a_in_place) in.a = g.a + (i0 + i) * g.a_row + p * g.a_col, in.a_row = g.a_row, in.a_step = g.a_col;
          if (a_in_place || b_in_place) tile = tile_for<Math, true>(rows, vectors);
        }
        if constexpr (Math::depth == 2)
          if (a.tiny[i / height] || b.tiny[j / kWidth]) tile = tile_for<typename Math::Careful>(rows, vectors);
        tile(in, to, to_row, cols, add);
        if (finishes) write_out(g, to, to_row, i0 + i, j0 + j, rows, cols);
      }
    }
  }

  // B is shared, as many columns at a time as the L3 cache holds; threads take rows of A that leave room in their L2
  // caches for panels of B and for what passes.
  void by_rows() const {
    const int64_t most_n = std::clamp(kSharedBytes / (most_steps * kSize * kWidth), int64_t{1}, columns) * kWidth;
    const int64_t most_m =
        waits() ? std::max<int64_t>(1, kSumBytes / (most_n * static_cast<int64_t>(sizeof(Sum)) * height)) * height
                : g.m;
    const int64_t fitting = std::max<int64_t>(1, l2_bytes() / 4 / (most_steps * kSize * height));
    const int64_t sums = waits() ? std::min(most_m, g.m) * most_n : 0;
    Sum* waiting;
    const Panels<Math> b = room(Slot::gemm_b, most_n / kWidth, b_size(most_steps), sums, &waiting);
    for (int64_t top = 0; top < g.m; top += most_m) {
      const int64_t here = parts_of(std::min(most_m, g.m - top), height);
      const Blocks blocks(here, fitting, threads);
      for (int64_t j = 0; j < g.n; j += most_n) {
        const int64_t n = std::min(most_n, g.n - j);
        for (int64_t p = 0; p == 0 || p < g.k; p += step_k) {
          const int64_t k = std::min(step_k, g.k - p);
          if (!g.packed) pack_shared_b(b, parts_of(n, kWidth), j, p, k);
          const Panels<Math> from = panels_of_b(b, j, p, k);
          parallel_tasks(blocks.size(), threads, [&](int64_t block) {
            const int64_t first = blocks.begin(block), count = blocks.begin(block + 1) - first;
            const int64_t i = top + first * height, m = std::min(count * height, g.m - i);
            const Panels<Math> a = room(Slot::gemm_a, count, a_size(most_steps), 0, nullptr);
            for (int64_t at = 0; at < count; ++at) pack_a(a, at, i, p, k);
            multiply(a, i, m, from, j, n, p, k, waiting ? waiting + (i - top) * most_n : nullptr, most_n);
          });
        }
      }
    }
  }

  // C is small and k is long: threads take blocks of k, each of which is a product of its own. Their sums are added up
  // as they would be one block after the other.
  void by_depth() const {
    const int64_t blocks = parts_of(g.k, step_k), size = g.m * g.n;
    Sum* const sums = static_cast<Sum*>(scratch(Slot::gemm_sums, blocks * size * sizeof(Sum)));
    parallel_tasks(blocks, threads, [&](int64_t block) {
      const int64_t p = block * step_k;
      Gemm<Value> part = g;
      part.k = std::min(step_k, g.k - p), part.a += p * g.a_col, part.b += p * g.b_row;
      part.c_row = g.n, part.after = {};
      if constexpr (kSumsFit) {
        part.stored = Stored::own, part.c = sums + block * size;
      } else {
        part.stored = Stored::float32, part.other = sums + block * size;
      }
      Product(part, 1).run();
    });
    for (int64_t block = 1; block < blocks; ++block)
      for (int64_t i = 0; i < size; ++i) sums[i] += sums[block * size + i];
    write_out(g, sums, g.n, 0, 0, g.m, g.n);
  }

  // All of A is shared; threads take panels of B.
  void by_columns() const {
    const int64_t row = static_cast<int64_t>(sizeof(Sum)) * g.m * kWidth;
    const int64_t most_n = (waits() ? std::clamp(kSumBytes / row, int64_t{1}, columns) : columns) * kWidth;
    Sum* waiting;
    const Panels<Math> a = room(Slot::gemm_a, tiles, a_size(most_steps), waits() ? g.m * most_n : 0, &waiting);
    for (int64_t j0 = 0; j0 < g.n; j0 += most_n) {
      const int64_t n = std::min(most_n, g.n - j0), count = parts_of(n, kWidth);
      for (int64_t p = 0; p == 0 || p < g.k; p += step_k) {
        const int64_t k = std::min(step_k, g.k - p);
        const int64_t together = std::clamp(kTaskWork / (g.m * kWidth * std::max<int64_t>(1, k)), int64_t{1}, count);
        const auto pack = [&](int64_t begin, int64_t end) {
          for (int64_t at = begin; at < end; ++at) pack_a(a, at, 0, p, k);
        };
        threads == 1 ? pack(0, tiles)
                     : parallel_for(tiles, 1 + kTaskWork / (8 * height * std::max<int64_t>(1, k)), pack);
        parallel_tasks(parts_of(count, together), threads, [&](int64_t task) {
          const Panels<Math> b = room(Slot::gemm_b, 1, b_size(most_steps), 0, nullptr);
          for (int64_t at = task * together; at < std::min(count, (task + 1) * together); ++at) {
            const int64_t j = j0 + at * kWidth, cols = std::min(kWidth, g.n - j);
            if (!g.packed) pack_b(b, 0, 1, j, p, k);
            multiply(a, 0, g.m, panels_of_b(b, j, p, k), j, cols, p, k, waiting ? waiting + at * kWidth : nullptr,
                     most_n);
          }
        });
      }
    }
  }
};

}  // namespace ulpgrad::ULPGRAD_ISA
