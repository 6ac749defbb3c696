// Values along an axis by index, and their sums back. Threads share out lines along the axis, which do not meet, so
// every sum is made in the order of its indices. An index outside is found on the way: nothing is read there, and the
// call raises.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "bind.h"
#include "gather_lines.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kGrain = 1 << 14;  // values, about 10 us: less does not pay for a thread

// Whether the index, with negative ones counted from the end, is on the axis.
inline bool place(int64_t& index, int64_t size) {
  index += index < 0 ? size : 0;
  return static_cast<uint64_t>(index) < static_cast<uint64_t>(size);
}

// Rows begin to end of the result, each with one value per position behind the axis.
template <typename T>
bool take_rows(const T* x, const Lines& lines, const int64_t* index, int64_t count, T* out, int64_t begin,
               int64_t end) {
  const int64_t *behind = lines.behind.data(), inner = lines.inner, size = lines.size, step = lines.step;
  bool good = true;
  for (int64_t row = begin; row < end;) {
    const int64_t o = row / count, last = std::min(end, (o + 1) * count);
    const T* from = x + lines.before[static_cast<size_t>(o)];
    if (inner == 1) {
      for (; row < last; ++row) {
        int64_t k = index[row];
        const bool inside = place(k, size);
        good &= inside;
        out[row] = inside ? from[k * step] : T{};
      }
      continue;
    }
    for (; row < last; ++row) {
      for (int64_t j = 0; j < inner; ++j) {
        int64_t k = index[row * inner + j];
        const bool inside = place(k, size);
        good &= inside;
        out[row * inner + j] = inside ? from[k * step + behind[j]] : T{};
      }
    }
  }
  return good;
}

template <typename T>
void take(const py::array& x, const Lines& lines, const int64_t* index, int64_t count, py::array& out) {
  const T* from = static_cast<const T*>(x.data());
  T* to = static_cast<T*>(out.mutable_data());
  std::atomic<bool> good{true};
  {
    const py::gil_scoped_release free;
    const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, lines.inner));
    parallel_for(lines.inner ? lines.outer * count : 0, grain, [&](int64_t begin, int64_t end) {
      if (!take_rows(from, lines, index, count, to, begin, end)) good = false;
    });
  }
  if (!good) throw py::index_error("indices: one is outside");
}

py::array take_along_axis(const py::array& x, const py::array& indices, int64_t axis) {
  const Lines lines = lines_of(x, axis, "x");
  const int64_t* index = contiguous<int64_t>(indices, "indices");
  const int64_t count = indices.ndim() == x.ndim() ? indices.shape(axis) : 0;
  if (indices.ndim() != x.ndim() ||
      shape_with(x, axis, count) != std::vector<py::ssize_t>(indices.shape(), indices.shape() + indices.ndim()))
    throw py::value_error("indices: shape " + shape_text(indices) + " differs from " + shape_text(x) +
                          " beside the axis");
  if (std::strchr("biuf", x.dtype().kind()) == nullptr) throw py::type_error("x: expected plain numbers");
  const std::vector<py::ssize_t> shape = shape_with(x, axis, count);
  py::array out = empty(x.dtype(), shape);
  switch (x.itemsize()) {
    case 1:
      take<uint8_t>(x, lines, index, count, out);
      break;
    case 2:
      take<uint16_t>(x, lines, index, count, out);
      break;
    case 4:
      take<uint32_t>(x, lines, index, count, out);
      break;
    case 8:
      take<uint64_t>(x, lines, index, count, out);
      break;
    default:
      throw py::type_error("x: expected values of 1, 2, 4 or 8 bytes");
  }
  return out;
}

