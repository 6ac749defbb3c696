// Rows of a table by index, and their gradient: a stable counting sort tells each row of the result which rows of g it
// is the sum of, so rows can be shared out over threads and each is added up in index order.
#include <algorithm>
#include <cstring>
#include <memory>

#include "bind.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kGrain = 1 << 16;  // bytes, about 10 us: less does not pay for a thread

int64_t grain(int64_t bytes) { return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, bytes)); }

const int64_t* indices_of(const py::array& indices, int64_t rows) {
  expect_ndim(indices, 1, "indices");
  const int64_t *index = contiguous<int64_t>(indices, "indices"), count = indices.size();
  for (int64_t i = 0; i < count; ++i)
    if (static_cast<uint64_t>(index[i]) >= static_cast<uint64_t>(rows))
      throw py::value_error("indices[" + std::to_string(i) + "] = " + std::to_string(index[i]) + " is not a row");
  return index;
}

py::array embedding(const py::array& weight, const py::array& indices) {
  expect_ndim(weight, 2, "weight");
  expect_contiguous(weight, "weight");
  if (std::strchr("biuf", weight.dtype().kind()) == nullptr) throw py::type_error("weight: expected plain numbers");
  const int64_t* index = indices_of(indices, weight.shape(0));
  const int64_t count = indices.size(), bytes = weight.shape(1) * weight.itemsize();
  py::array out(weight.dtype(), std::vector<py::ssize_t>{count, weight.shape(1)});
  const char* from = static_cast<const char*>(weight.data());
  char* to = static_cast<char*>(out.mutable_data());
  {
    const py::gil_scoped_release free;
    parallel_for(count, grain(bytes), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        std::memcpy(to + i * bytes, from + index[i] * bytes, static_cast<size_t>(bytes));
    });
  }
  return out;
}

template <typename T>
py::array gradient_of(const py::array& g, const py::array& indices, int64_t rows) {
  expect_ndim(g, 2, "g");
  const int64_t count = g.shape(0), width = g.shape(1);
  const T* from = contiguous<T>(g, "g");
  const int64_t* index = indices_of(indices, rows);
  expect_shape(indices, {count}, "indices");
  py::array_t<T> out = empty<T>({rows, width});
  T* to = out.mutable_data();
  {
    const py::gil_scoped_release free;
    // ends[r] first counts index r, then is where its positions begin, and at last where they end.
    const std::unique_ptr<int64_t[]> ends(new int64_t[static_cast<size_t>(rows)]()),
        order(new int64_t[static_cast<size_t>(count)]);
    for (int64_t i = 0; i < count; ++i) ++ends[index[i]];
    for (int64_t r = 0, total = 0; r < rows; ++r) {
      const int64_t begin = total;
      total += ends[r];
      ends[r] = begin;
    }
    for (int64_t i = 0; i < count; ++i) order[ends[index[i]]++] = i;
    const int64_t work = static_cast<int64_t>(sizeof(T)) * width * (1 + count / std::max<int64_t>(1, rows));
    parallel_for(rows, grain(work), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        T* sum = to + r * width;
        for (int64_t j = 0; j < width; ++j) sum[j] = 0;
        for (int64_t k = r ? ends[r - 1] : 0; k < ends[r]; ++k) {
          const T* row = from + order[k] * width;
          for (int64_t j = 0; j < width; ++j) sum[j] += row[j];
        }
      }
    });
  }
  return out;
}

py::array embedding_gradient(const py::array& g, const py::array& indices, int64_t rows) {
  if (rows < 0) throw py::value_error("rows: expected at least 0, got " + std::to_string(rows));
  if (py::isinstance<py::array_t<double>>(g)) return gradient_of<double>(g, indices, rows);
  return gradient_of<float>(g, indices, rows);
}

void bind_embedding(py::module_& m) {
  m.def("embedding", &embedding, py::arg("weight"), py::arg("indices"), "weight[indices], for int64 indices[n].");
  m.def("embedding_gradient", &embedding_gradient, py::arg("g"), py::arg("indices"), py::arg("rows"),
        "The sum of the rows of g for each index: [rows, width].");
}

const Binder binder(bind_embedding);

}  // namespace
}  // namespace ulpgrad
