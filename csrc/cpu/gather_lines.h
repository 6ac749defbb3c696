// An array of any strides, seen as lines along one axis.
#pragma once

#include "bind.h"

namespace ulpgrad {

struct Lines {
  int64_t outer = 1, size = 1, inner = 1;  // positions before the axis, on it, and behind it
  int64_t step = 0;                        // between neighbours of a line, in values
  std::vector<int64_t> before{0}, behind{0};

  // Where line (o, i) begins, in values.
  int64_t start(int64_t o, int64_t i) const { return before[static_cast<size_t>(o)] + behind[static_cast<size_t>(i)]; }
};

// Raises ValueError unless `a` has this axis, and unless its values can be read one by one.
inline Lines lines_of(const py::array& a, int64_t axis, const char* name) {
  if (axis < 0 || axis >= a.ndim())
    throw py::value_error(std::string(name) + ": no axis " + std::to_string(axis) + " in shape " + shape_text(a));
  if (!(a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
    throw py::value_error(std::string(name) + ": not aligned");
  Lines lines;
  for (int64_t i = 0; i < a.ndim(); ++i) {
    const int64_t size = a.shape(i), stride = size > 1 ? a.strides(i) / a.itemsize() : 0;
    if (i == axis) {
      lines.size = size;
      lines.step = stride;
      continue;
    }
    std::vector<int64_t>& starts = i < axis ? lines.before : lines.behind;
    (i < axis ? lines.outer : lines.inner) *= size;
    std::vector<int64_t> wider;
    wider.reserve(starts.size() * static_cast<size_t>(size));
    for (const int64_t start : starts)
      for (int64_t k = 0; k < size; ++k) wider.push_back(start + k * stride);
    starts.swap(wider);
  }
  return lines;
}

// The shape of an array with another size on an axis.
inline std::vector<py::ssize_t> shape_with(const py::array& a, int64_t axis, int64_t size) {
  std::vector<py::ssize_t> shape(a.shape(), a.shape() + a.ndim());
  shape[static_cast<size_t>(axis)] = size;
  return shape;
}

}  // namespace ulpgrad
