// Row kernels: checks, then rows over threads. A row belongs to one thread, so results do not depend on their number.
#include "rows.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "bind.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kGrain = 1 << 14;  // values, about 10 us: less does not pay for a thread

template <typename Body>
void over_rows(int64_t rows, int64_t n, const Body& body) {
  const py::gil_scoped_release free;
  parallel_for(rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, n)), body);
}

bool is_double(const py::array& a) { return py::isinstance<py::array_t<double>>(a); }

template <typename T>
const T* values_of(const py::array& a, int64_t size, const char* name) {
  expect_shape(a, {size}, name);
  return contiguous<T>(a, name);
}

// Calls body(offset, width) on tiles of columns of an array [outer, n, inner].
template <typename Body>
void over_columns(int64_t outer, int64_t n, int64_t inner, const Body& body) {
  const int64_t tiles = (inner + kColumns - 1) / kColumns;
  const py::gil_scoped_release free;
  parallel_for(outer * tiles, std::max<int64_t>(1, kGrain / (kColumns * std::max<int64_t>(1, n))),
               [&](int64_t begin, int64_t end) {
                 for (int64_t t = begin; t < end; ++t) {
                   const int64_t column = t % tiles * kColumns;
                   body(t / tiles * n * inner + column, std::min(kColumns, inner - column));
                 }
               });
}

// A function of x[outer, n, inner] along n: by rows where inner is 1, else by columns.
template <typename T>
py::array unary(void (*rows)(const T*, T*, int64_t, int64_t), void (*columns)(const T*, T*, int64_t, int64_t, int64_t),
                const py::array& x) {
  expect_ndim(x, 3, "x");
  const int64_t outer = x.shape(0), n = x.shape(1), inner = x.shape(2);
  const T* from = contiguous<T>(x, "x");
  py::array_t<T> out = empty<T>({outer, n, inner});
  T* to = out.mutable_data();
  if (inner == 1) {
    over_rows(outer, n, [&](int64_t b, int64_t e) { rows(from + b * n, to + b * n, e - b, n); });
  } else {
    over_columns(outer, n, inner, [&](int64_t at, int64_t width) { columns(from + at, to + at, n, width, inner); });
  }
  return out;
}

template <typename T>
py::array binary(void (*rows)(const T*, const T*, T*, int64_t, int64_t),
                 void (*columns)(const T*, const T*, T*, int64_t, int64_t, int64_t), const py::array& g,
                 const py::array& y) {
  expect_ndim(y, 3, "y");
  const int64_t outer = y.shape(0), n = y.shape(1), inner = y.shape(2);
  expect_shape(g, {outer, n, inner}, "g");
  const T *gradient = contiguous<T>(g, "g"), *from = contiguous<T>(y, "y");
  py::array_t<T> out = empty<T>({outer, n, inner});
  T* to = out.mutable_data();
  if (inner == 1) {
    over_rows(outer, n, [&](int64_t b, int64_t e) { rows(gradient + b * n, from + b * n, to + b * n, e - b, n); });
  } else {
    over_columns(outer, n, inner,
                 [&](int64_t at, int64_t width) { columns(gradient + at, from + at, to + at, n, width, inner); });
  }
  return out;
}

py::array softmax(const py::array& x, const char* isa) {
  const RowTable& t = table<RowTable>(isa_named(isa));
  return is_double(x) ? unary(t.f64.softmax, t.f64.softmax_columns, x) : unary(t.f32.softmax, t.f32.softmax_columns, x);
}

py::array log_softmax(const py::array& x, const char* isa) {
  const RowTable& t = table<RowTable>(isa_named(isa));
  return is_double(x) ? unary(t.f64.log_softmax, t.f64.log_softmax_columns, x)
                      : unary(t.f32.log_softmax, t.f32.log_softmax_columns, x);
}

py::array softmax_gradient(const py::array& g, const py::array& y, const char* isa) {
  const RowTable& t = table<RowTable>(isa_named(isa));
  return is_double(y) ? binary(t.f64.softmax_gradient, t.f64.softmax_gradient_columns, g, y)
                      : binary(t.f32.softmax_gradient, t.f32.softmax_gradient_columns, g, y);
}

py::array log_softmax_gradient(const py::array& g, const py::array& y, const char* isa) {
  const RowTable& t = table<RowTable>(isa_named(isa));
  return is_double(y) ? binary(t.f64.log_softmax_gradient, t.f64.log_softmax_gradient_columns, g, y)
                      : binary(t.f32.log_softmax_gradient, t.f32.log_softmax_gradient_columns, g, y);
}

