#include "elementwise_callable.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "bind_entry.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int max_operands = 3, max_axes = 64, max_params = 4;
constexpr int64_t buffer_bytes = 4096;             // of one operand: all buffers together fit the first cache
constexpr int64_t without_gil = int64_t{1} << 14;  // elements from which releasing the GIL is worth its cost

// An operand as the loop walks over it: axes of size 1 dropped, axes that continue each other merged.
struct Walk {
  const char* data;
  int axes = 0;
  std::array<int64_t, max_axes> size, stride;

  void add(int64_t axis_size, int64_t axis_stride) {
    if (axis_size == 1) return;
    if (axes && stride[axes - 1] == axis_stride * axis_size) {
      size[axes - 1] *= axis_size;
      stride[axes - 1] = axis_stride;
    } else {
      size[axes] = axis_size;
      stride[axes++] = axis_stride;
    }
  }
  bool constant() const { return axes == 0 || (axes == 1 && stride[0] == 0); }
  bool flat(int bytes) const {
    return axes == 1 && stride[0] == bytes && reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(bytes) == 0;
  }
};

template <int bytes>
void copy_run(const char* from, int64_t stride, char* to, int64_t n) {
  if (stride == bytes) {
    std::memcpy(to, from, n * bytes);
  } else {
    for (int64_t i = 0; i < n; ++i) std::memcpy(to + i * bytes, from + i * stride, bytes);
  }
}

void copy_run(const char* from, int64_t stride, char* to, int64_t n, int bytes) {
  switch (bytes) {
    case 1:
      return copy_run<1>(from, stride, to, n);
    case 2:
      return copy_run<2>(from, stride, to, n);
    case 4:
      return copy_run<4>(from, stride, to, n);
    default:
      return copy_run<8>(from, stride, to, n);
  }
}

// Elements [begin, begin + n) of the walk, side by side.
void gather(const Walk& w, int64_t begin, int64_t n, char* to, int bytes) {
  if (w.constant()) return copy_run(w.data, 0, to, n, bytes);
  std::array<int64_t, max_axes> index;
  const char* from = w.data;
  int64_t left = begin;
  for (int axis = w.axes - 1; axis >= 0; --axis) {
    index[axis] = left % w.size[axis];
    left /= w.size[axis];
    from += index[axis] * w.stride[axis];
  }
  const int last = w.axes - 1;
  while (true) {
    const int64_t run = std::min(n, w.size[last] - index[last]);
    copy_run(from, w.stride[last], to, run, bytes);
    n -= run;
    if (!n) return;
    to += run * bytes;
    from -= index[last] * w.stride[last];
    index[last] = 0;
    for (int axis = last - 1; axis >= 0; --axis) {
      from += w.stride[axis];
      if (++index[axis] < w.size[axis]) break;
      from -= w.size[axis] * w.stride[axis];
      index[axis] = 0;
    }
  }
}

void apply(const ElementwiseCall& call, const void* const* in, void* out, int64_t n, const double* params) {
  if (call.cast) return call.cast(in[0], out, n);
  call.loop(in, out, n, params);
}

// Computes results [begin, end). Buffers hold what is not contiguous, or not of the loop's type.
void compute(const ElementwiseCall& call, const Walk* walks, char* out, int64_t begin, int64_t end,
             const double* params) {
  const int operands = static_cast<int>(call.operands.size());
  const void* in[max_operands];
  bool direct = !call.result.convert;
  for (int k = 0; k < operands; ++k) {
    const ElementType& type = call.operands[k];
    direct = direct && !type.convert && walks[k].flat(type.size);
    in[k] = walks[k].data + begin * type.size;
  }
  if (direct) return apply(call, in, out + begin * call.result.size, end - begin, params);

  alignas(64) char buffers[max_operands + 1][buffer_bytes], raw[buffer_bytes];
  int64_t chunk = buffer_bytes / call.computed_size;
  for (const ElementType& type : call.operands) chunk = std::min(chunk, buffer_bytes / type.size);
  const auto load = [&](int k, int64_t from, int64_t n) {
    const ElementType& type = call.operands[k];
    const void* values = walks[k].data + from * type.size;
    if (!walks[k].flat(type.size)) {
      char* to = type.convert ? raw : buffers[k];
      gather(walks[k], from, n, to, type.size);
      values = to;
    }
    if (type.convert) {
      type.convert(values, buffers[k], n);
      values = buffers[k];
    }
    in[k] = values;
  };
  for (int k = 0; k < operands; ++k)
    if (walks[k].constant()) load(k, 0, std::min(chunk, end - begin));
  for (int64_t from = begin; from < end; from += chunk) {
    const int64_t n = std::min(chunk, end - from);
    for (int k = 0; k < operands; ++k)
      if (!walks[k].constant()) load(k, from, n);
    char* to = out + from * call.result.size;
    apply(call, in, call.result.convert ? buffers[max_operands] : to, n, params);
    if (call.result.convert) call.result.convert(buffers[max_operands], to, n);
  }
}

py::detail::PyArray_Proxy* proxy(PyObject* array) { return py::detail::array_proxy(array); }

