// Reductions: the array is cut into tasks whose number depends on its shape alone, and their results are joined in
// order.
#include "reduction.h"

#include <algorithm>
#include <memory>

#include "bind.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kGrain = 1 << 16;  // values, about 10 us: less does not pay for a thread
constexpr int64_t kTile = 1024;      // columns whose accumulators stay in the first cache

constexpr const char* kKinds[] = {"sum", "prod", "max", "min", "squares"};

Reduce kind_named(const std::string& name) {
  for (int i = 0; i < 5; ++i)
    if (name == kKinds[i]) return static_cast<Reduce>(i);
  throw py::value_error("kind='" + name + "': expected sum, prod, max, min or squares");
}

struct Shape {
  int64_t outer, n, inner;
};

int64_t steps(int64_t values_per_step) { return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, values_per_step)); }

// inner == 1: each result is a run of n values. Long runs are shared out by blocks, others as a whole.
template <typename T>
void reduce_runs(const ReduceFunctions<T>& f, Reduce kind, const T* x, const Shape& s, const T* center, T* out) {
  if (s.n < 4 * kBlock || s.outer >= 16) {
    parallel_for(s.outer, steps(s.n), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) out[i] = f.run(kind, x + i * s.n, s.n, center ? center[i] : T(0));
    });
    return;
  }
  const int64_t blocks = (s.n + kBlock - 1) / kBlock;
  const std::unique_ptr<T[]> parts(new T[static_cast<size_t>(s.outer * blocks)]);
  parallel_for(s.outer * blocks, steps(kBlock), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t i = t / blocks, from = t % blocks * kBlock;
      parts[t] = f.block(kind, x + i * s.n + from, std::min(kBlock, s.n - from), center ? center[i] : T(0));
    }
  });
  for (int64_t i = 0; i < s.outer; ++i) out[i] = f.tree(kind, &parts[i * blocks], blocks);
}

// inner > 1: rows are joined element by element, kRows at a time, then what those gave.
template <typename T>
void reduce_columns(const ReduceFunctions<T>& f, Reduce kind, const T* x, const Shape& s, const T* center, T* out) {
  const int64_t chunks = std::max<int64_t>(1, (s.n + kRows - 1) / kRows), tiles = (s.inner + kTile - 1) / kTile;
  const std::unique_ptr<T[]> parts(chunks > 1 ? new T[static_cast<size_t>(s.outer * chunks * s.inner)] : nullptr);
  T* to = chunks > 1 ? parts.get() : out;
  const int64_t rows = std::min(s.n, kRows);
  parallel_for(s.outer * chunks * tiles, steps(rows * std::min(s.inner, kTile)), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t column = t % tiles * kTile, chunk = t / tiles % chunks, i = t / tiles / chunks;
      f.rows(kind, x + (i * s.n + chunk * kRows) * s.inner + column, std::min(kRows, s.n - chunk * kRows),
             std::min(kTile, s.inner - column), s.inner, center ? center + i * s.inner + column : nullptr,
             to + (i * chunks + chunk) * s.inner + column);
    }
  });
  if (chunks == 1) return;
  const Reduce join = kind == Reduce::squares ? Reduce::sum : kind;
  const Shape rest{s.outer, chunks, s.inner};
  reduce_columns<T>(f, join, parts.get(), rest, nullptr, out);
}

template <typename T>
py::array reduce_of(const ReduceFunctions<T>& f, Reduce kind, const py::array& x, const Shape& s,
                    const py::object& center) {
  const T* from = contiguous<T>(x, "x");
  const T* middle = nullptr;
  if (!center.is_none()) {
    const py::array c = py::cast<py::array>(center);
    middle = contiguous<T>(c, "center");
    if (c.size() != s.outer * s.inner) throw py::value_error("center: expected a value per result");
  }
  py::array_t<T> out = empty<T>({s.outer * s.inner});
  T* to = out.mutable_data();
  {
    py::gil_scoped_release free;
    if (s.inner == 1) {
      reduce_runs(f, kind, from, s, middle, to);
    } else if (s.inner > 1) {
      reduce_columns(f, kind, from, s, middle, to);
    }
  }
  return out;
}

template <typename T>
py::array arg_of(const ReduceFunctions<T>& f, Reduce kind, const py::array& x, const Shape& s) {
  const T* from = contiguous<T>(x, "x");
  py::array_t<int64_t> out = empty<int64_t>({s.outer * s.inner});
  int64_t* to = out.mutable_data();
  constexpr int64_t width = kTile / 16;  // columns, so that a tile of many rows stays in the second cache
  const int64_t tiles = (s.inner + width - 1) / width;
  {
    const py::gil_scoped_release free;
    parallel_for(s.outer * tiles, steps(s.n * std::min(s.inner, width)), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t i = t / tiles, column = t % tiles * width;
        f.arg(kind, from + i * s.n * s.inner + column, s.n, std::min(width, s.inner - column), s.inner,
              to + i * s.inner + column);
      }
    });
  }
  return out;
}

