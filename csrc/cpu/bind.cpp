#include "bind.h"

namespace ulpgrad {

std::vector<Binder::Bind>& Binder::all() {
  static std::vector<Bind> binders;
  return binders;
}

std::string shape_text(const py::array& a) { return py::str(py::tuple(a.attr("shape"))).cast<std::string>(); }

void expect_shape(const py::array& a, std::initializer_list<int64_t> shape, const char* name) {
  bool same = a.ndim() == static_cast<int64_t>(shape.size());
  std::string text;
  int64_t axis = 0;
  for (const int64_t size : shape) {
    same = same && (size == -1 || a.shape(axis) == size);
    text += (axis++ ? ", " : "") + (size == -1 ? "*" : std::to_string(size));
  }
  if (!same) throw py::value_error(std::string(name) + ": expected shape (" + text + "), got " + shape_text(a));
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
