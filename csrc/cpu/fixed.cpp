// Fixed-point arithmetic on codes: checks, layouts and threads around the loops of isa/fixed.cpp.
#include "fixed.h"

#include <algorithm>
#include <array>
#include <vector>

#include "bind.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kGrain = 1 << 15;       // values that are worth a thread
constexpr int64_t kWithoutGil = 1 << 13;  // values from which releasing the GIL is worth its cost
constexpr int kMaxAxes = 64;

FixedWord word_of(const py::dtype& type, const char* name) {
  const std::string kinds = "iu", sizes = "\1\2\4\10";
  const size_t kind = kinds.find(type.kind()), size = sizes.find(char(type.itemsize()));
  if (kind == std::string::npos || size == std::string::npos || type.byteorder() == '>')
    throw py::type_error(std::string(name) + ": expected integers, got " + py::str(type).cast<std::string>());
  return static_cast<FixedWord>(kind * 4 + size);
}

void expect_aligned(const py::array& a, const char* name) {
  if (!(a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
    throw py::value_error(std::string(name) + ": not aligned");
  for (py::ssize_t i = 0; i < a.ndim(); ++i)
    if (a.strides(i) % a.itemsize()) throw py::value_error(std::string(name) + ": strides are not whole values");
}

// How a result is cut; the order of the fields is that of `Cut.fields` in kernels/fixed/cut.py.
FixedCall call_of(const py::tuple& cut) {
  if (cut.size() != 8) throw py::value_error("cut: expected 8 fields");
  FixedCall c{};
  c.drop = cut[0].cast<int>();
  const int rounding = cut[1].cast<int>();
  c.wrap = cut[2].cast<bool>();
  c.random_bits = cut[3].cast<int>();
  c.low = cut[4].cast<int64_t>();
  c.high = cut[5].cast<uint64_t>();
  c.width = cut[6].cast<int>();
  c.out = word_of(py::dtype::from_args(cut[7]), "out");
  if (rounding < 0 || rounding > int(FixedRounding::stochastic)) throw py::value_error("cut: no such rounding");
  c.rounding = static_cast<FixedRounding>(rounding);
  if (c.width != 32 && c.width != 64 && c.width != 128) throw py::value_error("cut: width must be 32, 64 or 128");
  if (c.drop < -(c.width - 1) || c.drop > c.width - 2) throw py::value_error("cut: drop is outside the width");
  if (c.random_bits < 1 || c.random_bits > 32) throw py::value_error("cut: random_bits must be 1 to 32");
  return c;
}

// The shape that a and b broadcast to, with how far each moves per axis, in values; axes that continue each other
// merged.
struct Layout {
  std::vector<py::ssize_t> shape;
  int axes = 0;
  std::array<int64_t, kMaxAxes> size{}, a{}, b{};

  void add(int64_t n, int64_t a_step, int64_t b_step) {
    if (n == 1) return;
    if (axes && a[axes - 1] == a_step * n && b[axes - 1] == b_step * n) {
      size[axes - 1] *= n;
      a[axes - 1] = a_step;
      b[axes - 1] = b_step;
    } else {
      size[axes] = n;
      a[axes] = a_step;
      b[axes++] = b_step;
    }
  }
};

int64_t step_of(const py::array& x, int64_t axis, int64_t ndim) {
  const int64_t own = axis - (ndim - x.ndim());
  return own < 0 || x.shape(own) == 1 ? 0 : x.strides(own) / x.itemsize();
}

Layout layout_of(const py::array& a, const py::array& b) {
  Layout l;
  const int64_t ndim = std::max(a.ndim(), b.ndim());
  if (ndim > kMaxAxes) throw py::value_error("fixed: too many axes");
  for (int64_t axis = 0; axis < ndim; ++axis) {
    const int64_t in_a = axis - (ndim - a.ndim()), in_b = axis - (ndim - b.ndim());
    const int64_t from_a = in_a < 0 ? 1 : a.shape(in_a), from_b = in_b < 0 ? 1 : b.shape(in_b);
    if (from_a != from_b && from_a != 1 && from_b != 1)
      throw py::value_error("fixed: shapes " + shape_text(a) + " and " + shape_text(b) + " do not broadcast");
    const int64_t n = from_a == 1 ? from_b : from_a;
    l.shape.push_back(n);
    l.add(n, step_of(a, axis, ndim), step_of(b, axis, ndim));
  }
  return l;
}

// A new array of a result's words, in memory of the cache.
py::array result_of(const py::tuple& cut, const std::vector<py::ssize_t>& shape) {
  return empty(py::dtype::from_args(cut[7]), shape);
}

const uint32_t* words_of(const py::object& words, const std::vector<py::ssize_t>& shape, const FixedCall& c) {
  if (words.is_none()) {
    if (c.rounding == FixedRounding::stochastic) throw py::value_error("words: stochastic rounding needs them");
    return nullptr;
  }
  const py::array given = words.cast<py::array>();
  if (std::vector<py::ssize_t>(given.shape(), given.shape() + given.ndim()) != shape)
    throw py::value_error("words: shape " + shape_text(given) + " is not the result's");
  return contiguous<uint32_t>(given, "words");
}

py::object apply(int kind, const py::array& a, const py::object& second, const py::object& words, int left, int right,
                 const py::tuple& cut, bool report, const char* isa) {
  FixedCall c = call_of(cut);
  if (kind < 0 || kind > int(FixedKind::absolute)) throw py::value_error("fixed: no such operation");
  c.kind = static_cast<FixedKind>(kind);
  const bool one = c.kind >= FixedKind::keep;
  if (one != second.is_none()) throw py::value_error("fixed: wrong number of operands");
  if (left < 0 || right < 0 || left >= c.width || right >= c.width) throw py::value_error("fixed: shift outside");
  c.left = left;
  c.right = right;
  const py::array b = one ? a : second.cast<py::array>();
  c.a = word_of(a.dtype(), "a");
  c.b = word_of(b.dtype(), "b");
  expect_aligned(a, "a");
  expect_aligned(b, "b");
  const Layout l = layout_of(a, b);
  py::array out = result_of(cut, l.shape);
  py::object outside = py::none();
  uint8_t* flags = nullptr;
  if (report) {
    py::array_t<bool> made = empty<bool>(l.shape);
    flags = reinterpret_cast<uint8_t*>(made.mutable_data());
    outside = made;
  }
  const uint32_t* drawn = words_of(words, l.shape, c);
  const FixedTable& t = table<FixedTable>(isa_named(isa));
  const char *from_a = static_cast<const char*>(a.data()), *from_b = static_cast<const char*>(b.data());
  char* to = static_cast<char*>(out.mutable_data());
  const int64_t a_size = a.itemsize(), b_size = b.itemsize(), out_size = out.itemsize(), total = out.size();
  const int last = l.axes - 1;
  const int64_t inner = l.axes ? l.size[last] : 1;
  // [begin, end) of the result in C order, run by run along the last axis.
  const auto body = [&](int64_t begin, int64_t end) {
    while (begin < end) {
      int64_t rest = begin / inner, at_a = 0, at_b = 0;
      const int64_t from = begin % inner, n = std::min(end - begin, inner - from);
      for (int axis = last - 1; axis >= 0; --axis) {
        const int64_t index = rest % l.size[axis];
        rest /= l.size[axis];
        at_a += index * l.a[axis];
        at_b += index * l.b[axis];
      }
      const int64_t a_step = l.axes ? l.a[last] : 1, b_step = l.axes ? l.b[last] : 1;
      const FixedRun run{from_a + (at_a + from * a_step) * a_size,
                         one ? nullptr : from_b + (at_b + from * b_step) * b_size,
                         a_step,
                         b_step,
                         drawn ? drawn + begin : nullptr,
                         to + begin * out_size,
                         flags ? flags + begin : nullptr,
                         n};
      t.run(c, run);
      begin += n;
    }
  };
  if (total >= kWithoutGil) {
    const py::gil_scoped_release free;
    parallel_for(total, kGrain, body);
  } else if (total) {
    body(0, total);
  }
  return report ? py::object(py::make_tuple(out, outside)) : py::object(std::move(out));
}

py::object matmul(const py::array& a, const py::array& b, const py::object& words, const py::tuple& cut, bool report,
                  const char* isa) {
  FixedCall c = call_of(cut);
  expect_ndim(a, 3, "a");
  expect_ndim(b, 3, "b");
  expect_contiguous(a, "a");
  expect_contiguous(b, "b");
  expect_aligned(a, "a");
  expect_aligned(b, "b");
  const int64_t stack = std::max(a.shape(0), b.shape(0)), m = a.shape(1), k = a.shape(2), n = b.shape(2);
  if (b.shape(1) != k || (a.shape(0) != stack && a.shape(0) != 1) || (b.shape(0) != stack && b.shape(0) != 1))
    throw py::value_error("fixed: shapes " + shape_text(a) + " and " + shape_text(b) + " do not multiply");
  c.a = word_of(a.dtype(), "a");
  c.b = word_of(b.dtype(), "b");
  const std::vector<py::ssize_t> shape{stack, m, n};
  py::array out = result_of(cut, shape);
  py::object outside = py::none();
  uint8_t* flags = nullptr;
  if (report) {
    py::array_t<bool> made = empty<bool>(shape);
    flags = reinterpret_cast<uint8_t*>(made.mutable_data());
    outside = made;
  }
  const uint32_t* drawn = words_of(words, shape, c);
  const FixedTable& t = table<FixedTable>(isa_named(isa));
  const char *from_a = static_cast<const char*>(a.data()), *from_b = static_cast<const char*>(b.data());
  char* to = static_cast<char*>(out.mutable_data());
  const int64_t a_size = a.itemsize(), b_size = b.itemsize(), out_size = out.itemsize();
  const bool many_a = a.shape(0) > 1, many_b = b.shape(0) > 1;
  {
    const py::gil_scoped_release free;
    const int64_t work = std::max<int64_t>(1, k * n);
    parallel_for(n ? stack * m : 0, std::max<int64_t>(1, kGrain / work), [&](int64_t begin, int64_t end) {
      std::vector<__int128> sums(static_cast<size_t>(n));
      for (int64_t row = begin; row < end; ++row) {
        const int64_t s = row / m, i = row % m;
        const FixedRow r{from_a + ((many_a ? s : 0) * m + i) * k * a_size,
                         from_b + (many_b ? s : 0) * k * n * b_size,
                         1,
                         k,
                         drawn ? drawn + row * n : nullptr,
                         to + row * n * out_size,
                         flags ? flags + row * n : nullptr,
                         n,
                         sums.data()};
        t.row(c, r);
      }
    });
  }
  return report ? py::object(py::make_tuple(out, outside)) : py::object(std::move(out));
}

void bind(py::module_& m) {
  m.def("fixed_apply", &apply, py::arg("kind"), py::arg("a"), py::arg("b"), py::arg("words"), py::arg("left"),
        py::arg("right"), py::arg("cut"), py::arg("report"), py::arg("isa") = "",
        "One operation on fixed-point codes of any layout, cut to a result word.");
  m.def("fixed_matmul", &matmul, py::arg("a"), py::arg("b"), py::arg("words"), py::arg("cut"), py::arg("report"),
        py::arg("isa") = "", "Exact matrix products of fixed-point codes (3-d, contiguous), cut to a result word.");
}

const Binder binder(bind);

}  // namespace
}  // namespace ulpgrad