template <typename T>
py::array running_of(const ReduceFunctions<T>& f, Reduce kind, const py::array& x, const Shape& s) {
  const T* from = contiguous<T>(x, "x");
  py::array_t<T> out = empty<T>({s.outer, s.n, s.inner});
  T* to = out.mutable_data();
  if (x.size() == 0) return out;
  const int64_t tiles = (s.inner + kTile - 1) / kTile;
  {
    const py::gil_scoped_release free;
    if (s.inner == 1) {
      parallel_for(s.outer, steps(s.n), [&](int64_t begin, int64_t end) {
        f.running_runs(kind, from + begin * s.n, to + begin * s.n, end - begin, s.n);
      });
    } else {
      parallel_for(s.outer * tiles, steps(s.n * std::min(s.inner, kTile)), [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
          const int64_t column = t % tiles * kTile, at = t / tiles * s.n * s.inner + column;
          f.running(kind, from + at, to + at, s.n, std::min(kTile, s.inner - column), s.inner);
        }
      });
    }
  }
  return out;
}

Shape checked(const py::array& x, int64_t outer, int64_t n, int64_t inner) {
  if (outer < 0 || n < 0 || inner < 0 || x.size() != outer * n * inner)
    throw py::value_error("expected outer * n * inner = " + std::to_string(x.size()));
  return {outer, n, inner};
}

py::array arg_reduce(const py::array& x, const std::string& kind, int64_t outer, int64_t n, int64_t inner,
                     const char* isa) {
  const ReduceTable& run = table<ReduceTable>(isa_named(isa));
  const Shape s = checked(x, outer, n, inner);
  const Reduce chosen = kind_named(kind);
  if (chosen != Reduce::max && chosen != Reduce::min) throw py::value_error("kind: expected max or min");
  if (n < 1 || n > INT32_MAX) throw py::value_error("n: expected 1 to 2^31 - 1, got " + std::to_string(n));
  return py::isinstance<py::array_t<double>>(x) ? arg_of(run.f64, chosen, x, s) : arg_of(run.f32, chosen, x, s);
}

py::array cumulate(const py::array& x, const std::string& kind, int64_t outer, int64_t n, int64_t inner,
                   const char* isa) {
  const ReduceTable& run = table<ReduceTable>(isa_named(isa));
  const Shape s = checked(x, outer, n, inner);
  const Reduce chosen = kind_named(kind);
  if (chosen != Reduce::sum && chosen != Reduce::prod) throw py::value_error("kind: expected sum or prod");
  return py::isinstance<py::array_t<double>>(x) ? running_of(run.f64, chosen, x, s) : running_of(run.f32, chosen, x, s);
}

py::array reduce(const py::array& x, const std::string& kind, int64_t outer, int64_t n, int64_t inner,
                 const py::object& center, const char* isa) {
  const ReduceTable& run = table<ReduceTable>(isa_named(isa));
  const Shape s = checked(x, outer, n, inner);
  const Reduce chosen = kind_named(kind);
  if (py::isinstance<py::array_t<double>>(x)) return reduce_of(run.f64, chosen, x, s, center);
  return reduce_of(run.f32, chosen, x, s, center);
}

void bind_reduction(py::module_& m) {
  m.def("reduce", &reduce, py::arg("x"), py::arg("kind"), py::arg("outer"), py::arg("n"), py::arg("inner"),
        py::arg("center") = py::none(), py::arg("isa") = "",
        "Reduces x, seen as [outer, n, inner], over n. kind: sum, prod, max, min, or squares of distances from "
        "`center`.");
  m.def("arg_reduce", &arg_reduce, py::arg("x"), py::arg("kind"), py::arg("outer"), py::arg("n"), py::arg("inner"),
        py::arg("isa") = "", "Where along n x, seen as [outer, n, inner], has its first max or min: int64.");
  m.def("cumulate", &cumulate, py::arg("x"), py::arg("kind"), py::arg("outer"), py::arg("n"), py::arg("inner"),
        py::arg("isa") = "", "Running sum or prod of x, seen as [outer, n, inner], along n.");
}

const Binder binder(bind_reduction);

}  // namespace
}  // namespace ulpgrad
