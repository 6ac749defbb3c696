// Row kernels: checks, then rows over threads. A row belongs to one thread, so results do not depend on their number.
#include "rows.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "bind_floats.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kGrain = 1 << 14;  // values, about 10 us: less does not pay for a thread

int64_t rows_per_thread(int64_t n) { return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, n)); }

template <typename Body>
void over_rows(int64_t rows, int64_t n, const Body& body) {
  const py::gil_scoped_release free;
  parallel_for(rows, rows_per_thread(n), body);
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

// x seen as [outer, n, inner] around an axis, and where its values and those of a result like it lie.
template <typename T>
struct Along {
  int64_t outer = 1, n = 1, inner = 1;
  const T* x;
  py::array out;
  T* y;

  Along(const py::array& a, int64_t axis) : x(values<T>(a, "x")) {
    if (axis < 0 || axis >= a.ndim())
      throw py::value_error("x: no axis " + std::to_string(axis) + " in shape " + shape_text(a));
    for (int64_t i = 0; i < a.ndim(); ++i) (i < axis ? outer : i == axis ? n : inner) *= a.shape(i);
    out = empty_of<T>({a.shape(), a.shape() + a.ndim()});
    y = data_of<T>(out);
  }
};

py::array softmax(const py::array& x, int64_t axis, const char* isa) {
  const RowTable& t = table<RowTable>(isa_named(isa));
  return by_type(x, "x", [&](auto type) {
    using T = decltype(type);
    const Along<T> a(x, axis);
    const RowFunctions<T>& f = of<T>(t);
    const int64_t n = a.n;
    if (a.inner != 1) {
      over_columns(a.outer, n, a.inner,
                   [&](int64_t at, int64_t width) { f.softmax_columns(a.x + at, a.y + at, n, width, a.inner); });
      return a.out;
    }
    const int64_t parts = threads_for(a.outer, rows_per_thread(n)), row = sizeof(T) == 2 ? (n + 63) / 64 * 64 : 0;
    auto* memory = static_cast<Wide<T>*>(scratch(Slot::caller, static_cast<size_t>(parts * row) * sizeof(Wide<T>)));
    {
      const py::gil_scoped_release free;
      parallel_for(parts, 1, [&](int64_t first, int64_t last) {
        for (int64_t p = first; p < last; ++p) {
          const int64_t begin = a.outer * p / parts, end = a.outer * (p + 1) / parts;
          f.softmax(a.x + begin * n, a.y + begin * n, memory + p * row, end - begin, n);
        }
      });
    }
    return a.out;
  });
}

py::array log_softmax(const py::array& x, int64_t axis, const char* isa) {
  const RowTable& t = table<RowTable>(isa_named(isa));
  return by_type(x, "x", [&](auto type) {
    using T = decltype(type);
    const Along<T> a(x, axis);
    const RowFunctions<T>& f = of<T>(t);
    if (a.inner == 1) {
      over_rows(a.outer, a.n, [&](int64_t b, int64_t e) { f.log_softmax(a.x + b * a.n, a.y + b * a.n, e - b, a.n); });
    } else {
      over_columns(a.outer, a.n, a.inner,
                   [&](int64_t at, int64_t width) { f.log_softmax_columns(a.x + at, a.y + at, a.n, width, a.inner); });
    }
    return a.out;
  });
}

template <typename T>
using Gradient = void (*)(const T*, const T*, T*, int64_t, int64_t);
template <typename T>
using ColumnGradient = void (*)(const T*, const T*, T*, int64_t, int64_t, int64_t);

template <typename T>
py::array gradient(Gradient<T> rows, ColumnGradient<T> columns, const py::array& g, const py::array& y, int64_t axis) {
  const Along<T> a(y, axis);
  if (g.ndim() != y.ndim() || !std::equal(g.shape(), g.shape() + g.ndim(), y.shape()))
    throw py::value_error("g: expected shape " + shape_text(y) + ", got " + shape_text(g));
  const T* from = values<T>(g, "g");
  const int64_t n = a.n;
  if (a.inner == 1) {
    over_rows(a.outer, n, [&](int64_t b, int64_t e) { rows(from + b * n, a.x + b * n, a.y + b * n, e - b, n); });
  } else {
    over_columns(a.outer, n, a.inner,
                 [&](int64_t at, int64_t width) { columns(from + at, a.x + at, a.y + at, n, width, a.inner); });
  }
  return a.out;
}

py::array softmax_gradient(const py::array& g, const py::array& y, int64_t axis, const char* isa) {
  const RowTable& t = table<RowTable>(isa_named(isa));
  return by_type(y, "y", [&](auto type) {
    const auto& f = of<decltype(type)>(t);
    return gradient(f.softmax_gradient, f.softmax_gradient_columns, g, y, axis);
  });
}

py::array log_softmax_gradient(const py::array& g, const py::array& y, int64_t axis, const char* isa) {
  const RowTable& t = table<RowTable>(isa_named(isa));
  return by_type(y, "y", [&](auto type) {
    const auto& f = of<decltype(type)>(t);
    return gradient(f.log_softmax_gradient, f.log_softmax_gradient_columns, g, y, axis);
  });
}

// The first position whose index is neither in [0, limit) nor the ignored one, or -1.
int64_t first_outside(const py::array& indices, int64_t limit, std::optional<int64_t> ignored) {
  const int64_t* index = contiguous<int64_t>(indices, "indices");
  const int64_t size = indices.size();
  for (int64_t i = 0; i < size; ++i)
    if (static_cast<uint64_t>(index[i]) >= static_cast<uint64_t>(limit) && index[i] != ignored) return i;
  return -1;
}

// Classes that are all in range; where no index is ignored, what stands for one is none of them.
Targets targets_of(const py::array& target, int64_t rows, int64_t classes, std::optional<int64_t> ignored,
                   double smoothing) {
  expect_shape(target, {rows}, "target");
  const int64_t* index = contiguous<int64_t>(target, "target");
  if (const int64_t i = first_outside(target, classes, ignored); i >= 0)
    throw py::value_error("target[" + std::to_string(i) + "] is not a class");
  return {index, ignored.value_or(-1), smoothing};
}

py::tuple cross_entropy(const py::array& x, const py::array& target, std::optional<int64_t> ignored, double smoothing,
                        const char* isa) {
  const RowTable& t = table<RowTable>(isa_named(isa));
  expect_ndim(x, 2, "logits");
  const int64_t rows = x.shape(0), n = x.shape(1);
  const Targets all = targets_of(target, rows, n, ignored, smoothing);
  return by_type(x, "logits", [&](auto type) {
    using T = decltype(type);
    const T* from = values<T>(x, "logits");
    py::array losses = empty_of<T>({rows}), lse = empty_of<Wide<T>>({rows});
    T* to = data_of<T>(losses);
    Wide<T>* log = data_of<Wide<T>>(lse);
    over_rows(rows, n, [&](int64_t b, int64_t e) {
      of<T>(t).cross_entropy(from + b * n, {all.index + b, all.ignored, smoothing}, to + b, log + b, e - b, n);
    });
    return py::make_tuple(losses, lse);
  });
}

py::array cross_entropy_gradient(const py::array& g, const py::array& x, const py::array& target, const py::array& lse,
                                 std::optional<int64_t> ignored, double smoothing, const char* isa) {
  const RowTable& t = table<RowTable>(isa_named(isa));
  expect_ndim(x, 2, "logits");
  const int64_t rows = x.shape(0), n = x.shape(1);
  const Targets all = targets_of(target, rows, n, ignored, smoothing);
  return by_type(x, "logits", [&](auto type) {
    using T = decltype(type);
    const T *from = values<T>(x, "logits"), *scale = values<T>(g, {rows}, "g");
    const Wide<T>* log = values<Wide<T>>(lse, {rows}, "lse");
    py::array out = empty_of<T>({rows, n});
    T* to = data_of<T>(out);
    over_rows(rows, n, [&](int64_t b, int64_t e) {
      of<T>(t).cross_entropy_gradient(scale + b, from + b * n, {all.index + b, all.ignored, smoothing}, log + b,
                                      to + b * n, e - b, n);
    });
    return out;
  });
}

void bind_rows(py::module_& m) {
  using py::arg;
  m.def("softmax", &softmax, arg("x"), arg("axis"), arg("isa") = "", "Softmax of x along an axis.");
  m.def("log_softmax", &log_softmax, arg("x"), arg("axis"), arg("isa") = "",
        "Logarithm of the softmax of x along an axis.");
  m.def("softmax_gradient", &softmax_gradient, arg("g"), arg("y"), arg("axis"), arg("isa") = "",
        "y (g - sum(g y)) along an axis.");
  m.def("log_softmax_gradient", &log_softmax_gradient, arg("g"), arg("y"), arg("axis"), arg("isa") = "",
        "g - exp(y) sum(g) along an axis.");
  m.def("first_outside", &first_outside, arg("indices"), arg("limit"), arg("ignored") = py::none(),
        "The first position of int64 indices outside [0, limit) and not `ignored`, or -1.");
  m.def("cross_entropy", &cross_entropy, arg("logits"), arg("target"), arg("ignored"), arg("smoothing"),
        arg("isa") = "",
        "(losses, log-sum-exp) of rows of logits[rows, n] against int64 targets; those `ignored` cost nothing.");
  m.def("cross_entropy_gradient", &cross_entropy_gradient, arg("g"), arg("logits"), arg("target"), arg("lse"),
        arg("ignored"), arg("smoothing"), arg("isa") = "", "Gradient of the row losses.");
}

const Binder binder(bind_rows);

}  // namespace
}  // namespace ulpgrad
