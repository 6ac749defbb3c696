// Blocked matrix multiplication: panels of A and B are packed to fit the caches, tiles of C to fit the registers
// (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008).
#include "gemm.h"

#include <algorithm>

#include "activation.h"
#include "gemm_pack.h"
#include "gemm_tile.h"
#include "gemv.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad::ULPGRAD_ISA {

// Steps of k summed in registers before C is touched. Fixed, so that the order of the sum is.
template <typename T>
constexpr int64_t kBlockK = 2048 / sizeof(T);
constexpr int64_t kBlockM = 12 * kTileRows;  // packed A: in the L2 cache
constexpr int64_t kBlockN = 1024;            // packed B: in the L3 cache

// Multiply-adds that make one more thread worth its start.
constexpr int64_t kGrain = int64_t{1} << 19;
constexpr int64_t kVectorGrain = int64_t{1} << 16;

ULPGRAD_INLINE int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// One vector wide where that holds the rest of the columns, else two.
template <typename T>
ULPGRAD_INLINE int panel_vectors(int64_t cols) {
  return cols > kLanes<T> ? 2 : 1;
}

// A block of C, with A's and B's blocks of this step of k: all B panels times all A panels.
template <typename T>
static void multiply_block(const Gemm<T>& g, int64_t i0, int64_t m, int64_t j0, int64_t n, int64_t p0, int64_t k,
                           const T* packed_a, const T* packed_b, bool add) {
  constexpr int64_t width = 2 * kLanes<T>;
  for (int64_t j = 0; j < n; j += width) {
    const int64_t cols = std::min(width, n - j);
    const int vectors = panel_vectors<T>(cols);
    const T* b = packed_b ? packed_b + j * k : g.b + p0 * g.b_row + j0 + j;
    const int64_t b_step = packed_b ? vectors * kLanes<T> : g.b_row;
    for (int64_t i = 0; i < m; i += kTileRows) {
      T* c = g.c + (i0 + i) * g.c_row + j0 + j;
      tile_for<T>(std::min<int64_t>(kTileRows, m - i), vectors)(k, packed_a + i * k, b, b_step, c, g.c_row, cols, add);
    }
  }
}

template <typename T>
static void pack_b(const Gemm<T>& g, int64_t p0, int64_t k, int64_t j0, int64_t n, T* out) {
  constexpr int64_t width = 2 * kLanes<T>;
  for (int64_t j = 0; j < n; j += width) {
    const int64_t cols = std::min(width, n - j);
    pack_panel<T>(panel_vectors<T>(cols) * kLanes<T>, cols, k, g.b + p0 * g.b_row + (j0 + j) * g.b_col, g.b_col,
                  g.b_row, out + j * k);
  }
}

template <typename T>
static void pack_a(const Gemm<T>& g, int64_t i0, int64_t m, int64_t p0, int64_t k, T* out) {
  for (int64_t i = 0; i < m; i += kTileRows) {
    const int64_t rows = std::min<int64_t>(kTileRows, m - i);
    pack_panel<T>(rows, rows, k, g.a + (i0 + i) * g.a_row + p0 * g.a_col, g.a_row, g.a_col, out + i * k);
  }
}

// Bias and activation on a block of C whose sums are complete.
template <typename T>
static void finish_block(const Gemm<T>& g, int64_t i0, int64_t m, int64_t j0, int64_t n) {
  if (!g.bias && g.activation == Activation::none) return;
  for (int64_t i = i0; i < i0 + m; ++i) finish(g.c + i * g.c_row + j0, n, g.bias ? g.bias + j0 : nullptr, g.activation);
}

// Rows [i0, i1) and columns [j0, j1) of C, on the calling thread.
template <typename T>
static void multiply_range(const Gemm<T>& g, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
  const int64_t block_k = std::min(kBlockK<T>, g.k), block_m = std::min(kBlockM, i1 - i0);
  const int64_t block_n = std::min(kBlockN, round_up(j1 - j0, 2 * kLanes<T>));
  // B's panels are read where they stand if they are whole and few tiles use them.
  const bool direct = g.b_col == 1 && i1 - i0 <= kTileRows && (j1 - j0) % (2 * kLanes<T>) == 0;
  T* a = static_cast<T*>(scratch(Slot::gemm_a, (block_m * block_k + kPackSlack) * sizeof(T)));
  T* b = direct ? nullptr : static_cast<T*>(scratch(Slot::gemm_b, (block_n * block_k + kPackSlack) * sizeof(T)));
  for (int64_t j = j0; j < j1; j += kBlockN) {
    const int64_t n = std::min(kBlockN, j1 - j);
    for (int64_t p = 0; p == 0 || p < g.k; p += kBlockK<T>) {
      const int64_t k = std::min(kBlockK<T>, g.k - p);
      if (b) pack_b(g, p, k, j, n, b);
      for (int64_t i = i0; i < i1; i += kBlockM) {
        const int64_t m = std::min(kBlockM, i1 - i);
        pack_a(g, i, m, p, k, a);
        multiply_block(g, i, m, j, n, p, k, a, b, g.accumulate || p > 0);
        if (p + k == g.k) finish_block(g, i, m, j, n);
      }
    }
  }
}

