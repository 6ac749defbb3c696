// Blocked matrix multiplication: panels of A and B are packed to fit the caches, tiles of C to fit the registers
// (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008).
#include "gemm.h"

#include <unistd.h>

#include <algorithm>
#include <type_traits>

#include "gemm_finish.h"
#include "gemm_pack.h"
#include "gemm_tile.h"
#include "gemv.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int64_t kMostSteps = 1024;  // of a block of k
constexpr int64_t kMostTiles = 24;    // of A in a block: packed, they take half of the L2 cache
constexpr int64_t kBlockN = 1024;     // columns of B in a block: packed, in the L3 cache
constexpr int64_t kSumRows = 4096;    // rows whose sums wait at the same time, where C cannot hold them

// k falls into equal blocks of whole chunks; the sums' bits depend on this, so nothing else may.
template <typename Math>
ULPGRAD_INLINE int64_t block_k(int64_t k) {
  constexpr int64_t chunk = Math::depth * kChunk, most = Math::depth * kMostSteps;
  const int64_t blocks = (k + most - 1) / most;
  return blocks ? ((k + blocks - 1) / blocks + chunk - 1) / chunk * chunk : chunk;
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

// Multiply-adds that make one more thread worth its start.
constexpr int64_t kGrain = int64_t{1} << 19;
constexpr int64_t kVectorGrain = int64_t{1} << 16;

ULPGRAD_INLINE int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// One vector wide where that holds the rest of the columns, else two.
template <typename T>
ULPGRAD_INLINE int panel_vectors(int64_t cols) {
  return cols > kLanes<T> ? 2 : 1;
}

// Panels of A and B for one block of k, and which of them the tile for ordinary values must not take.
template <typename Math>
struct Panels {
  typename Math::Packed *a, *b;  // b: none where B is read where it stands
  int64_t steps;                 // packed values along k
  bool tiny_a[kMostTiles], tiny_b[kBlockN / kLanes<typename Math::Packed> / 2];

  void pack_a(const Gemm<typename Math::Value>& g, int64_t i0, int64_t m, int64_t p0, int64_t k) {
    for (int64_t i = 0; i < m; i += kTileRows) {
      const int64_t rows = std::min<int64_t>(kTileRows, m - i);
      auto* out = a + i * steps;
      pack_panel<Math>(rows, rows, k, g.a + (i0 + i) * g.a_row + p0 * g.a_col, g.a_row, g.a_col, out);
      if constexpr (Math::depth == 2) tiny_a[i / kTileRows] = holds_tiny(out, rows * steps);
    }
  }

  void pack_b(const Gemm<typename Math::Value>& g, int64_t p0, int64_t k, int64_t j0, int64_t n) {
    constexpr int64_t lanes = kLanes<typename Math::Packed>;
    for (int64_t j = 0; j < n; j += 2 * lanes) {
      const int64_t cols = std::min(2 * lanes, n - j), width = panel_vectors<typename Math::Packed>(cols) * lanes;
      auto* out = b + j * steps;
      pack_panel<Math>(width, cols, k, g.b + p0 * g.b_row + (j0 + j) * g.b_col, g.b_col, g.b_row, out);
      if constexpr (Math::depth == 2) tiny_b[j / lanes / 2] = holds_tiny(out, width * steps);
    }
  }

  Tile<Math> tile_of(int64_t i, int64_t j, int64_t rows, int vectors) const {
    if constexpr (Math::depth == 2) {
      if (tiny_a[i / kTileRows] || tiny_b[j / kLanes<uint32_t> / 2])
        return tile_for<typename Math::Careful>(rows, vectors);
    }
    return tile_for<Math>(rows, vectors);
  }
};

// A block of C, with A's and B's blocks of this step of k: all B panels times all A panels. The sums stand in `sums`
// (C itself where it can hold them; none: they are finished at once), and are finished with the last step.
template <typename Math>
static void multiply_block(const Gemm<typename Math::Value>& g, const Panels<Math>& panels, int64_t i0, int64_t m,
                           int64_t j0, int64_t n, int64_t p0, bool last, typename Math::Sum* sums, int64_t sums_row) {
  using Sum = typename Math::Sum;
  constexpr bool in_place = std::is_same_v<Sum, typename Math::Value>;
  constexpr int64_t width = 2 * kLanes<Sum>;
  const bool finishes = last && (!in_place || g.bias || g.activation != Activation::none);
  alignas(64) Sum held[in_place ? 1 : kTileRows * width];
  for (int64_t j = 0; j < n; j += width) {
    const int64_t cols = std::min(width, n - j);
    const int vectors = panel_vectors<Sum>(cols);
    const typename Math::Packed* b = panels.b ? panels.b + j * panels.steps : nullptr;
    int64_t b_step = vectors * kLanes<Sum>;
    if constexpr (std::is_same_v<typename Math::Value, typename Math::Packed>) {
      if (!b) b = g.b + p0 * g.b_row + j0 + j, b_step = g.b_row;
    }
    for (int64_t i = 0; i < m; i += kTileRows) {
      const int64_t rows = std::min<int64_t>(kTileRows, m - i);
      Sum* to = sums ? sums + i * sums_row + j : held;
      const int64_t to_row = sums ? sums_row : width;
      const bool add = p0 > 0 || (in_place && g.accumulate);
      panels.tile_of(i, j, rows, vectors)(panels.steps, panels.a + i * panels.steps, b, b_step, to, to_row, cols, add);
      if (finishes)
        finish(to, to_row, g.c + (i0 + i) * g.c_row + j0 + j, g.c_row, rows, cols, g.bias ? g.bias + j0 + j : nullptr,
               g.activation, !in_place && g.accumulate);
    }
  }
}

// Rows [i0, i1) and columns [j0, j1) of C, on the calling thread.
template <typename Math>
static void multiply_range(const Gemm<typename Math::Value>& g, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
  using Sum = typename Math::Sum;
  using Packed = typename Math::Packed;
  constexpr bool in_place = std::is_same_v<Sum, typename Math::Value>;
  constexpr int64_t width = 2 * kLanes<Sum>;
  const int64_t step_k = block_k<Math>(g.k), most_steps = (std::min(step_k, g.k) + Math::depth - 1) / Math::depth;
  const int64_t panel = std::max<int64_t>(1, most_steps) * kTileRows * static_cast<int64_t>(sizeof(Packed));
  const int64_t step_m = std::clamp<int64_t>(l2_bytes() / 2 / panel, 2, kMostTiles) * kTileRows;
  const int64_t most_m = std::min(step_m, i1 - i0), most_n = std::min(kBlockN, round_up(j1 - j0, width));
  const bool waits = !in_place && g.k > step_k;  // sums that C cannot hold between two steps of k
  const int64_t most_rows = waits ? kSumRows : i1 - i0;
  // B's panels are read where they stand if they are whole and few tiles use them.
  const bool direct =
      std::is_same_v<typename Math::Value, Packed> && g.b_col == 1 && i1 - i0 <= kTileRows && (j1 - j0) % width == 0;
  const int64_t a_size = round_up(most_m * most_steps + kPackSlack, 16);
  const int64_t sums_size = waits ? std::min(kSumRows, i1 - i0) * most_n : 0;
  Panels<Math> panels;
  panels.a = static_cast<Packed*>(scratch(Slot::gemm_a, a_size * sizeof(Packed) + sums_size * sizeof(Sum)));
  panels.b = direct ? nullptr
                    : static_cast<Packed*>(scratch(Slot::gemm_b, (most_n * most_steps + kPackSlack) * sizeof(Packed)));
  Sum* const waiting = waits ? reinterpret_cast<Sum*>(panels.a + a_size) : nullptr;
  for (int64_t top = i0; top < i1; top += most_rows) {
    const int64_t bottom = std::min(i1, top + most_rows);
    for (int64_t j = j0; j < j1; j += kBlockN) {
      const int64_t n = std::min(kBlockN, j1 - j);
      for (int64_t p = 0; p == 0 || p < g.k; p += step_k) {
        const int64_t k = std::min(step_k, g.k - p);
        panels.steps = (k + Math::depth - 1) / Math::depth;
        if (!direct) panels.pack_b(g, p, k, j, n);
        for (int64_t i = top; i < bottom; i += step_m) {
          const int64_t m = std::min(step_m, bottom - i);
          panels.pack_a(g, i, m, p, k);
          Sum* sums = waits ? waiting + (i - top) * most_n : nullptr;
          if constexpr (in_place) sums = g.c + i * g.c_row + j;
          multiply_block(g, panels, i, m, j, n, p, p + k == g.k, sums, in_place ? g.c_row : most_n);
        }
      }
    }
  }
}

// How many threads share out the rows; the others share out the columns. The best split has the smallest largest part,
// counting that each part packs its own panels.
template <typename Math>
static int row_parts(int64_t all_m, int64_t all_n, int threads) {
  constexpr int64_t packing = 8;  // multiply-adds of a whole tile that cost as much as packing a value
  int best = 1;
  int64_t least = INT64_MAX;
  for (int rows = 1; rows <= threads; ++rows) {
    if (threads % rows) continue;
    const int64_t m = round_up((all_m + rows - 1) / rows, kTileRows);
    const int64_t n = round_up((all_n + threads / rows - 1) / (threads / rows), 2 * kLanes<typename Math::Sum>);
    const int64_t cost = (m + packing) * (n + packing);
    if (cost < least) least = cost, best = rows;
  }
  return best;
}

constexpr int64_t kVectorChunk = 1024;  // sums of a matrix-vector product that are held at the same time

// One row of C, or one column: the rows of B, or of A, are shared out. False if the matrix runs along neither axis.
template <typename T>
static bool multiply_vector(const Gemm<T>& g) {
  using Sum = Wide<T>;
  const bool row = g.m == 1;
  const int64_t n = row ? g.n : g.m;
  const T *matrix = row ? g.b : g.a, *vector = row ? g.a : g.b;
  const int64_t out_step = row ? g.b_col : g.a_row, k_step = row ? g.b_row : g.a_col;
  const int64_t x_step = row ? g.a_col : g.b_row;
  const bool dots = k_step == 1;
  if (!dots && out_step != 1) return false;
  Sum* x = static_cast<Sum*>(scratch(Slot::gemm_a, std::max<int64_t>(1, g.k) * sizeof(Sum)));
  for (int64_t p = 0; p < g.k; ++p) x[p] = widen(vector[p * x_step]);
  const auto part = [&](int64_t begin, int64_t end) {
    alignas(64) Sum y[kVectorChunk];
    for (int64_t first = begin; first < end; first += kVectorChunk) {
      const int64_t count = std::min(kVectorChunk, end - first);
      if (dots) {
        gemv_dots(count, g.k, matrix + first * out_step, out_step, x, y);
      } else {
        gemv_rows(count, g.k, matrix + first, k_step, x, y);
      }
      if (row) {
        finish(y, count, g.c + first, count, 1, count, g.bias ? g.bias + first : nullptr, g.activation, g.accumulate);
      } else {
        finish(y, 1, g.c + first * g.c_row, g.c_row, count, 1, g.bias, g.activation, g.accumulate);
      }
    }
  };
  constexpr int64_t unit = 2 * kLanes<Sum>;  // parts begin at whole vectors
  const auto units = [&](int64_t begin, int64_t end) { part(begin * unit, std::min(end * unit, n)); };
  if (g.threaded) {
    parallel_for((n + unit - 1) / unit, 1 + kVectorGrain / (unit * std::max<int64_t>(1, g.k)), units);
  } else {
    part(0, n);
  }
  return true;
}

template <typename Math>
static void gemm(const Gemm<typename Math::Value>& g) {
  if (g.m <= 0 || g.n <= 0) return;
  if ((g.m == 1 || g.n == 1) && multiply_vector(g)) return;
  const int threads = g.threaded ? threads_for(g.m * g.n * std::max<int64_t>(1, g.k), kGrain) : 1;
  if (threads == 1) return multiply_range<Math>(g, 0, g.m, 0, g.n);
  const int64_t rows = row_parts<Math>(g.m, g.n, threads), cols = threads / rows;
  const int64_t m = round_up((g.m + rows - 1) / rows, kTileRows);
  const int64_t n = round_up((g.n + cols - 1) / cols, 2 * kLanes<typename Math::Sum>);
  parallel_tasks(threads, threads, [&](int64_t part) {
    const int64_t i = part / cols * m, j = part % cols * n;
    multiply_range<Math>(g, std::min(i, g.m), std::min(i + m, g.m), std::min(j, g.n), std::min(j + n, g.n));
  });
}

#if ULPGRAD_ISA_LEVEL == 2
constexpr auto by_dots = gemm<Pairs>;
#else
constexpr void (*by_dots)(const Gemm<Bfloat16>&) = nullptr;
#endif

extern const GemmTable gemm_table = {
    gemm<Singles<float>>, gemm<Singles<double>>, gemm<Singles<Float16>>, gemm<Singles<Bfloat16>>, by_dots,
};

}  // namespace ulpgrad::ULPGRAD_ISA
