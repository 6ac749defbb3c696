#include "remembered_script.h"

#include <pybind11/stl.h>

#include <cstring>
#include <string>

namespace ulpgrad {
namespace {

constexpr size_t kMostArrays = 64, kMostParameters = 128;

// CUlaunchConfig of the driver.
struct Config {
  unsigned grid[3], block[3], shared;
  void *stream, *attributes;
  unsigned count;
};

bool launch_directly(const Script::Launch& step, const uint64_t* addresses, uint64_t stream) {
  const size_t count = step.words.size();
  uint64_t words[kMostParameters];
  void* parameters[kMostParameters];
  for (size_t i = 0; i < count; ++i) {
    words[i] = step.places[i] < 0 ? step.words[i] : addresses[step.places[i]];
    parameters[i] = &words[i];
  }
  const Config config{{step.sizes[0], step.sizes[1], step.sizes[2]},
                      {step.threads, 1, 1},
                      step.shared,
                      reinterpret_cast<void*>(stream),
                      nullptr,
                      0};
  PyThreadState* state = PyEval_SaveThread();  // the driver waits where its queue is full
  const int status = step.driver(&config, step.function, parameters, nullptr);
  PyEval_RestoreThread(state);
  return status == 0;
}

void launch(const Script::Launch& step, PyObject* const* arrays, const uint64_t* addresses, PyObject* stream) {
  std::vector<py::object> values, given;
  for (const auto& [number, value] : step.arguments) {
    if (number < 0) {
      values.push_back(value);
    } else if (value.is_none()) {
      values.push_back(py::int_(addresses[number]));
    } else {
      values.push_back(call_python(value.ptr(), arrays + number, 1, nullptr));
    }
  }
  for (const py::handle size : step.grid) given.push_back(py::reinterpret_borrow<py::object>(size));
  given.push_back(py::reinterpret_borrow<py::object>(stream));
  for (const py::handle one : step.before) given.push_back(py::reinterpret_borrow<py::object>(one));
  if (step.together) {
    py::tuple all(values.size());
    for (size_t i = 0; i < values.size(); ++i) all[i] = values[i];
    given.push_back(all);
  } else {
    given.insert(given.end(), values.begin(), values.end());
  }
  std::vector<PyObject*> all;
  for (const py::object& one : given) all.push_back(one.ptr());
  call_python(step.call.ptr(), all.data(), all.size(), nullptr);
}

// What the driver's function is called with: where to find it, the kernel, threads, shared memory, and types of the
// parameters. Of a whole number it reads as many of the word's low bytes as it needs.
void take_packed(Script::Launch& step, const py::tuple& packed) {
  for (int i = 0; i < 3; ++i) step.sizes[i] = step.grid[i].cast<unsigned>();
  step.function = reinterpret_cast<void*>(packed[1].cast<uint64_t>());
  step.threads = packed[2].cast<unsigned>(), step.shared = packed[3].cast<unsigned>();
  size_t i = 0;
  for (const py::handle type : py::tuple(packed[4])) {
    const auto& [number, value] = step.arguments.at(i++);
    const auto name = type.cast<std::string>();
    if (name == "constexpr") continue;
    uint64_t word = 0;
    if (number >= 0) {
    } else if (name == "fp32") {
      const auto single = static_cast<float>(value.cast<double>());
      std::memcpy(&word, &single, sizeof single);
    } else if (name == "fp64") {
      const auto wide = value.cast<double>();
      std::memcpy(&word, &wide, sizeof wide);
    } else {
      word = PyLong_AsUnsignedLongLongMask(value.ptr());
      if (PyErr_Occurred()) throw py::error_already_set();
    }
    step.words.push_back(word), step.places.push_back(number);
  }
  for (int scratch = 0; scratch < 2; ++scratch) step.words.push_back(0), step.places.push_back(-1);
  if (step.words.size() <= kMostParameters)
    step.driver = reinterpret_cast<decltype(step.driver)>(packed[0].cast<uint64_t>());
}

// New memory: as `gpu.py` takes it, without its frame.
py::object new_array(PyObject* shape, PyObject* type) {
  const Known& k = known();
  PyObject* how[] = {nullptr, shape, type};
  if (!k.start) return call_python(k.empty, how + 1, 2, nullptr);
  const py::tuple nothing;
  auto made =
      py::reinterpret_steal<py::object>(k.device_array->tp_base->tp_new(k.device_array, nothing.ptr(), nullptr));
  if (!made) throw py::error_already_set();
  how[0] = made.ptr();
  call_python(k.start, how, 3, nullptr);
  return made;
}

}  // namespace

bool Script::run(PyObject* const* operands, const uint64_t* given, size_t count, py::object* outs,
                 uint64_t* places) const {
  const Known& k = known();
  if (count + made.size() > kMostArrays) return false;
  try {
    const auto current = call_python(k.current_device, nullptr, 0, nullptr);
    if (PyLong_AsLong(current.ptr()) != device) return false;
    PyObject* arrays[kMostArrays];
    uint64_t addresses[kMostArrays];
    std::copy(operands, operands + count, arrays);
    std::copy(given, given + count, addresses);
    std::vector<py::object> fresh;
    fresh.reserve(made.size());
    for (const auto& [shape, type] : made) {
      fresh.push_back(new_array(shape.ptr(), type.ptr()));
      const size_t i = count + fresh.size() - 1;
      arrays[i] = fresh.back().ptr(), addresses[i] = address_of(arrays[i]);
      if (!is_aligned(addresses[i])) return false;  // kernels were compiled for memory that is
    }
    const auto stream = k.ptr.of(call_python(k.current_stream, nullptr, 0, nullptr).ptr());
    for (const Launch& step : launches) {
      if (!step.driver) {
        launch(step, arrays, addresses, stream.ptr());
      } else if (!launch_directly(step, addresses, PyLong_AsUnsignedLongLongMask(stream.ptr()))) {
        return false;
      }
    }
    for (const int i : results) *outs++ = fresh[i - count], *places++ = addresses[i];
    return true;
  } catch (py::error_already_set& error) {  // memory has run out, for one: the rung sees to it
    if (!error.matches(PyExc_Exception)) throw;
    return false;
  }
}

void Script::take(const py::tuple& found) {
  for (const py::handle one : py::tuple(found[0])) {
    const auto pair = py::reinterpret_borrow<py::tuple>(one);
    made.emplace_back(pair[0], pair[1]);
  }
  for (const py::handle one : py::tuple(found[1])) {
    const auto step = py::reinterpret_borrow<py::tuple>(one);
    Launch launch;
    launch.call = step[0], launch.grid = step[1], launch.before = step[2], launch.together = step[4].cast<bool>();
    for (const py::handle given : py::tuple(step[3])) {
      const auto pair = py::reinterpret_borrow<py::tuple>(given);
      launch.arguments.emplace_back(pair[0].cast<int>(), pair[1]);
    }
    if (!step[5].is_none()) take_packed(launch, step[5]);
    launches.push_back(std::move(launch));
  }
  results = found[2].cast<std::vector<int>>();
  device = found[3].cast<int>();
}

}  // namespace ulpgrad
