// The arguments of a call in words: two calls with the same words come to the same.
#pragma once

#include <algorithm>
#include <cstring>

#include "remembered_script.h"

namespace ulpgrad {

constexpr int kMostWords = 256, kMostOperands = 16;

// A call is one of tensors, or of lists or tuples of tensors, and of values that cannot change.
class Key {
 public:
  uint64_t words[kMostWords];
  int size = 0;
  PyObject* kept[kMostWords];
  int kept_size = 0;
  bool recorded = false;             // whether an operand requires a gradient
  PyObject* tensors[kMostOperands];  // among the arguments, one that comes again included
  int tensors_size = 0;
  uint64_t addresses[kMostOperands];        // of those on a device
  bool learns_devices = true;               // whether calls on a device are looked at
  bool on_host = false, on_device = false;  // where operands lie

  bool add(uint64_t word) {
    if (size == kMostWords) return false;
    words[size++] = word;
    return true;
  }
  // By address: the same object, which is kept as long as the key.
  bool add_object(PyObject* given) {
    kept[kept_size++] = given;  // there are no more than words
    return add(reinterpret_cast<uintptr_t>(given));
  }
  bool add_argument(PyObject* given) {
    PyTypeObject* type = Py_TYPE(given);
    if (type == known().tensor.type || PyType_IsSubtype(type, known().tensor.type)) return add_tensor(given);
    if (type != &PyList_Type && type != &PyTuple_Type) return add_value(given);
    const bool is_list = type == &PyList_Type;
    const Py_ssize_t items = PySequence_Fast_GET_SIZE(given);
    if (!add(6 | is_list << 4 | static_cast<uint64_t>(items) << 8)) return false;
    for (Py_ssize_t i = 0; i < items; ++i)
      if (!add_argument(PySequence_Fast_GET_ITEM(given, i))) return false;
    return true;
  }
  uint64_t hash() const {
    uint64_t h = 0x9e3779b97f4a7c15u;
    for (int i = 0; i < size; ++i) h = (h ^ words[i]) * 0xff51afd7ed558ccdu, h ^= h >> 29;
    return h;
  }
  bool is(const std::vector<uint64_t>& other) const {
    return other.size() == static_cast<size_t>(size) && std::equal(words, words + size, other.data());
  }

 private:
  bool add_tensor(PyObject* given) {
    const Slots& slots = known().tensor;
    const int before = static_cast<int>(std::find(tensors, tensors + tensors_size, given) - tensors);
    if (tensors_size == kMostOperands) return false;
    tensors[tensors_size++] = given;
    if (before < tensors_size - 1) {  // one twice is not two
      addresses[tensors_size - 1] = addresses[before];
      return add(static_cast<uint64_t>(before) << 8 | 8);
    }
    PyObject *storage = slots.at(given, kStorage), *dtype = slots.at(given, kDtype);
    PyObject* wanted = slots.at(given, kRequiresGrad);
    if (!storage || !dtype || !wanted) return false;
    if (is_device_array(storage)) return add_device_array(storage, dtype, wanted == Py_True);
    if (!is_array(storage)) return false;
    on_host = true;
    const auto* a = py::detail::array_proxy(storage);
    recorded = recorded || wanted == Py_True;
    const uint64_t flags = static_cast<uint64_t>(a->flags) << 16 | static_cast<uint64_t>(a->nd) << 8;
    if (!add(flags | (wanted == Py_True) << 4 | 1) || !add_object(dtype)) return false;
    for (int i = 0; i < a->nd; ++i)
      if (!add(static_cast<uint64_t>(a->dimensions[i])) || !add(static_cast<uint64_t>(a->strides[i]))) return false;
    return true;
  }
  // Beside the layout, what a kernel is compiled for, and which arrays are the same: a script tells them apart.
  bool add_device_array(PyObject* storage, PyObject* dtype, bool wanted) {
    const Known& k = known();
    if (k.captures || !learns_devices) return false;
    on_device = true, recorded = recorded || wanted;
    const py::object shape = k.shape.of(storage), strides = k.strides.of(storage), data = k.data.of(storage);
    const uint64_t axes = PyTuple_GET_SIZE(shape.ptr());
    const uint64_t number = PyLong_AsUnsignedLongLongMask(k.device_id.of(data.ptr()).ptr());
    const uint64_t address = PyLong_AsUnsignedLongLongMask(k.ptr.of(data.ptr()).ptr());
    addresses[tensors_size - 1] = address;
    uint64_t same = 0;
    while (known().tensor.at(tensors[same], kStorage) != storage) ++same;
    if (!add(number << 32 | same << 16 | axes << 8 | is_aligned(address) << 5 | wanted << 4 | 10) || !add_object(dtype))
      return false;
    for (uint64_t i = 0; i < axes; ++i)
      if (!add(PyLong_AsLongLong(PyTuple_GET_ITEM(shape.ptr(), i))) ||
          !add(PyLong_AsLongLong(PyTuple_GET_ITEM(strides.ptr(), i))))
        return false;
    return true;
  }
  // None, `...`, a bool, a number, a text, a Format, or a slice.
  bool add_value(PyObject* given) {
    PyTypeObject* type = Py_TYPE(given);
    if (given == Py_None || given == Py_True || given == Py_False || given == Py_Ellipsis)
      return add(2) && add_object(given);
    if (type == &PyLong_Type) {
      int overflow;
      const long long value = PyLong_AsLongLongAndOverflow(given, &overflow);
      return !overflow && add(3) && add(static_cast<uint64_t>(value));
    }
    if (type == &PyFloat_Type) {
      uint64_t bits;
      const double value = PyFloat_AS_DOUBLE(given);
      std::memcpy(&bits, &value, sizeof bits);
      return add(4) && add(bits);
    }
    if (type == &PyUnicode_Type) return add(5) && add_object(given);
    if (type == &PySlice_Type) {
      const auto* slice = reinterpret_cast<PySliceObject*>(given);
      return add(9) && add_value(slice->start) && add_value(slice->stop) && add_value(slice->step);
    }
    return PyType_IsSubtype(type, known().format) && add(7) && add_object(given);
  }
};

}  // namespace ulpgrad
