// The table of kernels for Python, as ulpgrad._cuda: pointers are addresses, structures are bytes.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <iterator>
#include <sstream>
#include <stdexcept>

#include "table.h"

namespace py = pybind11;

namespace ulpgrad::cuda {

namespace {

template <class T>
std::string bytes_of(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

// An argument as the bytes of a parameter of this kind, as in "i4".
std::string packed(const py::handle& value, const std::string& kind) {
  const size_t size = std::stoul(kind.substr(1));
  switch (kind[0]) {
    case 'p':
      return bytes_of(value.is_none() ? uintptr_t{0} : value.cast<uintptr_t>());
    case 'f':
      return size == 4 ? bytes_of(value.cast<float>()) : bytes_of(value.cast<double>());
    case 'i':
      return bytes_of(value.cast<int64_t>()).substr(0, size);  // the low bytes stand first
  }
  const std::string structure = value.cast<py::bytes>();
  if (structure.size() != size) {
    throw std::invalid_argument("a structure of " + std::to_string(structure.size()) + " bytes: expected " +
                                kind.substr(1));
  }
  return structure;
}

void launch_by_name(const std::string& name, const Size& grid, const Size& block, const py::sequence& arguments,
                    size_t shared, uintptr_t stream) {
  const Entry& entry = find(name);
  std::istringstream words(entry.kinds);
  const std::vector<std::string> kinds{std::istream_iterator<std::string>(words), {}};
  if (kinds.size() != arguments.size()) {
    throw std::invalid_argument(name + " takes " + entry.kinds + ", not " + std::to_string(arguments.size()) +
                                " arguments");
  }
  std::vector<std::string> values;
  for (size_t i = 0; i < kinds.size(); ++i) values.push_back(packed(arguments[i], kinds[i]));
  std::vector<void*> addresses;
  for (std::string& one : values) addresses.push_back(one.data());
  launch(entry, grid, block, shared, addresses.data(), reinterpret_cast<void*>(stream));
}

}  // namespace

}  // namespace ulpgrad::cuda

PYBIND11_MODULE(_cuda, m) {
  using namespace ulpgrad::cuda;
  m.doc() = "CUDA kernels that nvcc built: see csrc/cuda/entry/table.h.";
  m.def(
      "kernels",
      [] {
        py::dict found;
        for (const Entry& one : entries()) found[py::str(one.name)] = one.kinds;
        return found;
      },
      "The kinds of each kernel's parameters, as in 'p8 i4 f4 s80': pointer, integer, float, structure, and its "
      "bytes.");
  m.def("launch", &launch_by_name, py::arg("name"), py::arg("grid"), py::arg("block"), py::arg("arguments"),
        py::arg("shared") = 0, py::arg("stream") = 0,
        "Launch a kernel on addresses, numbers and the bytes of structures, on the stream of that address.");
}
