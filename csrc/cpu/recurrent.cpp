// Binds recurrent layers: checks, results and memory; the work is isa/recurrent.cpp's.
#include "recurrent.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "bind.h"
#include "scratch.h"

namespace ulpgrad {
namespace {

using Optional = std::optional<py::array>;

Cell cell_named(const std::string& name) {
  const char* names[] = {"lstm", "gru", "tanh", "relu"};
  for (int i = 0; i < 4; ++i)
    if (name == names[i]) return static_cast<Cell>(i);
  throw py::value_error("recurrent: cell='" + name + "': expected lstm, gru, tanh or relu");
}

template <typename T>
const T* shaped(const py::array& a, std::initializer_list<int64_t> shape, const char* name) {
  expect_shape(a, shape, name);
  return contiguous<T>(a, name);
}

template <typename T>
const T* shaped(const Optional& a, std::initializer_list<int64_t> shape, const char* name) {
  return a ? shaped<T>(*a, shape, name) : nullptr;
}

template <typename T>
T* packed_memory(Cell cell, int64_t h) {
  return static_cast<T*>(
      scratch(Slot::caller, static_cast<size_t>(table<RecurrentTable>().packed(cell, h, sizeof(T))) * sizeof(T)));
}

template <typename T>
py::tuple forward(Cell cell, const py::array& x, const Optional& weight, const Optional& given, const Optional& bias,
                  const py::array& h0, const Optional& c0, bool reverse) {
  expect_ndim(x, 3, "x");
  expect_ndim(h0, 2, "h0");
  const bool is_lstm = cell == Cell::lstm, has_gates = is_lstm || cell == Cell::gru;
  const int64_t steps = x.shape(0), n = x.shape(1), h = h0.shape(1), gates = gates_of(cell);
  if (!weight == !given || (given && steps != 1))
    throw py::value_error("recurrent: expected weight, or for one step the product with it");
  if (is_lstm != c0.has_value()) throw py::value_error("recurrent: c0 is for an LSTM, which needs it");
  py::array_t<T> y = empty<T>({steps + is_lstm, n, h}), c = empty<T>({is_lstm ? steps : 0, n, h}),
                 saved = empty<T>({has_gates ? steps : 0, n, 4 * h});
  Recurrent<T> r{cell,
                 reverse,
                 steps,
                 n,
                 h,
                 shaped<T>(x, {steps, n, gates * h}, "x"),
                 shaped<T>(weight, {gates * h, h}, "weight"),
                 shaped<T>(given, {n, gates * h}, "given"),
                 shaped<T>(bias, {gates * h}, "bias"),
                 shaped<T>(h0, {n, h}, "h0"),
                 shaped<T>(c0, {n, h}, "c0"),
                 y.mutable_data(),
                 is_lstm ? c.mutable_data() : nullptr,
                 has_gates ? saved.mutable_data() : nullptr,
                 nullptr};
  if (y.size() > 0) {
    const py::gil_scoped_release released;
    r.packed = packed_memory<T>(cell, h);
    if constexpr (sizeof(T) == 4) {
      table<RecurrentTable>().f32(r);
    } else {
      table<RecurrentTable>().f64(r);
    }
    if (is_lstm) std::copy_n(r.c + (reverse ? 0 : steps - 1) * n * h, n * h, r.y + steps * n * h);
  }
  return py::make_tuple(y, c, saved);
}

template <typename T>
py::tuple backward(Cell cell, const py::array& g, const Optional& weight, const py::array& h0, const Optional& c0,
                   const py::array& y, const Optional& c, const Optional& saved, bool reverse) {
  expect_ndim(g, 3, "g");
  const bool is_lstm = cell == Cell::lstm, is_gru = cell == Cell::gru;
  const int64_t steps = g.shape(0) - is_lstm, n = g.shape(1), h = g.shape(2), gates = gates_of(cell);
  if (steps < 1 || (!weight && steps != 1))
    throw py::value_error("recurrent_gradient: only one step does without weight");
  if (is_lstm != (c0 && c) || (is_lstm || is_gru) != saved.has_value())
    throw py::value_error(
        "recurrent_gradient: c0 and c are for an LSTM, saved gates for LSTM and GRU, which need them");
  py::array_t<T> dx = empty<T>({steps, n, gates * h}), own = is_gru ? empty<T>({steps, n, gates * h}) : dx;
  py::array_t<T> dh = empty<T>({n, h}), dc = empty<T>({is_lstm ? n : 0, h});
  RecurrentGradient<T> r{cell,
                         reverse,
                         steps,
                         n,
                         h,
                         shaped<T>(g, {steps + is_lstm, n, h}, "g"),
                         shaped<T>(weight, {gates * h, h}, "weight"),
                         shaped<T>(h0, {n, h}, "h0"),
                         shaped<T>(c0, {n, h}, "c0"),
                         shaped<T>(y, {steps + is_lstm, n, h}, "y"),
                         shaped<T>(c, {steps, n, h}, "c"),
                         shaped<T>(saved, {steps, n, 4 * h}, "saved"),
                         dx.mutable_data(),
                         own.mutable_data(),
                         dh.mutable_data(),
                         is_lstm ? dc.mutable_data() : nullptr,
                         nullptr};
  if (dh.size() > 0) {
    const py::gil_scoped_release released;
    std::fill_n(r.dh, n * h, T(0));
    if (is_lstm) std::copy_n(r.g + steps * n * h, n * h, r.dc);
    if (weight) r.packed = packed_memory<T>(cell, h);
    if constexpr (sizeof(T) == 4) {
      table<RecurrentGradientTable>().f32(r);
    } else {
      table<RecurrentGradientTable>().f64(r);
    }
  }
  return py::make_tuple(dx, own, dh, dc);
}

py::tuple recurrent(const std::string& cell, const py::array& x, const Optional& weight, const Optional& given,
                    const Optional& bias, const py::array& h0, const Optional& c0, bool reverse) {
  const auto run = x.itemsize() == 8 ? forward<double> : forward<float>;
  return run(cell_named(cell), x, weight, given, bias, h0, c0, reverse);
}

py::tuple recurrent_gradient(const std::string& cell, const py::array& g, const Optional& weight, const py::array& h0,
                             const Optional& c0, const py::array& y, const Optional& c, const Optional& saved,
                             bool reverse) {
  const auto run = g.itemsize() == 8 ? backward<double> : backward<float>;
  return run(cell_named(cell), g, weight, h0, c0, y, c, saved, reverse);
}

void bind_recurrent(py::module_& m) {
  m.def(
      "recurrent", &recurrent, py::arg("cell"), py::arg("x"), py::arg("weight"), py::arg("given"), py::arg("bias"),
      py::arg("h0"), py::arg("c0"), py::arg("reverse"),
      "(y, c, saved) of an lstm, gru, tanh or relu layer over x[steps, n, gates h]; an lstm's y ends with the last c.");
  m.def(
      "recurrent_gradient", &recurrent_gradient, py::arg("cell"), py::arg("g"), py::arg("weight"), py::arg("h0"),
      py::arg("c0"), py::arg("y"), py::arg("c"), py::arg("saved"), py::arg("reverse"),
      "(dx, own, dh, dc): the gradients of x, of the recurrent terms, and of the first state; without weight, dh lacks "
      "own @ weight.");
}

const Binder binder(bind_recurrent);

}  // namespace
}  // namespace ulpgrad
