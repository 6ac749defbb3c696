// Rows of a table by index, and their gradient: each thread owns rows of the result, reads all indices and adds the
// rows of g that belong to its own, so each is added up in index order.
#include <algorithm>
#include <cstring>

#include "bind.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kGrain = 1 << 16;  // bytes, about 10 us: less does not pay for a thread
constexpr int64_t kWide = 16;        // values in a row: to look for shorter ones costs a thread as much as to add them

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
  const py::ssize_t shape[] = {count, weight.shape(1)};
  auto out = py::reinterpret_steal<py::array>(new_array(weight.dtype().release().ptr(), 2, shape).release());
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
    const int64_t values = count * width;
    parallel_for(rows, width < kWide ? rows : grain(sizeof(T) * values / std::max<int64_t>(1, rows)),
                 [&](int64_t begin, int64_t end) {
                   std::fill(to + begin * width, to + end * width, T{0});
                   for (int64_t i = 0; i < count; ++i) {
                     if (index[i] < begin || index[i] >= end) continue;
                     const T* row = from + i * width;
                     T* sum = to + index[i] * width;
                     for (int64_t j = 0; j < width; ++j) sum[j] += row[j];
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
