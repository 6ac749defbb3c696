// What reductions of floats and of integers share: an array seen as [outer, n, inner], and when threads pay.
#pragma once

#include <algorithm>
#include <vector>

#include "bind.h"

namespace ulpgrad {

constexpr int64_t kGrain = 1 << 16;       // values, about 10 us: less does not pay for a thread
constexpr int64_t kWithoutGil = 1 << 14;  // values from which releasing the GIL is worth its cost

inline int64_t steps(int64_t values_per_step) {
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, values_per_step));
}

struct ReduceShape {
  int64_t outer, n, inner;
};

// What a reduction over axes that lie side by side comes down to.
struct ReducePlan {
  ReduceShape s{1, 1, 1};
  std::vector<py::ssize_t> shape;  // of the result

  ReducePlan(const py::array& x, const py::tuple& axes, bool keepdims) {
    const int64_t ndim = x.ndim();
    uint64_t reduced = 0;  // a bit for each axis: NumPy has at most 64
    int64_t low = ndim, high = -1;
    for (const py::handle given : axes) {
      const int64_t axis = py::cast<int64_t>(given);
      if (axis < 0 || axis >= ndim)
        throw py::value_error("x: no axis " + std::to_string(axis) + " in " + shape_text(x));
      reduced |= uint64_t{1} << axis;
      if (x.shape(axis) == 1) continue;
      low = std::min(low, axis);
      high = std::max(high, axis);
    }
    for (int64_t i = 0; i < ndim; ++i) {
      const bool gone = reduced >> i & 1;
      if (low < i && i < high && !gone && x.shape(i) != 1) throw py::value_error("axis: expected axes side by side");
      (i > high ? s.inner : i < low ? s.outer : s.n) *= x.shape(i);
      if (!gone || keepdims) shape.push_back(gone ? 1 : x.shape(i));
    }
  }
};

}  // namespace ulpgrad
