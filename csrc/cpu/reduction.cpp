// Reductions: the array is cut into tasks whose number depends on its shape alone, and their results are joined in
// order.
#include "reduction.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "bind_floats.h"
#include "reduction_plan.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr const char* kKinds[] = {"sum", "prod", "max", "min"};

Reduce kind_named(const std::string& name) {
  for (int i = 0; i < 4; ++i)
    if (name == kKinds[i]) return static_cast<Reduce>(i);
  throw py::value_error("kind='" + name + "': expected sum, mean, prod, max or min");
}

// inner == 1: each result is a run of n values. Long runs are shared out by blocks, others as a whole.
template <typename S>
void reduce_runs(const ReduceFunctions<S>& f, Reduce kind, const S* x, const ReduceShape& s, const Wide<S>* center,
                 Wide<S>* out) {
  using T = Wide<S>;
  if (s.n < 4 * kBlock || s.outer >= 16) {
    parallel_for(s.outer, steps(s.n), [&](int64_t begin, int64_t end) {
      f.runs(kind, x + begin * s.n, end - begin, s.n, center ? center + begin : nullptr, out + begin);
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
template <typename S>
void reduce_columns(const ReduceTable& table, Reduce kind, const S* x, const ReduceShape& s, const Wide<S>* center,
                    Wide<S>* out) {
  using T = Wide<S>;
  const ReduceFunctions<S>& f = of<S>(table);
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
  reduce_columns<T>(table, join, parts.get(), ReduceShape{s.outer, chunks, s.inner}, nullptr, out);
}

template <typename S>
void reduce_any(const ReduceTable& table, Reduce kind, const S* x, const ReduceShape& s, const Wide<S>* center,
                Wide<S>* out) {
  if (s.inner == 1) {
    reduce_runs(of<S>(table), kind, x, s, center, out);
  } else if (s.inner > 1) {
    reduce_columns(table, kind, x, s, center, out);
  }
}

// A new array of this shape that fill(values, count) has filled; 16-bit results are rounded from what it filled.
template <typename S, typename Fill>
py::array filled(const std::vector<py::ssize_t>& shape, int64_t work, Isa isa, const Fill& fill) {
  int64_t count = 1;
  for (const py::ssize_t size : shape) count *= size;
  py::array out = empty_of<S>(shape);
  S* to = data_of<S>(out);
  std::optional<py::gil_scoped_release> free;
  if (work >= kWithoutGil) free.emplace();
  if constexpr (std::is_same_v<S, Wide<S>>) {
    fill(to, count);
  } else {
    const std::unique_ptr<Wide<S>[]> wide(new Wide<S>[static_cast<size_t>(count)]);
    fill(wide.get(), count);
    round_into(wide.get(), to, count, isa);
  }
  free.reset();
  return out;
}

// inner == 1: runs as a whole, or a single long one by parts, whose best are then compared in order.
template <typename T>
void arg_along(const ReduceFunctions<T>& f, Reduce kind, const T* x, const ReduceShape& s, int64_t* out) {
  const int64_t parts = s.outer == 1 ? std::max<int64_t>(1, s.n / kGrain) : 1;
  if (parts == 1) {
    parallel_for(s.outer, steps(s.n),
                 [&](int64_t begin, int64_t end) { f.arg_runs(kind, x + begin * s.n, end - begin, s.n, out + begin); });
    return;
  }
  const std::unique_ptr<int64_t[]> best(new int64_t[static_cast<size_t>(parts)]);
  const std::unique_ptr<T[]> values(new T[static_cast<size_t>(parts)]);
  parallel_for(parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t from = s.n * p / parts, to = s.n * (p + 1) / parts;
      f.arg_runs(kind, x + from, 1, to - from, &best[p]);
      values[p] = x[best[p] += from];
    }
  });
  f.arg_runs(kind, values.get(), 1, parts, out);
  *out = best[*out];
}

template <typename T>
py::array arg_of(const ReduceFunctions<T>& f, Reduce kind, const py::array& x, const ReduceShape& s) {
  const T* from = values<T>(x, "x");
  py::array_t<int64_t> out = empty<int64_t>({s.outer * s.inner});
  int64_t* to = out.mutable_data();
  if (s.inner == 1) {
    {
      std::optional<py::gil_scoped_release> free;
      if (x.size() >= kWithoutGil) free.emplace();
      arg_along(f, kind, from, s, to);
    }
    return out;
  }
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
py::array running_of(const ReduceFunctions<T>& f, Reduce kind, const py::array& x, const ReduceShape& s) {
  const T* from = values<T>(x, "x");
  py::array out = empty_of<T>({s.outer, s.n, s.inner});
  T* to = data_of<T>(out);
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

ReduceShape checked(const py::array& x, int64_t outer, int64_t n, int64_t inner) {
  if (outer < 0 || n < 0 || inner < 0 || x.size() != outer * n * inner)
    throw py::value_error("expected outer * n * inner = " + std::to_string(x.size()));
  return {outer, n, inner};
}

py::array arg_reduce(const py::array& x, const std::string& kind, int64_t outer, int64_t n, int64_t inner,
                     const char* isa) {
  const ReduceTable& run = table<ReduceTable>(isa_named(isa));
  const ReduceShape s = checked(x, outer, n, inner);
  const Reduce chosen = kind_named(kind);
  if (chosen != Reduce::max && chosen != Reduce::min) throw py::value_error("kind: expected max or min");
  if (n < 1 || n > INT32_MAX) throw py::value_error("n: expected 1 to 2^31 - 1, got " + std::to_string(n));
  return by_type(x, "x", [&](auto type) { return arg_of(of<decltype(type)>(run), chosen, x, s); });
}

py::array cumulate(const py::array& x, const std::string& kind, int64_t outer, int64_t n, int64_t inner,
                   const char* isa) {
  const ReduceTable& run = table<ReduceTable>(isa_named(isa));
  const ReduceShape s = checked(x, outer, n, inner);
  const Reduce chosen = kind_named(kind);
  if (chosen != Reduce::sum && chosen != Reduce::prod) throw py::value_error("kind: expected sum or prod");
  return by_type(x, "x", [&](auto type) { return running_of(of<decltype(type)>(run), chosen, x, s); });
}

// Divides by a count, in T, as one divides by it anywhere.
template <typename T>
void divide(T* values, int64_t count, double divisor) {
  for (int64_t i = 0; i < count; ++i) values[i] /= static_cast<T>(divisor);
}

py::array reduce(const py::array& x, const std::string& kind, const py::tuple& axes, bool keepdims,
                 const char* isa_given) {
  const Isa isa = isa_named(isa_given);
  const ReducePlan plan(x, axes, keepdims);
  const bool mean = kind == "mean";
  const Reduce chosen = mean ? Reduce::sum : kind_named(kind);
  return by_type(x, "x", [&](auto type) {
    using T = decltype(type);
    const T* from = values<T>(x, "x");
    return filled<T>(plan.shape, x.size(), isa, [&](Wide<T>* out, int64_t count) {
      reduce_any<T>(table<ReduceTable>(isa), chosen, from, plan.s, nullptr, out);
      if (mean) divide(out, count, static_cast<double>(plan.s.n));
    });
  });
}

py::array variance(const py::array& x, const py::tuple& axes, bool keepdims, double correction, const char* isa_given) {
  const Isa isa = isa_named(isa_given);
  const ReducePlan plan(x, axes, keepdims);
  return by_type(x, "x", [&](auto type) {
    using T = decltype(type);
    const T* from = values<T>(x, "x");
    return filled<T>(plan.shape, x.size(), isa, [&](Wide<T>* out, int64_t count) {
      const ReduceTable& t = table<ReduceTable>(isa);
      const double n = static_cast<double>(plan.s.n);
      const std::unique_ptr<Wide<T>[]> mean(new Wide<T>[static_cast<size_t>(count)]);
      reduce_any<T>(t, Reduce::sum, from, plan.s, nullptr, mean.get());
      divide(mean.get(), count, n);
      reduce_any<T>(t, Reduce::squares, from, plan.s, mean.get(), out);
      divide(out, count, std::max(n - correction, 0.0));
    });
  });
}

void bind_reduction(py::module_& m) {
  m.def("reduce", &reduce, py::arg("x"), py::arg("kind"), py::arg("axis"), py::arg("keepdims"), py::arg("isa") = "",
        "Reduces x over axes that lie side by side. kind: sum, mean, prod, max or min.");
  m.def("variance", &variance, py::arg("x"), py::arg("axis"), py::arg("keepdims"), py::arg("correction"),
        py::arg("isa") = "", "The sum of squared distances from the mean, divided by the count less `correction`.");
  m.def("arg_reduce", &arg_reduce, py::arg("x"), py::arg("kind"), py::arg("outer"), py::arg("n"), py::arg("inner"),
        py::arg("isa") = "", "Where along n x, seen as [outer, n, inner], has its first max or min: int64.");
  m.def("cumulate", &cumulate, py::arg("x"), py::arg("kind"), py::arg("outer"), py::arg("n"), py::arg("inner"),
        py::arg("isa") = "", "Running sum or prod of x, seen as [outer, n, inner], along n.");
}

const Binder binder(bind_reduction);

}  // namespace
}  // namespace ulpgrad
