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
  const T *inputs, *terms;      // [gates][kWidth]: the inputs' and the state's shares of the gates
  const T *h_before, *c_before;
};

template <typename T>
ULPGRAD_INLINE Vec<T> input(const Units<T>& u, int64_t gate) {
  return load(u.inputs + gate * kWidth<T>);
}

template <typename T>
ULPGRAD_INLINE Vec<T> term(const Units<T>& u, int64_t gate) {
  return load(u.terms + gate * kWidth<T>);
}

// A row's values at a vector of units, for all gates.
template <typename T, int gates>
ULPGRAD_INLINE void gather(const T* from, int64_t h, int64_t count, T* to) {
  for (int64_t gate = 0; gate < gates; ++gate) store(to + gate * kWidth<T>, get(from + gate * h, count));
}

template <typename T>
ULPGRAD_INLINE void keep(const Recurrent<T>& r, const Units<T>& u, int64_t part, Vec<T> values) {
  put(r.saved + (u.row * 4 + part) * u.h + u.unit, values, u.count);
}

template <typename T>
ULPGRAD_INLINE void set(T* states, const Units<T>& u, Vec<T> values) {
  put(states + u.row * u.h + u.unit, values, u.count);
}

// Asks for the lines of a row that are read or written once its sums are there: they lie far apart, where no hardware
// looks for them.
template <typename T>
ULPGRAD_INLINE void fetch(const Recurrent<T>& r, int64_t row, int64_t unit) {
  const int64_t gates = gates_of(r.cell);
  for (int64_t gate = 0; gate < gates; ++gate) __builtin_prefetch(r.x + (row * gates + gate) * r.h + unit);
  if (r.saved) {
    for (int64_t part = 0; part < 4; ++part) __builtin_prefetch(r.saved + (row * 4 + part) * r.h + unit, 1);
  }
  if (r.c) __builtin_prefetch(r.c + row * r.h + unit, 1);
  __builtin_prefetch(r.y + row * r.h + unit, 1);
}

template <typename T>
struct Lstm {
  static constexpr int gates = 4;

  ULPGRAD_INLINE void finish(const Recurrent<T>& r, const Units<T>& u) {
    const Vec<T> in = vm::sigmoid(input(u, 0) + term(u, 0));
    const Vec<T> forget = vm::sigmoid(input(u, 1) + term(u, 1));
    const Vec<T> fresh = vm::tanh(input(u, 2) + term(u, 2));
    const Vec<T> out = vm::sigmoid(input(u, 3) + term(u, 3));
    const Vec<T> c = forget * get(u.c_before, u.count) + in * fresh;
    keep(r, u, 0, in);
    keep(r, u, 1, forget);
    keep(r, u, 2, fresh);
    keep(r, u, 3, out);
    set(r.c, u, c);
    set(r.y, u, out * vm::tanh(c));
  }
};

template <typename T>
struct Gru {
  static constexpr int gates = 3;

  ULPGRAD_INLINE void finish(const Recurrent<T>& r, const Units<T>& u) {
    const Vec<T> own = term(u, 2);
    const Vec<T> reset = vm::sigmoid(input(u, 0) + term(u, 0));
    const Vec<T> update = vm::sigmoid(input(u, 1) + term(u, 1));
    const Vec<T> fresh = vm::tanh(input(u, 2) + reset * own);
    keep(r, u, 0, reset);
    keep(r, u, 1, update);
    keep(r, u, 2, fresh);
    keep(r, u, 3, own);
    set(r.y, u, (T(1) - update) * fresh + update * get(u.h_before, u.count));
  }
};

template <typename T, Cell cell>
struct Plain {
  static constexpr int gates = 1;

  ULPGRAD_INLINE void finish(const Recurrent<T>& r, const Units<T>& u) {
    const Vec<T> sum = input(u, 0) + term(u, 0);
    set(r.y, u, cell == Cell::tanh ? vm::tanh(sum) : (sum < T(0) ? Vec<T>{} : sum));
  }
};

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

template <typename T, typename Formulas>
static void run(const Recurrent<T>& r) {
  constexpr int gates = Formulas::gates;
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
      const auto ahead = [&](int64_t i) { fetch(r, t * r.n + i, unit); };
      // Inputs are read for the whole tile first: a store to `saved` may stand 4096 bytes from the next row's, and a
      // load waits for a store whose address has the same last twelve bits.
      const auto done = [&](int64_t first, int64_t rows, T* terms) {
        alignas(64) T inputs[kMostRows<gates> * gates * width], extra[gates * width];
        for (int64_t i = 0; i < rows; ++i) {
          const int64_t at = (first + i) * gates * r.h + unit;
          gather<T, gates>(r.x + t * r.n * gates * r.h + at, r.h, count, inputs + i * gates * width);
          if (r.given) {
            gather<T, gates>(r.given + at, r.h, count, extra);
            for (int64_t l = 0; l < gates * width; ++l) terms[i * gates * width + l] += extra[l];
          }
        }
        for (int64_t i = 0; i < rows; ++i) {
          const int64_t at = (first + i) * r.h + unit, here = i * gates * width;
          Formulas::finish(r, {t * r.n + first + i, unit, count, r.h, inputs + here, terms + here, h_before + at,
                               c_before ? c_before + at : nullptr});
        }
      };
      multiply_panel<T, gates>(i0, i1, k, h_before, r.h, r.packed + u * size, ahead, done);
    }
  };
  run_steps(r, panels, [](int64_t, int64_t, int64_t) {}, step);
}

template <typename T>
static void recurrent(const Recurrent<T>& r) {
  switch (r.cell) {
    case Cell::lstm:
      return run<T, Lstm<T>>(r);
    case Cell::gru:
      return run<T, Gru<T>>(r);
    case Cell::tanh:
      return run<T, Plain<T, Cell::tanh>>(r);
    case Cell::relu:
      return run<T, Plain<T, Cell::relu>>(r);
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
