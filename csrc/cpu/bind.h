// What a family's baseline file needs to show functions to Python: a registrar, and checks that raise teaching errors.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "isa.h"
#include "memory.h"

namespace py = pybind11;

namespace ulpgrad {

// `static const Binder binder(bind_foo);` in a family's file has bind_foo(module) called on import.
class Binder {
 public:
  using Bind = void (*)(py::module_&);
  explicit Binder(Bind bind) { all().push_back(bind); }
  static std::vector<Bind>& all();
};

// "(2, 3)"
std::string shape_text(const py::array& a);

// Raises TypeError unless `a` holds native-endian, aligned values of type T.
template <typename T>
void expect_type(const py::array& a, const char* name) {
  if (!py::isinstance<py::array_t<T>>(a)) {
    throw py::type_error(std::string(name) + ": expected " + py::str(py::dtype::of<T>()).cast<std::string>() +
                         " values, got " + py::str(a.dtype()).cast<std::string>());
  }
  if (!(a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
    throw py::value_error(std::string(name) + ": not aligned");
}

// Raises ValueError unless `a` has this shape; -1 stands for any size.
void expect_shape(const py::array& a, std::initializer_list<int64_t> shape, const char* name);

// Raises ValueError unless `a` has `ndim` axes.
void expect_ndim(const py::array& a, int64_t ndim, const char* name);

// Raises ValueError unless `a` is C-contiguous.
void expect_contiguous(const py::array& a, const char* name);

// The values of a C-contiguous array of T.
template <typename T>
const T* contiguous(const py::array& a, const char* name) {
  expect_type<T>(a, name);
  expect_contiguous(a, name);
  return static_cast<const T*>(a.data());
}

// The values of a C-contiguous array of T that is written in place; ValueError if it is read-only.
template <typename T>
T* writable(py::array& a, const char* name) {
  expect_type<T>(a, name);
  expect_contiguous(a, name);
  return static_cast<T*>(a.mutable_data());
}

// Stride of an axis, in values.
template <typename T>
int64_t stride(const py::array& a, int64_t axis) {
  return a.strides(axis) / static_cast<int64_t>(sizeof(T));
}

// A new C-contiguous array in memory of the cache (memory.h); its values are not set.
inline py::array empty(py::dtype type, const std::vector<py::ssize_t>& shape) {
  return py::reinterpret_steal<py::array>(
      new_array(type.release().ptr(), static_cast<int>(shape.size()), shape.data()).release());
}

template <typename T>
py::array_t<T> empty(const std::vector<py::ssize_t>& shape) {
  return py::reinterpret_steal<py::array_t<T>>(empty(py::dtype::of<T>(), shape).release());
}

}  // namespace ulpgrad