void check_operand(const ElementwiseCall& call, PyObject* given, size_t position) {
  const int expected = call.operands[position].number;
  std::string found;
  if (!py::detail::npy_api::get().PyArray_Check_(given)) {
    found = std::string("is of type ") + Py_TYPE(given)->tp_name;
  } else {
    const auto type = py::reinterpret_borrow<py::dtype>(proxy(given)->descr);
    if (type.num() == expected && type.byteorder() != '>') return;
    found = "holds " + py::str(type).cast<std::string>();
  }
  throw py::type_error(call.name + ": operand " + std::to_string(position + 1) + " " + found +
                       ", expected a numpy.ndarray of " + py::str(py::dtype(expected)).cast<std::string>());
}

// The shape that operands broadcast to.
int broadcast(const ElementwiseCall& call, PyObject* const* args, std::array<int64_t, max_axes>& shape) {
  int axes = 0;
  for (size_t k = 0; k < call.operands.size(); ++k) axes = std::max(axes, proxy(args[k])->nd);
  std::fill_n(shape.begin(), axes, 1);
  for (size_t k = 0; k < call.operands.size(); ++k) {
    const auto* a = proxy(args[k]);
    for (int i = 0; i < a->nd; ++i) {
      int64_t& size = shape[axes - a->nd + i];
      if (a->dimensions[i] == size || a->dimensions[i] == 1) continue;
      if (size != 1) throw py::value_error(call.name + ": shapes do not broadcast");
      size = a->dimensions[i];
    }
  }
  return axes;
}

// The order of axes, outermost first, in which the first operand of the result's shape lies in memory.
bool memory_order(const ElementwiseCall& call, PyObject* const* args, int axes, const int64_t* shape, int* order) {
  for (int i = 0; i < axes; ++i) order[i] = i;
  for (size_t k = 0; k < call.operands.size(); ++k) {
    const auto* a = proxy(args[k]);
    if (a->nd != axes || !std::equal(shape, shape + axes, a->dimensions)) continue;
    if (a->flags & py::array::c_style) return false;
    std::stable_sort(order, order + axes,
                     [&](int i, int j) { return std::abs(a->strides[i]) > std::abs(a->strides[j]); });
    return !std::is_sorted(order, order + axes);
  }
  return false;
}

py::object run(const ElementwiseCall& call, PyObject* const* args, Py_ssize_t count) {
  const size_t operands = call.operands.size();
  if (count != static_cast<Py_ssize_t>(operands) + call.params) {
    throw py::type_error(call.name + ": expected " + std::to_string(operands + call.params) + " arguments, got " +
                         std::to_string(count));
  }
  for (size_t k = 0; k < operands; ++k) check_operand(call, args[k], k);
  double params[max_params] = {};
  for (int i = 0; i < call.params; ++i) {
    params[i] = PyFloat_AsDouble(args[operands + i]);
    if (params[i] == -1.0 && PyErr_Occurred()) throw py::error_already_set();
  }

  std::array<int64_t, max_axes> shape;
  const int axes = broadcast(call, args, shape);
  int order[max_axes];
  const bool reordered = axes > 1 && memory_order(call, args, axes, shape.data(), order);
  Py_intptr_t laid_out[max_axes];
  int64_t n = 1;
  for (int i = 0; i < axes; ++i) n *= laid_out[i] = shape[reordered ? order[i] : i];

  py::object out = new_array(py::detail::npy_api::get().PyArray_DescrFromType_(call.result.number), axes, laid_out);
  if (n > 0) {
    Walk walks[max_operands];
    for (size_t k = 0; k < operands; ++k) {
      const auto* a = proxy(args[k]);
      walks[k].data = a->data;
      for (int i = 0; i < axes; ++i) {
        const int axis = (reordered ? order[i] : i) - (axes - a->nd);
        const bool stretched = axis < 0 || a->dimensions[axis] == 1;
        walks[k].add(laid_out[i], stretched ? 0 : a->strides[axis]);
      }
    }
    char* to = proxy(out.ptr())->data;
    const auto body = [&](int64_t begin, int64_t end) { compute(call, walks, to, begin, end, params); };
    if (n < without_gil) {
      body(0, n);
    } else {
      const py::gil_scoped_release released;
      parallel_for(n, call.grain, body);
    }
  }
  if (!reordered) return out;
  py::tuple back(axes);
  for (int i = 0; i < axes; ++i) back[order[i]] = py::int_(i);
  return out.attr("transpose")(back);
}

constexpr const char* capsule_name = "ulpgrad.elementwise";

PyObject* entry(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  return answer_python([&] {
    const auto* call = static_cast<const ElementwiseCall*>(PyCapsule_GetPointer(self, capsule_name));
    return run(*call, args, count);
  });
}

PyMethodDef definition = {"loop", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(entry)), METH_FASTCALL,
                          "An elementwise loop over arrays of any layout."};

void release(PyObject* capsule) { delete static_cast<ElementwiseCall*>(PyCapsule_GetPointer(capsule, capsule_name)); }

}  // namespace

py::object make_callable(std::unique_ptr<ElementwiseCall> call) {
  // A plain function with the vector call convention: a call costs a fraction of what pybind11's dispatch does.
  auto self = py::reinterpret_steal<py::object>(PyCapsule_New(call.get(), capsule_name, release));
  if (!self) throw py::error_already_set();
  call.release();
  auto function = py::reinterpret_steal<py::object>(PyCFunction_New(&definition, self.ptr()));
  if (!function) throw py::error_already_set();
  return function;
}

}  // namespace ulpgrad
