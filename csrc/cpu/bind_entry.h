// Functions with Python's vector call convention, which cost a fraction of pybind11's dispatch.
#pragma once

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

}  // namespace ulpgrad
