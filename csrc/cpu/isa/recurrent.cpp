// Forward: a panel holds one vector of units with all their gates, so that the sums of a tile are all that a cell's
// formulas need.
#include "recurrent.h"

#include "recurrent_tile.h"

namespace ulpgrad::ULPGRAD_ISA {

template <typename T>
constexpr int64_t kWidth = kLanes<T>;

template <typename T>
static int64_t panels_of(int64_t h) {
  return (h + kWidth<T> - 1) / kWidth<T>;
}

// One vector of units of one row: what is read, and where results go.
template <typename T>
struct Units {
  int64_t row, unit, count, h;  // row: of all steps' rows
  const T* terms;               // [gates][kWidth]: the state's share of the gates
  const T *h_before, *c_before;
};

// The share of the inputs, and of a product that was given.
template <typename T>
ULPGRAD_INLINE Vec<T> input(const Recurrent<T>& r, const Units<T>& u, int64_t gate) {
  const int64_t gates = gates_of(r.cell);
  return get(r.x + (u.row * gates + gate) * u.h + u.unit, u.count);
}

template <typename T>
ULPGRAD_INLINE Vec<T> term(const Recurrent<T>& r, const Units<T>& u, int64_t gate) {
  const Vec<T> sum = load(u.terms + gate * kWidth<T>);
  if (!r.given) return sum;
  const int64_t row = u.row % r.n;
  return sum + get(r.given + (row * gates_of(r.cell) + gate) * u.h + u.unit, u.count);
}

template <typename T>
ULPGRAD_INLINE void keep(const Recurrent<T>& r, const Units<T>& u, int64_t part, const T* values) {
  put(r.saved + (u.row * 4 + part) * u.h + u.unit, load(values), u.count);
}

// Loops over whole vectors, lanes that are not there included: they compile to straight vector code.
template <typename T>
static void finish_lstm(const Recurrent<T>& r, const Units<T>& u) {
  constexpr int lanes = kLanes<T>;
  alignas(64) T a[4][lanes], c[lanes], y[lanes];
  for (int gate = 0; gate < 4; ++gate) store(a[gate], input(r, u, gate) + term(r, u, gate));
  store(c, get(u.c_before, u.count));
  for (int l = 0; l < lanes; ++l) {
    a[0][l] = vm::sigmoid(a[0][l]);
    a[1][l] = vm::sigmoid(a[1][l]);
    a[2][l] = vm::tanh(a[2][l]);
    a[3][l] = vm::sigmoid(a[3][l]);
    c[l] = a[1][l] * c[l] + a[0][l] * a[2][l];
    y[l] = a[3][l] * vm::tanh(c[l]);
  }
  for (int gate = 0; gate < 4; ++gate) keep(r, u, gate, a[gate]);
  put(r.c + u.row * u.h + u.unit, load(c), u.count);
  put(r.y + u.row * u.h + u.unit, load(y), u.count);
}

template <typename T>
static void finish_gru(const Recurrent<T>& r, const Units<T>& u) {
  constexpr int lanes = kLanes<T>;
  alignas(64) T reset[lanes], update[lanes], fresh[lanes], own[lanes], y[lanes];
  store(reset, input(r, u, 0) + term(r, u, 0));
  store(update, input(r, u, 1) + term(r, u, 1));
  store(fresh, input(r, u, 2));
  store(own, term(r, u, 2));
  store(y, get(u.h_before, u.count));
  for (int l = 0; l < lanes; ++l) {
    reset[l] = vm::sigmoid(reset[l]);
    update[l] = vm::sigmoid(update[l]);
    fresh[l] = vm::tanh(fresh[l] + reset[l] * own[l]);
    y[l] = (T(1) - update[l]) * fresh[l] + update[l] * y[l];
  }
  keep(r, u, 0, reset);
  keep(r, u, 1, update);
  keep(r, u, 2, fresh);
  keep(r, u, 3, own);
  put(r.y + u.row * u.h + u.unit, load(y), u.count);
}

template <typename T>
static void finish_plain(const Recurrent<T>& r, const Units<T>& u) {
  constexpr int lanes = kLanes<T>;
  alignas(64) T y[lanes];
  store(y, input(r, u, 0) + term(r, u, 0));
  if (r.cell == Cell::tanh) {
    for (int l = 0; l < lanes; ++l) y[l] = vm::tanh(y[l]);
  } else {
    for (int l = 0; l < lanes; ++l) y[l] = y[l] < T(0) ? T(0) : y[l];
  }
  put(r.y + u.row * u.h + u.unit, load(y), u.count);
}

// A panel: the bias, then for each unit of the state its weights to all gates of this vector of units; 16 of those at a
// time, so that the lines written stay in the L1 cache.
template <typename T>
static void pack_panel(const Recurrent<T>& r, int64_t unit, T* panel) {
  constexpr int64_t width = kWidth<T>, block = 16;
  const int64_t lanes = gates_of(r.cell) * width, k = r.weight ? r.h : 0;
  const auto exists = [&](int64_t l) { return unit + l % width < r.h; };
  const auto row = [&](int64_t l) { return l / width * r.h + unit + l % width; };
  for (int64_t l = 0; l < lanes; ++l) panel[l] = r.bias && exists(l) ? r.bias[row(l)] : T(0);
  panel += lanes;
  for (int64_t p0 = 0; p0 < k; p0 += block) {
    const int64_t p1 = std::min(k, p0 + block);
    for (int64_t l = 0; l < lanes; ++l) {
      const T* from = r.weight + (exists(l) ? row(l) * r.h : 0);
      for (int64_t p = p0; p < p1; ++p) panel[p * lanes + l] = exists(l) ? from[p] : T(0);
    }
  }
}

template <typename T, int gates>
static void run(const Recurrent<T>& r, void (*finish)(const Recurrent<T>&, const Units<T>&)) {
  constexpr int64_t width = kWidth<T>;
  const int64_t panels = panels_of<T>(r.h), k = r.weight ? r.h : 0, size = (k + 1) * gates * width;
  parallel_for(panels, std::max<int64_t>(1, (int64_t{1} << 16) / size), [&](int64_t u0, int64_t u1) {
    for (int64_t u = u0; u < u1; ++u) pack_panel(r, u * width, r.packed + u * size);
  });
  const auto step = [&](int64_t s, int64_t i0, int64_t i1, int64_t u0, int64_t u1) {
    const int64_t t = r.reverse ? r.steps - 1 - s : s, before = (r.reverse ? t + 1 : t - 1) * r.n * r.h;
    const T *h_before = s ? r.y + before : r.h0, *c_before = s && r.c ? r.c + before : r.c0;
    for (int64_t u = u0; u < u1; ++u) {
      const int64_t unit = u * width, count = std::min(width, r.h - unit);
      multiply_panel<T, gates>(i0, i1, k, h_before, r.h, r.packed + u * size, [&](int64_t i, const T* terms) {
        const int64_t at = i * r.h + unit;
        finish(r, {t * r.n + i, unit, count, r.h, terms, h_before + at, c_before ? c_before + at : nullptr});
      });
    }
  };
  run_steps(r, panels, [](int64_t, int64_t, int64_t) {}, step);
}

template <typename T>
static void recurrent(const Recurrent<T>& r) {
  switch (r.cell) {
    case Cell::lstm:
      return run<T, 4>(r, finish_lstm<T>);
    case Cell::gru:
      return run<T, 3>(r, finish_gru<T>);
    default:
      return run<T, 1>(r, finish_plain<T>);
  }
}

// Enough for the forward panels, and for the gradient's, which are two vectors wide.
static int64_t packed(Cell cell, int64_t h, int64_t value_bytes) {
  const int64_t lanes = kVectorBytes / value_bytes, gates = gates_of(cell);
  const int64_t units = (h + 2 * lanes - 1) / (2 * lanes) * 2 * lanes;
  return (gates * h + gates) * units;
}

extern const RecurrentTable recurrent_table = {packed, recurrent<float>, recurrent<double>};

}  // namespace ulpgrad::ULPGRAD_ISA