// The first position whose index is neither in [0, limit) nor the ignored one, or -1.
int64_t first_outside(const py::array& indices, int64_t limit, std::optional<int64_t> ignored) {
  const int64_t* index = contiguous<int64_t>(indices, "indices");
  const int64_t size = indices.size();
  for (int64_t i = 0; i < size; ++i)
    if (static_cast<uint64_t>(index[i]) >= static_cast<uint64_t>(limit) && index[i] != ignored) return i;
  return -1;
}

Targets targets_of(const py::array& target, int64_t rows, int64_t classes, int64_t ignored, double smoothing) {
  const int64_t* index = values_of<int64_t>(target, rows, "target");
  if (const int64_t i = first_outside(target, classes, ignored); i >= 0)
    throw py::value_error("target[" + std::to_string(i) + "] is not a class");
  return {index, ignored, smoothing};
}

template <typename T>
py::tuple cross_entropy_of(const RowFunctions<T>& f, const py::array& x, const py::array& target, int64_t ignored,
                           double smoothing) {
  expect_ndim(x, 2, "logits");
  const int64_t rows = x.shape(0), n = x.shape(1);
  const T* from = contiguous<T>(x, "logits");
  const Targets all = targets_of(target, rows, n, ignored, smoothing);
  py::array_t<T> losses = empty<T>({rows}), lse = empty<T>({rows});
  T *to = losses.mutable_data(), *log = lse.mutable_data();
  over_rows(rows, n, [&](int64_t b, int64_t e) {
    f.cross_entropy(from + b * n, {all.index + b, ignored, smoothing}, to + b, log + b, e - b, n);
  });
  return py::make_tuple(losses, lse);
}

py::tuple cross_entropy(const py::array& x, const py::array& target, int64_t ignored, double smoothing,
                        const char* isa) {
  const RowTable& t = table<RowTable>(isa_named(isa));
  return is_double(x) ? cross_entropy_of(t.f64, x, target, ignored, smoothing)
                      : cross_entropy_of(t.f32, x, target, ignored, smoothing);
}

template <typename T>
py::array cross_entropy_gradient_of(const RowFunctions<T>& f, const py::array& g, const py::array& x,
                                    const py::array& target, const py::array& lse, int64_t ignored, double smoothing) {
  expect_ndim(x, 2, "logits");
  const int64_t rows = x.shape(0), n = x.shape(1);
  const T *from = contiguous<T>(x, "logits"), *gradient = values_of<T>(g, rows, "g"),
          *log = values_of<T>(lse, rows, "lse");
  const Targets all = targets_of(target, rows, n, ignored, smoothing);
  py::array_t<T> out = empty<T>({rows, n});
  T* to = out.mutable_data();
  over_rows(rows, n, [&](int64_t b, int64_t e) {
    f.cross_entropy_gradient(gradient + b, from + b * n, {all.index + b, ignored, smoothing}, log + b, to + b * n,
                             e - b, n);
  });
  return out;
}

py::array cross_entropy_gradient(const py::array& g, const py::array& x, const py::array& target, const py::array& lse,
                                 int64_t ignored, double smoothing, const char* isa) {
  const RowTable& t = table<RowTable>(isa_named(isa));
  return is_double(x) ? cross_entropy_gradient_of(t.f64, g, x, target, lse, ignored, smoothing)
                      : cross_entropy_gradient_of(t.f32, g, x, target, lse, ignored, smoothing);
}

void bind_rows(py::module_& m) {
  using py::arg;
  m.def("softmax", &softmax, arg("x"), arg("isa") = "", "Softmax of x[outer, n, inner] along n.");
  m.def("log_softmax", &log_softmax, arg("x"), arg("isa") = "",
        "Logarithm of the softmax of x[outer, n, inner] along n.");
  m.def("softmax_gradient", &softmax_gradient, arg("g"), arg("y"), arg("isa") = "",
        "y (g - sum(g y)) along the middle axis.");
  m.def("log_softmax_gradient", &log_softmax_gradient, arg("g"), arg("y"), arg("isa") = "",
        "g - exp(y) sum(g) along the middle axis.");
  m.def("first_outside", &first_outside, arg("indices"), arg("limit"), arg("ignored") = py::none(),
        "The first position of int64 indices outside [0, limit) and not `ignored`, or -1.");
  m.def("cross_entropy", &cross_entropy, arg("logits"), arg("target"), arg("ignored"), arg("smoothing"),
        arg("isa") = "", "(losses, log-sum-exp) of each row of logits[rows, n] against int64 targets.");
  m.def("cross_entropy_gradient", &cross_entropy_gradient, arg("g"), arg("logits"), arg("target"), arg("lse"),
        arg("ignored"), arg("smoothing"), arg("isa") = "", "Gradient of the row losses.");
}

const Binder binder(bind_rows);

}  // namespace
}  // namespace ulpgrad
