// Binary search without branches, for a block of values in step with each other: their loads from memory overlap.
#include <algorithm>

#include "order.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kGrain = 1 << 12;  // searches, tens of us: fewer do not pay for a thread
constexpr int64_t kBlock = 16;       // searches in step

template <bool right, typename T>
inline bool enters_behind(T there, T value) {
  return right ? there <= value : there < value;
}

// Positions of `count` <= kBlock values, none NaN, in n sorted ones.
template <bool right, typename T>
void search_block(const T* sorted, int64_t n, const T* values, int64_t count, int64_t* out) {
  T value[kBlock] = {};
  int64_t at[kBlock] = {};
  std::copy(values, values + count, value);
  if (n > 0) {
    for (int64_t rest = n; rest > 1;) {
      const int64_t half = rest / 2;
      for (int64_t j = 0; j < kBlock; ++j)
        at[j] += half & -static_cast<int64_t>(enters_behind<right>(sorted[at[j] + half - 1], value[j]));
      rest -= half;
    }
    for (int64_t j = 0; j < kBlock; ++j) at[j] += enters_behind<right>(sorted[at[j]], value[j]);
  }
  std::copy(at, at + count, out);
}

template <bool right, typename T>
void search(const T* sorted, int64_t n, const T* values, int64_t count, int64_t* out) {
  int64_t numbers = n;  // NaN stand last
  if constexpr (std::is_floating_point_v<T>)
    numbers = std::partition_point(sorted, sorted + n, [](T v) { return v == v; }) - sorted;
  parallel_for((count + kBlock - 1) / kBlock, kGrain / kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin * kBlock; first < std::min(count, end * kBlock); first += kBlock) {
      const int64_t these = std::min(kBlock, count - first);
      search_block<right>(sorted, numbers, values + first, these, out + first);
      for (int64_t j = first; j < first + these; ++j)
        if (values[j] != values[j]) out[j] = right ? n : numbers;
    }
  });
}

py::array searchsorted(const py::array& sorted, const py::array& values, bool right) {
  expect_ndim(sorted, 1, "sorted");
  if (!sorted.dtype().is(values.dtype())) throw py::type_error("values: expected the type of sorted");
  py::array_t<int64_t> out = empty<int64_t>({values.shape(), values.shape() + values.ndim()});
  int64_t* to = out.mutable_data();
  with_ordered(sorted, "sorted", [&](auto of) {
    using T = decltype(of);
    expect_contiguous(sorted, "sorted");
    expect_contiguous(values, "values");
    if (!(sorted.flags() & values.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
      throw py::value_error("sorted, values: not aligned");
    const T *from = static_cast<const T*>(sorted.data()), *wanted = static_cast<const T*>(values.data());
    const int64_t n = sorted.size(), count = values.size();
    const py::gil_scoped_release free;
    right ? search<true>(from, n, wanted, count, to) : search<false>(from, n, wanted, count, to);
  });
  return out;
}

void bind(py::module_& m) {
  m.def("searchsorted", &searchsorted, py::arg("sorted"), py::arg("values"), py::arg("right"),
        "int64 positions where values enter a sorted array, before or (right) behind equal ones; NaN is the largest.");
}

const Binder binder(bind);

}  // namespace
}  // namespace ulpgrad
