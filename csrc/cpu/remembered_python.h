// What functions that remember their calls (remembered.cpp) know of Python: classes whose instances they make, and
// where those hold their attributes.
#pragma once

#include <Python.h>  // what structmember.h needs
#include <structmember.h>

#include "bind.h"

namespace ulpgrad {

// Where an instance of a Python class with slots holds its attributes.
struct Slots {
  PyTypeObject* type = nullptr;
  std::vector<Py_ssize_t> offsets;

  Slots() = default;
  Slots(const py::object& given, std::initializer_list<const char*> names)
      : type(reinterpret_cast<PyTypeObject*>(given.inc_ref().ptr())) {
    for (const char* name : names) {
      const py::object found = given.attr(name);
      if (Py_TYPE(found.ptr()) != &PyMemberDescr_Type)
        throw py::type_error(std::string("remember: expected a slot ") + name);
      offsets.push_back(reinterpret_cast<PyMemberDescrObject*>(found.ptr())->d_member->offset);
    }
  }
  PyObject*& at(PyObject* object, int i) const {
    return *reinterpret_cast<PyObject**>(reinterpret_cast<char*>(object) + offsets[i]);
  }
  // A new instance with these values, to which references are taken, in the order of the names.
  py::object make(std::initializer_list<PyObject*> values) const {
    PyObject* made = type->tp_alloc(type, 0);
    if (!made) throw py::error_already_set();
    int i = 0;
    for (PyObject* value : values) at(made, i++) = Py_NewRef(value);
    return py::reinterpret_steal<py::object>(made);
  }
};

// An attribute of Python objects; of instances of one class, whose descriptor gets it, the method cache is passed by.
struct Attribute {
  PyObject* name = nullptr;
  PyTypeObject* type = nullptr;
  const PyGetSetDef* how = nullptr;

  Attribute() = default;
  Attribute(const char* given, PyTypeObject* of) : name(PyUnicode_InternFromString(given)), type(of) {
    if (!name) throw py::error_already_set();
    PyObject* found = PyObject_GetAttr(reinterpret_cast<PyObject*>(of), name);  // held: the class has it for good
    if (!found) PyErr_Clear();
    if (found && Py_TYPE(found) == &PyGetSetDescr_Type) how = reinterpret_cast<PyGetSetDescrObject*>(found)->d_getset;
  }
  py::object of(PyObject* object) const {
    PyObject* found = how && Py_TYPE(object) == type ? how->get(object, how->closure) : PyObject_GetAttr(object, name);
    if (!found) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(found);
  }
};

enum TensorSlot { kStorage, kDtype, kRequiresGrad, kGrad, kNode, kCell, kHooks };

// What is known of Python.
struct Known {
  Slots tensor, saved, node, move;
  PyTypeObject* format;
  PyObject *state, *special, *recording, *sequence, *learn;
  // Of a device: the class of its arrays, what tells its number and stream, and what takes memory.
  PyTypeObject* device_array = nullptr;
  PyObject *current_device, *current_stream, *empty, *start;
  Attribute shape, strides, data, ptr, device_id;
  int captures = 0;  // of work on a device that are under way
  uint64_t age = 0;  // how often what was learnt has become void
  int learning = 0;  // functions that run now so that it is seen what their calls come to
};

inline Known& known() {
  static Known* const one = new Known;  // never freed: Python may be gone by then
  return *one;
}

inline bool is_array(PyObject* given) {
  return Py_TYPE(given) == reinterpret_cast<PyTypeObject*>(py::detail::npy_api::get().PyArray_Type_);
}

inline bool is_device_array(PyObject* given) { return Py_TYPE(given) == known().device_array; }

inline py::object call_python(PyObject* function, PyObject* const* args, size_t count, PyObject* names) {
  auto out = py::reinterpret_steal<py::object>(PyObject_Vectorcall(function, args, count, names));
  if (!out) throw py::error_already_set();
  return out;
}

}  // namespace ulpgrad
