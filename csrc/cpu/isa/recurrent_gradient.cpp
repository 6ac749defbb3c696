// Backward through time: each step turns the gradient of its state into those of its gates, row by row, and multiplies
// them with the weights for the state before.
#include "recurrent.h"
#include "recurrent_tile.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int kPanelVectors = 2;

template <typename T>
constexpr int64_t kWidth = kPanelVectors * kLanes<T>;

// Each of these gets a row of n units: dh comes in as the gradient from later steps and leaves as what goes to the
// state before without passing the weights.

template <typename T>
static void lstm_row(int64_t n, const T* __restrict g, const T* __restrict saved, const T* __restrict c,
                     const T* __restrict c_before, T* __restrict dx, T* __restrict dh, T* __restrict dc) {
  const T *in = saved, *forget = saved + n, *cell = saved + 2 * n, *out = saved + 3 * n;
  for (int64_t j = 0; j < n; ++j) {
    const T d = dh[j] + g[j], tanh_c = vm::tanh(c[j]);
    const T own = dc[j] + d * out[j] * (T(1) - tanh_c * tanh_c);
    dx[j] = own * cell[j] * in[j] * (T(1) - in[j]);
    dx[n + j] = own * c_before[j] * forget[j] * (T(1) - forget[j]);
    dx[2 * n + j] = own * in[j] * (T(1) - cell[j] * cell[j]);
    dx[3 * n + j] = d * tanh_c * out[j] * (T(1) - out[j]);
    dc[j] = own * forget[j];
    dh[j] = T(0);
  }
}

template <typename T>
static void gru_row(int64_t n, const T* __restrict g, const T* __restrict saved, const T* __restrict h_before,
                    T* __restrict dx, T* __restrict own, T* __restrict dh) {
  const T *reset = saved, *update = saved + n, *fresh = saved + 2 * n, *term = saved + 3 * n;
  for (int64_t j = 0; j < n; ++j) {
    const T d = dh[j] + g[j];
    const T df = d * (T(1) - update[j]) * (T(1) - fresh[j] * fresh[j]);
    const T dz = d * (h_before[j] - fresh[j]) * update[j] * (T(1) - update[j]);
    const T dr = df * term[j] * reset[j] * (T(1) - reset[j]);
    dx[j] = dr, dx[n + j] = dz, dx[2 * n + j] = df;
    own[j] = dr, own[n + j] = dz, own[2 * n + j] = df * reset[j];
    dh[j] = d * update[j];
  }
}

template <typename T, Cell cell>
static void plain_row(int64_t n, const T* __restrict g, const T* __restrict y, T* __restrict dx, T* __restrict dh) {
  for (int64_t j = 0; j < n; ++j) {
    const T d = dh[j] + g[j];
    dx[j] = cell == Cell::tanh ? d * (T(1) - y[j] * y[j]) : (y[j] > T(0) ? d : T(0));
    dh[j] = T(0);
  }
}

template <typename T>
static void gate_rows(const RecurrentGradient<T>& r, int64_t t, const T* h_before, const T* c_before, int64_t i0,
                      int64_t i1) {
  const int64_t h = r.h, gates = gates_of(r.cell);
  for (int64_t i = i0; i < i1; ++i) {
    const int64_t row = t * r.n + i;
    const T *g = r.g + row * h, *saved = r.saved ? r.saved + row * 4 * h : nullptr;
    T *dx = r.dx + row * gates * h, *dh = r.dh + i * h;
    switch (r.cell) {
      case Cell::lstm:
        lstm_row(h, g, saved, r.c + row * h, c_before + i * h, dx, dh, r.dc + i * h);
        break;
      case Cell::gru:
        gru_row(h, g, saved, h_before + i * h, dx, r.own + row * gates * h, dh);
        break;
      case Cell::tanh:
        plain_row<T, Cell::tanh>(h, g, r.y + row * h, dx, dh);
        break;
      case Cell::relu:
        plain_row<T, Cell::relu>(h, g, r.y + row * h, dx, dh);
        break;
    }
  }
}

// A panel: zeros to start from, then two vectors of each row of the weights.
template <typename T>
static void pack_panel(const RecurrentGradient<T>& r, int64_t unit, T* panel) {
  const int64_t count = std::min(kWidth<T>, r.h - unit);
  std::fill(panel, panel + kWidth<T>, T(0));
  for (int64_t p = 0; p < gates_of(r.cell) * r.h; ++p) {
    panel += kWidth<T>;
    std::copy(r.weight + p * r.h + unit, r.weight + p * r.h + unit + count, panel);
    std::fill(panel + count, panel + kWidth<T>, T(0));
  }
}

template <typename T>
static void gradient(const RecurrentGradient<T>& r) {
  constexpr int lanes = kLanes<T>;
  const int64_t k = gates_of(r.cell) * r.h, size = (k + 1) * kWidth<T>;
  const int64_t panels = r.weight ? (r.h + kWidth<T> - 1) / kWidth<T> : 0;
  parallel_for(panels, std::max<int64_t>(1, (int64_t{1} << 16) / size), [&](int64_t u0, int64_t u1) {
    for (int64_t u = u0; u < u1; ++u) pack_panel(r, u * kWidth<T>, r.packed + u * size);
  });
  const auto place = [&](int64_t s) { return r.reverse ? s : r.steps - 1 - s; };  // from the last step run to the first
  const auto gates = [&](int64_t s, int64_t i0, int64_t i1) {
    const int64_t t = place(s), before = (r.reverse ? t + 1 : t - 1) * r.n * r.h;
    const bool first = s == r.steps - 1;
    gate_rows(r, t, first ? r.h0 : r.y + before, first || !r.c ? r.c0 : r.c + before, i0, i1);
  };
  const auto state = [&](int64_t s, int64_t i0, int64_t i1, int64_t u0, int64_t u1) {
    const T* own = r.own + place(s) * r.n * k;
    for (int64_t u = u0; u < u1; ++u) {
      const int64_t unit = u * kWidth<T>;
      const auto add = [&](int64_t first, int64_t rows, const T* sums) {
        for (int64_t i = 0; i < rows; ++i) {
          T* dh = r.dh + (first + i) * r.h + unit;
          for (int64_t l = 0; l < kWidth<T>; l += lanes) {
            const int64_t count = std::clamp<int64_t>(r.h - unit - l, 0, lanes);
            if (count) put(dh + l, get(dh + l, count) + load(sums + i * kWidth<T> + l), count);
          }
        }
      };
      multiply_panel<T, kPanelVectors>(i0, i1, k, own, k, r.packed + u * size, [](int64_t) {}, add);
    }
  };
  run_steps(r, panels, gates, state);
}

extern const RecurrentGradientTable recurrent_gradient_table = {gradient<float>, gradient<double>};

}  // namespace ulpgrad::ULPGRAD_ISA
