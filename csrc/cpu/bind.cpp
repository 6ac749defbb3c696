#include "bind.h"

#include <algorithm>

namespace ulpgrad {

std::vector<Binder::Bind>& Binder::all() {
  static std::vector<Bind> binders;
  return binders;
}

std::string shape_text(const py::array& a) { return py::str(py::tuple(a.attr("shape"))).cast<std::string>(); }

void expect_shape(const py::array& a, std::initializer_list<int64_t> shape, const char* name) {
  const auto fits = [axis = int64_t{0}, &a](int64_t size) mutable { return a.shape(axis++) == size || size == -1; };
  if (a.ndim() == static_cast<int64_t>(shape.size()) && std::all_of(shape.begin(), shape.end(), fits)) return;
  std::string text;
  for (const int64_t size : shape) text += (text.empty() ? "" : ", ") + (size == -1 ? "*" : std::to_string(size));
  throw py::value_error(std::string(name) + ": expected shape (" + text + "), got " + shape_text(a));
}

void expect_ndim(const py::array& a, int64_t ndim, const char* name) {
  if (a.ndim() != ndim) {
    throw py::value_error(std::string(name) + ": expected " + std::to_string(ndim) + " axes, got shape " +
                          shape_text(a));
  }
}

void expect_contiguous(const py::array& a, const char* name) {
  if (!(a.flags() & py::array::c_style)) throw py::value_error(std::string(name) + ": expected a C-contiguous array");
}

}  // namespace ulpgrad
