// Reductions of integers and bools. They are exact, so that work is shared out as threads like it best.
#include "reduction_integers.h"

#include <cstring>
#include <memory>
#include <optional>

#include "reduction_plan.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kLongBools = 64;  // a run of as many is looked through until one decides
constexpr int64_t kNarrow = 256;    // columns: of fewer, several rows are taken as one

template <typename S>
const CountFunctions<S>& functions(const CountTable& t) {
  if constexpr (std::is_same_v<S, int8_t>) return t.i8;
  if constexpr (std::is_same_v<S, int16_t>) return t.i16;
  if constexpr (std::is_same_v<S, int32_t>) return t.i32;
  if constexpr (std::is_same_v<S, int64_t>) return t.i64;
  if constexpr (std::is_same_v<S, uint8_t>) return t.u8;
  if constexpr (std::is_same_v<S, uint16_t>) return t.u16;
  if constexpr (std::is_same_v<S, uint32_t>) return t.u32;
  if constexpr (std::is_same_v<S, uint64_t>) return t.u64;
}

// body(value) with the type of the array's values; bools are bytes.
template <typename Body>
auto with_integers(const py::array& x, const Body& body) {
  const char kind = x.dtype().kind();
  const bool native = x.dtype().byteorder() != '>';
  switch (kind == 'i' && native ? -x.itemsize() : (kind == 'u' || kind == 'b') && native ? x.itemsize() : 0) {
    case -1:
      return body(int8_t{});
    case -2:
      return body(int16_t{});
    case -4:
      return body(int32_t{});
    case -8:
      return body(int64_t{});
    case 1:
      return body(uint8_t{});
    case 2:
      return body(uint16_t{});
    case 4:
      return body(uint32_t{});
    case 8:
      return body(uint64_t{});
    default:
      throw py::type_error("x: expected integers or bools, got " + py::str(x.dtype()).cast<std::string>());
  }
}

// Into how many parts n steps of `values` are cut, where there are only `others` pieces of work beside one another.
int64_t parts_of(int64_t others, int64_t n, int64_t values) {
  return others >= 8 ? 1 : std::max<int64_t>(1, std::min({n * values / kGrain, n, int64_t{64}}));
}

// A reduction of S whose results are R.
template <typename S, typename R>
class Reduction {
 public:
  Reduction(const CountTable& table, Count kind, const S* x, const ReduceShape& s)
      : kind_(kind), x_(x), s_(s), own_(functions<S>(table)), joins_(functions<R>(table)) {}

  void into(R* out) const { s_.inner == 1 ? runs(out) : columns(out); }

 private:
  void runs(R* out) const {
    const int64_t n = s_.n, parts = parts_of(s_.outer, n, s_.outer);
    if (parts == 1) {
      parallel_for(s_.outer, steps(n),
                   [&](int64_t begin, int64_t end) { own_.runs(kind_, x_ + begin * n, end - begin, n, out + begin); });
      return;
    }
    const std::unique_ptr<R[]> some(new R[static_cast<size_t>(s_.outer * parts)]);
    parallel_for(s_.outer * parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t p = t % parts, from = n * p / parts, to = n * (p + 1) / parts;
        own_.runs(kind_, x_ + t / parts * n + from, 1, to - from, &some[t]);
      }
    });
    joins_.runs(kind_, some.get(), s_.outer, parts, out);
  }

  void columns(R* out) const {
    const int64_t inner = s_.inner, tiles = (inner + kCountTile - 1) / kCountTile;
    const int64_t parts = parts_of(s_.outer * tiles, s_.n, s_.outer * inner);
    const std::unique_ptr<R[]> some(parts > 1 ? new R[static_cast<size_t>(s_.outer * parts * inner)] : nullptr);
    R* to = some ? some.get() : out;
    parallel_for(s_.outer * parts * tiles, steps(s_.n / parts * std::min(inner, kCountTile)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t t = begin; t < end; ++t) {
                     const int64_t column = t % tiles * kCountTile, p = t / tiles % parts, i = t / tiles / parts;
                     const int64_t first = s_.n * p / parts, last = s_.n * (p + 1) / parts;
                     tile(x_ + (i * s_.n + first) * inner + column, last - first, std::min(kCountTile, inner - column),
                          to + (i * parts + p) * inner + column);
                   }
                 });
    for (int64_t i = 0; some && i < s_.outer; ++i) join(to + i * parts * inner, parts, out + i * inner);
  }

  void join(const R* rows, int64_t n, R* out) const {
    for (int64_t column = 0; column < s_.inner; column += kCountTile)
      joins_.columns(kind_, rows + column, n, std::min(kCountTile, s_.inner - column), s_.inner, out + column);
  }

  // n rows; where they are narrow and there is nothing beside them, `together` of them are read as one.
  void tile(const S* x, int64_t n, int64_t width, R* out) const {
    const int64_t together = width == s_.inner ? kNarrow / width : 1;
    if (together < 2 || n < 2 * together) return own_.columns(kind_, x, n, width, s_.inner, out);
    R some[2 * kNarrow];
    const int64_t wide = together * width, rows = n / together, rest = n % together;
    own_.columns(kind_, x, rows, wide, wide, some);
    own_.columns(kind_, x + rows * wide, rest, width, width, some + wide);
    joins_.columns(kind_, some, together + 1, width, width, out);
  }

  Count kind_;
  const S* x_;
  ReduceShape s_;
  const CountFunctions<S>& own_;
  const CountFunctions<R>& joins_;
};