// How many threads share out the rows; the others share out the columns. The best split has the smallest largest part,
// counting that each part packs its own panels.
template <typename T>
static int row_parts(const Gemm<T>& g, int threads) {
  constexpr int64_t packing = 8;  // multiply-adds of a whole tile that cost as much as packing a value
  int best = 1;
  int64_t least = INT64_MAX;
  for (int rows = 1; rows <= threads; ++rows) {
    if (threads % rows) continue;
    const int64_t m = round_up((g.m + rows - 1) / rows, kTileRows);
    const int64_t n = round_up((g.n + threads / rows - 1) / (threads / rows), 2 * kLanes<T>);
    const int64_t cost = (m + packing) * (n + packing);
    if (cost < least) least = cost, best = rows;
  }
  return best;
}

// One row of C, or one column that is contiguous: the rows of B, or of A, are shared out. False if the matrix runs
// along neither axis.
template <typename T>
static bool multiply_vector(const Gemm<T>& g) {
  const bool row = g.m == 1;
  const int64_t n = row ? g.n : g.m;
  const T *matrix = row ? g.b : g.a, *vector = row ? g.a : g.b;
  const int64_t out_step = row ? g.b_col : g.a_row, k_step = row ? g.b_row : g.a_col;
  const int64_t x_step = row ? g.a_col : g.b_row, y_step = row ? 1 : g.c_row;
  const bool dots = k_step == 1, rows = out_step == 1 && y_step == 1;
  if (!dots && !rows) return false;
  if (dots && x_step != 1) {
    T* x = static_cast<T*>(scratch(Slot::gemm_a, g.k * sizeof(T)));
    for (int64_t p = 0; p < g.k; ++p) x[p] = vector[p * x_step];
    vector = x;
  }
  constexpr int64_t unit = 2 * kLanes<T>;  // parts begin at whole vectors
  const int64_t units = (n + unit - 1) / unit;
  const auto part = [&](int64_t begin, int64_t end) {
    const int64_t first = begin * unit, count = std::min(end * unit, n) - first;
    if (dots) {
      gemv_dots(count, g.k, matrix + first * out_step, out_step, vector, g.c + first * y_step, y_step, g.accumulate);
    } else {
      gemv_rows(count, g.k, matrix + first, k_step, vector, x_step, g.c + first, g.accumulate);
    }
    if (row) {
      finish_block(g, 0, 1, first, count);
    } else {
      finish_block(g, first, count, 0, 1);
    }
  };
  if (g.threaded) {
    parallel_for(units, 1 + kVectorGrain / (unit * std::max<int64_t>(1, g.k)), part);
  } else {
    part(0, units);
  }
  return true;
}

template <typename T>
static void gemm(const Gemm<T>& g) {
  if (g.m <= 0 || g.n <= 0) return;
  if ((g.m == 1 || g.n == 1) && multiply_vector(g)) return;
  const int threads = g.threaded ? threads_for(g.m * g.n * std::max<int64_t>(1, g.k), kGrain) : 1;
  if (threads == 1) return multiply_range(g, 0, g.m, 0, g.n);
  const int64_t rows = row_parts(g, threads), cols = threads / rows;
  const int64_t m = round_up((g.m + rows - 1) / rows, kTileRows);
  const int64_t n = round_up((g.n + cols - 1) / cols, 2 * kLanes<T>);
  parallel_tasks(threads, threads, [&](int64_t part) {
    const int64_t i = part / cols * m, j = part % cols * n;
    multiply_range(g, std::min(i, g.m), std::min(i + m, g.m), std::min(j, g.n), std::min(j + n, g.n));
  });
}

extern const GemmTable gemm_table = {gemm<float>, gemm<double>};

}  // namespace ulpgrad::ULPGRAD_ISA
