// Stacks of matrices as matmul takes them: leading axes broadcast, and any strides.
#pragma once

#include <algorithm>

#include "bind.h"

namespace ulpgrad {

// Values from the start of operand `x` to its matrix of each batch; axes of size 1 are repeated. The result is made
// first: where memory cannot hold it, these may be as many.
inline std::vector<int64_t> batch_offsets(const py::array& x, const std::vector<py::ssize_t>& batch) {
  std::vector<int64_t> offsets{0};
  const int64_t missing = static_cast<int64_t>(batch.size()) - (x.ndim() - 2);
  for (int64_t axis = 0; axis < static_cast<int64_t>(batch.size()); ++axis) {
    const bool moves = axis >= missing && x.shape(axis - missing) != 1;
    const int64_t step = moves ? x.strides(axis - missing) / x.itemsize() : 0;
    std::vector<int64_t> finer;
    finer.reserve(offsets.size() * batch[axis]);
    for (const int64_t from : offsets)
      for (int64_t i = 0; i < batch[axis]; ++i) finer.push_back(from + i * step);
    offsets = std::move(finer);
  }
  return offsets;
}

inline std::vector<py::ssize_t> batch_shape(const py::array& a, const py::array& b) {
  const int64_t na = a.ndim() - 2, nb = b.ndim() - 2, n = std::max(na, nb);
  std::vector<py::ssize_t> shape(n);
  for (int64_t axis = 0; axis < n; ++axis) {
    const int64_t x = axis - (n - na) >= 0 ? a.shape(axis - (n - na)) : 1;
    const int64_t y = axis - (n - nb) >= 0 ? b.shape(axis - (n - nb)) : 1;
    if (x != y && x != 1 && y != 1)
      throw py::value_error("matmul: batches do not broadcast: " + shape_text(a) + " @ " + shape_text(b));
    shape[axis] = x == 1 ? y : x;
  }
  return shape;
}

inline std::vector<py::ssize_t> result_shape(std::vector<py::ssize_t> batch, int64_t m, int64_t n) {
  batch.push_back(m), batch.push_back(n);
  return batch;
}

// The array itself, or a copy where its values are not aligned or not a whole number of values apart (as in the fields
// of a structured array).
inline py::array usable(const py::array& x) {
  bool whole = x.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  for (int64_t axis = 0; axis < x.ndim(); ++axis) whole = whole && x.strides(axis) % x.itemsize() == 0;
  return whole ? x : py::array(x.attr("copy")());
}

}  // namespace ulpgrad