Count kind_named(const std::string& name, bool bools) {
  const char* const names[] = {"sum", "prod", "max", "min"};
  for (int i = 0; i < 4; ++i)
    if (name == names[i]) return static_cast<Count>(i);
  if (bools && name == "any") return Count::max;
  if (bools && name == "all") return Count::min;
  throw py::value_error("kind='" + name + "': expected sum, prod, max or min; all or any of bools");
}

template <typename S, typename R>
py::array reduced(const py::array& x, const ReducePlan& plan, Count kind, py::dtype type, const CountTable& table) {
  const S* from = static_cast<const S*>(x.data());
  py::array out = empty(std::move(type), plan.shape);
  R* to = static_cast<R*>(out.mutable_data());
  if (out.size() == 0) return out;
  {
    std::optional<py::gil_scoped_release> free;
    if (x.size() >= kWithoutGil) free.emplace();
    Reduction<S, R>(table, kind, from, plan.s).into(to);
  }
  return out;
}

// all and any of runs of bools stop at the first that decides.
void decide(const uint8_t* x, int64_t rows, int64_t n, bool all, uint8_t* out) {
  for (int64_t r = 0; r < rows; ++r)
    out[r] = (std::memchr(x + r * n, all ? 0 : 1, static_cast<size_t>(n)) != nullptr) != all;
}

py::array reduce_integers(const py::array& x, const std::string& name, const py::tuple& axes, bool keepdims,
                          const char* isa) {
  const CountTable& counts = table<CountTable>(isa_named(isa));
  const ReducePlan plan(x, axes, keepdims);
  const bool bools = x.dtype().kind() == 'b';
  const Count kind = kind_named(name, bools);
  expect_contiguous(x, "x");
  const bool decided = bools && (kind == Count::max || kind == Count::min);
  if (decided && (plan.s.n == 0 || (plan.s.inner == 1 && plan.s.n >= kLongBools))) {
    py::array out = empty(x.dtype(), plan.shape);
    decide(static_cast<const uint8_t*>(x.data()), out.size(), plan.s.n, kind == Count::min,
           static_cast<uint8_t*>(out.mutable_data()));
    return out;
  }
  return with_integers(x, [&](auto value) {
    using S = decltype(value);
    if (kind == Count::max || kind == Count::min) return reduced<S, S>(x, plan, kind, x.dtype(), counts);
    return reduced<S, uint64_t>(
        x, plan, kind, std::is_signed_v<S> || bools ? py::dtype::of<int64_t>() : py::dtype::of<uint64_t>(), counts);
  });
}

py::array arg_reduce_integers(const py::array& x, const std::string& name, int64_t rows, int64_t n, const char* isa) {
  const CountTable& counts = table<CountTable>(isa_named(isa));
  const Count kind = kind_named(name, false);
  if (kind != Count::max && kind != Count::min) throw py::value_error("kind: expected max or min");
  if (rows < 0 || n < 1 || x.size() != rows * n)
    throw py::value_error("expected rows * n = " + std::to_string(x.size()) + ", and n of at least 1");
  expect_contiguous(x, "x");
  return with_integers(x, [&](auto value) {
    using S = decltype(value);
    const S* from = static_cast<const S*>(x.data());
    py::array_t<int64_t> out = empty<int64_t>({rows});
    int64_t* to = out.mutable_data();
    {
      std::optional<py::gil_scoped_release> free;
      if (x.size() >= kWithoutGil) free.emplace();
      parallel_for(rows, steps(n), [&](int64_t begin, int64_t end) {
        functions<S>(counts).arg_runs(kind, from + begin * n, end - begin, n, to + begin);
      });
    }
    return py::array(out);
  });
}

void bind_integers(py::module_& m) {
  m.def("reduce_integers", &reduce_integers, py::arg("x"), py::arg("kind"), py::arg("axis"), py::arg("keepdims"),
        py::arg("isa") = "",
        "Reduces integers or bools over axes that lie side by side. kind: sum or prod (in 64 bits), max or min; all or "
        "any of "
        "bools.");
  m.def("arg_reduce_integers", &arg_reduce_integers, py::arg("x"), py::arg("kind"), py::arg("rows"), py::arg("n"),
        py::arg("isa") = "", "Where along n integers, seen as [rows, n], have their first max or min: int64[rows].");
}

const Binder binder(bind_integers);

}  // namespace
}  // namespace ulpgrad