// Lines begin to end: all their values of g, in the order of the axis, added to zeros.
template <typename T>
bool add_lines(const T* g, const int64_t* index, T* out, int64_t count, int64_t size, int64_t inner, int64_t begin,
               int64_t end) {
  bool good = true;
  for (int64_t line = begin; line < end;) {
    const int64_t o = line / inner, first = line - o * inner, last = std::min(inner, end - o * inner);
    T* to = out + o * size * inner;
    if (last - first == inner) {
      std::fill(to, to + size * inner, T{});
    } else {
      for (int64_t k = 0; k < size; ++k) std::fill(to + k * inner + first, to + k * inner + last, T{});
    }
    if (inner == 1) {
      for (int64_t i = o * count; i < (o + 1) * count; ++i) {
        int64_t k = index[i];
        if (place(k, size))
          to[k] = static_cast<T>(to[k] + g[i]);
        else
          good = false;
      }
    } else {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t row = (o * count + i) * inner;
        for (int64_t j = first; j < last; ++j) {
          int64_t k = index[row + j];
          if (place(k, size))
            to[k * inner + j] = static_cast<T>(to[k * inner + j] + g[row + j]);
          else
            good = false;
        }
      }
    }
    line = o * inner + last;
  }
  return good;
}

template <typename T>
py::array add(const py::array& g, const py::array& indices, int64_t axis, int64_t size) {
  const T* from = static_cast<const T*>(g.data());
  const int64_t* index = contiguous<int64_t>(indices, "indices");
  const std::vector<py::ssize_t> shape = shape_with(g, axis, size);
  py::array out = empty(g.dtype(), shape);
  T* to = static_cast<T*>(out.mutable_data());
  const int64_t count = g.shape(axis);
  int64_t outer = 1, inner = 1;
  for (int64_t i = 0; i < g.ndim(); ++i)
    if (i != axis) (i < axis ? outer : inner) *= g.shape(i);
  std::atomic<bool> good{true};
  {
    const py::gil_scoped_release free;
    const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, count + size));
    parallel_for(outer * inner, grain, [&](int64_t begin, int64_t end) {
      if (!add_lines(from, index, to, count, size, inner, begin, end)) good = false;
    });
  }
  if (!good) throw py::index_error("indices: one is outside");
  return out;
}

py::array scatter_add(const py::array& g, const py::array& indices, int64_t axis, int64_t size) {
  if (axis < 0 || axis >= g.ndim())
    throw py::value_error("g: no axis " + std::to_string(axis) + " in " + shape_text(g));
  if (size < 0) throw py::value_error("size: expected at least 0, got " + std::to_string(size));
  if (indices.ndim() != g.ndim() || !std::equal(g.shape(), g.shape() + g.ndim(), indices.shape()))
    throw py::value_error("indices: expected shape " + shape_text(g) + ", got " + shape_text(indices));
  expect_contiguous(g, "g");
  if (!(g.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) throw py::value_error("g: not aligned");
  const char kind = g.dtype().kind();
  if (py::isinstance<py::array_t<float>>(g)) return add<float>(g, indices, axis, size);
  if (py::isinstance<py::array_t<double>>(g)) return add<double>(g, indices, axis, size);
  if (kind != 'i' && kind != 'u') throw py::type_error("g: expected float32, float64 or integers");
  switch (g.itemsize()) {  // unsigned: sums wrap
    case 1:
      return add<uint8_t>(g, indices, axis, size);
    case 2:
      return add<uint16_t>(g, indices, axis, size);
    case 4:
      return add<uint32_t>(g, indices, axis, size);
    default:
      return add<uint64_t>(g, indices, axis, size);
  }
}

void bind(py::module_& m) {
  m.def("take_along_axis", &take_along_axis, py::arg("x"), py::arg("indices"), py::arg("axis"),
        "x's values along an axis at int64 indices of x's shape beside it; IndexError for one outside.");
  m.def(
      "scatter_add", &scatter_add, py::arg("g"), py::arg("indices"), py::arg("axis"), py::arg("size"),
      "Sums of g where take_along_axis with these indices reads, on an axis of this size; IndexError for one outside.");
}

const Binder binder(bind);

}  // namespace
}  // namespace ulpgrad
