// New arrays for results, in memory of the cache (memory_cache.h).
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

namespace ulpgrad {

// A new C-contiguous array of a NumPy dtype (whose reference is taken over); its values are not set. Raises ValueError
// where its size overflows, and MemoryError, which names the size, where there is no memory for it.
pybind11::object new_array(PyObject* descr, int ndim, const Py_ssize_t* shape);

}  // namespace ulpgrad
