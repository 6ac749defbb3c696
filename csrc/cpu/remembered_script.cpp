#include "remembered_script.h"

#include <pybind11/stl.h>

#include <cstring>
#include <string>

namespace ulpgrad {
namespace {

constexpr size_t kMostArrays = 64, kMostParameters = 128, kMostMaps = 6;

// CUlaunchConfig of the driver.
struct Config {
  unsigned grid[3], block[3], shared;
  void *stream, *attributes;
  unsigned count;
};

bool launch_directly(const Script::Launch& step, const uint64_t* addresses, uint64_t stream) {
  alignas(64) char maps[kMostMaps][128];
  for (size_t i = 0; i < step.maps.size(); ++i) {
    const Script::Map& map = step.maps[i];
    constexpr uint32_t steps[] = {1, 1, 1, 1, 1};
    constexpr int promotion = 2;  // to 128 bytes of the L2 cache, as Triton has it
    if (step.describe(maps[i], map.type, static_cast<uint32_t>(map.sizes.size()),
                      reinterpret_cast<void*>(addresses[map.array]), map.sizes.data(), map.strides.data(),
                      map.block.data(), steps, 0, map.swizzle, promotion, 0))
      return false;
  }
  const size_t count = step.words.size();
  uint64_t words[kMostParameters];
  void* parameters[kMostParameters];
  for (size_t i = 0; i < count; ++i) {
    const int place = step.places[i];
    words[i] = place < 0 ? step.words[i] : addresses[place];
    parameters[i] = place < -1 ? static_cast<void*>(maps[-2 - place]) : &words[i];
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

// A number as a parameter of Triton's type; of a whole number the driver reads as many low bytes as it needs.
uint64_t word_of(const py::object& value, const std::string& type) {
  uint64_t word = 0;
  if (type == "fp32") {
    const auto single = static_cast<float>(value.cast<double>());
    std::memcpy(&word, &single, sizeof single);
  } else if (type == "fp64") {
    const auto wide = value.cast<double>();
    std::memcpy(&word, &wide, sizeof wide);
  } else {
    word = PyLong_AsUnsignedLongLongMask(value.ptr());
    if (PyErr_Occurred()) throw py::error_already_set();
  }
  return word;
}

// What the driver's function is called with: where to find it, the kernel, threads, shared memory, and types of the
// parameters.
void take_packed(Script::Launch& step, const py::tuple& packed, const py::tuple& maps) {
  for (int i = 0; i < 3; ++i) step.sizes[i] = step.grid[i].cast<unsigned>();
  step.function = reinterpret_cast<void*>(packed[1].cast<uint64_t>());
  step.threads = packed[2].cast<unsigned>(), step.shared = packed[3].cast<unsigned>();
  size_t i = 0;
  for (const py::handle type : py::tuple(packed[4])) {
    const auto& [number, value] = step.arguments.at(i++);
    const auto name = type.cast<std::string>();
    if (name == "constexpr") continue;
    if (name.rfind("tensordesc", 0) == 0) {
      const py::tuple told = maps[step.maps.size()];
      step.words.push_back(0), step.places.push_back(-2 - static_cast<int>(step.maps.size()));
      step.maps.push_back({number, told[0].cast<int>(), told[1].cast<int>(), told[2].cast<std::vector<uint64_t>>(),
                           told[3].cast<std::vector<uint64_t>>(), told[4].cast<std::vector<uint32_t>>()});
      for (const py::handle one : py::tuple(told[5]))
        step.words.push_back(one.cast<uint64_t>()), step.places.push_back(-1);
      continue;
    }
    step.words.push_back(number < 0 ? word_of(value, name) : 0), step.places.push_back(number);
  }
  for (int scratch = 0; scratch < 2; ++scratch) step.words.push_back(0), step.places.push_back(-1);
  step.describe = reinterpret_cast<decltype(step.describe)>(packed[5].cast<uint64_t>());
  if (step.words.size() <= kMostParameters && step.maps.size() <= kMostMaps)
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

// Whether a setting is what it was.
bool still(const py::tuple& setting) {
  PyObject* now = PyDict_GetItemWithError(PyTuple_GET_ITEM(setting.ptr(), 0), PyTuple_GET_ITEM(setting.ptr(), 1));
  if (!now && PyErr_Occurred()) throw py::error_already_set();
  const int same = PyObject_RichCompareBool(now ? now : Py_None, PyTuple_GET_ITEM(setting.ptr(), 2), Py_EQ);
  if (same < 0) throw py::error_already_set();
  return same == 1;
}

}  // namespace

bool Script::run(PyObject* const* operands, const uint64_t* given, size_t count, py::object* outs,
                 uint64_t* places) const {
  const Known& k = known();
  if (count + made.size() > kMostArrays) return false;
  try {
    const auto current = call_python(k.current_device, nullptr, 0, nullptr);
    if (PyLong_AsLong(current.ptr()) != device) return false;
    for (const py::tuple& setting : settings)
      if (!still(setting)) return false;
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
    if (!step[5].is_none()) take_packed(launch, step[5], step[6]);
    launches.push_back(std::move(launch));
  }
  results = found[2].cast<std::vector<int>>();
  for (const py::handle one : py::tuple(found[3])) settings.push_back(py::reinterpret_borrow<py::tuple>(one));
  device = found[4].cast<int>();
}

}  // namespace ulpgrad
