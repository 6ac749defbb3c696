// Functions with Python's vector call convention, which cost a fraction of pybind11's dispatch.
#pragma once

#include <memory>
#include <new>

#include "bind.h"

namespace ulpgrad {

// What body() returns, as Python takes it: what it throws becomes a Python error, and the answer null.
template <typename Body>
PyObject* answer_python(const Body& body) {
  try {
    return py::object(body()).release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

// A function that holds a State, chosen once for many calls; it finds it by `held_by`.
template <typename State>
py::object function_holding(std::unique_ptr<State> state, PyMethodDef& definition) {
  const auto free = [](PyObject* capsule) {
    delete static_cast<State*>(PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule)));
  };
  const auto self = py::reinterpret_steal<py::object>(PyCapsule_New(state.get(), definition.ml_name, free));
  if (!self) throw py::error_already_set();
  state.release();
  const auto function = py::reinterpret_steal<py::object>(PyCFunction_New(&definition, self.ptr()));
  if (!function) throw py::error_already_set();
  return function;
}

template <typename State>
const State& held_by(PyObject* self, const PyMethodDef& definition) {
  return *static_cast<const State*>(PyCapsule_GetPointer(self, definition.ml_name));
}

}  // namespace ulpgrad
