// Arrays of any of the four floating types that kernels take natively: bfloat16 is stored as uint16, float16 as
// NumPy's.
#pragma once

#include <algorithm>
#include <type_traits>

#include "bind.h"
#include "cast.h"
#include "halves.h"

namespace ulpgrad {

constexpr int kNumPyHalf = 23;  // NPY_HALF, which pybind11 does not name

// The number of the NumPy type that values of T are stored as.
template <typename T>
int type_number() {
  if constexpr (std::is_same_v<T, Float16>) {
    return kNumPyHalf;
  } else if constexpr (std::is_same_v<T, Bfloat16>) {
    return py::detail::npy_api::NPY_USHORT_;
  } else {
    return py::dtype::num_of<T>();
  }
}

// Calls body with a value of the type that a's values have; TypeError if they are none of these.
template <typename Body>
auto by_type(const py::array& a, const char* name, const Body& body) {
  switch (py::detail::array_descriptor_proxy(py::detail::array_proxy(a.ptr())->descr)->type_num) {
    case py::detail::npy_api::NPY_FLOAT_:
      return body(float{});
    case py::detail::npy_api::NPY_DOUBLE_:
      return body(double{});
    case py::detail::npy_api::NPY_USHORT_:
      return body(Bfloat16{});
    case kNumPyHalf:
      return body(Float16{});
    default:
      throw py::type_error(std::string(name) +
                           ": expected float32, float64, float16 or uint16 (bfloat16) values, got " +
                           py::str(a.dtype()).cast<std::string>());
  }
}

// The values of a C-contiguous array that holds T. TypeError or ValueError if it does not.
template <typename T>
const T* values(const py::array& a, const char* name) {
  const py::dtype type = a.dtype();
  if (type.num() != type_number<T>() || type.byteorder() == '>') {
    throw py::type_error(std::string(name) + ": expected " + py::str(py::dtype(type_number<T>())).cast<std::string>() +
                         " values, got " + py::str(type).cast<std::string>());
  }
  constexpr int wanted = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if ((a.flags() & wanted) != wanted) throw py::value_error(std::string(name) + ": expected a C-contiguous array");
  return static_cast<const T*>(a.data());
}

// The values of a C-contiguous array that holds T in this shape.
template <typename T>
const T* values(const py::array& a, std::initializer_list<int64_t> shape, const char* name) {
  expect_shape(a, shape, name);
  return values<T>(a, name);
}

// The same of size values in a row, or null for None.
template <typename T>
const T* optional_values(const py::object& a, int64_t size, const char* name) {
  return a.is_none() ? nullptr : values<T>(py::cast<py::array>(a), {size}, name);
}

// A new C-contiguous array that holds T; its values are not set.
template <typename T>
py::array empty_of(std::vector<py::ssize_t> shape) {
  return py::reinterpret_steal<py::array>(
      new_array(py::dtype(type_number<T>()).release().ptr(), static_cast<int>(shape.size()), shape.data()).release());
}

// Sums into values of T: as they are, or rounded to 16 bits.
template <typename T>
void round_into(const Wide<T>* from, T* to, int64_t n, Isa isa) {
  if constexpr (std::is_same_v<T, Bfloat16>) {
    table<CastTable>(isa).s_b(from, to, n);
  } else if constexpr (std::is_same_v<T, Float16>) {
    table<CastTable>(isa).s_h(from, to, n);
  } else {
    std::copy_n(from, n, to);
  }
}

template <typename T>
T* data_of(py::array& a) {
  return static_cast<T*>(a.mutable_data());
}

}  // namespace ulpgrad
