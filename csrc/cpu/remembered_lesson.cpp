// Following a lesson: the steps of `_learn` (differentiable.py), with the nodes that Primitive.record and moved would
// make.
#include "remembered_lesson.h"

#include <pybind11/stl.h>

namespace ulpgrad {
namespace {

// A Tensor of what a kernel gave.
py::object wrapped(PyObject* given, PyObject* format, PyObject* cell = Py_None) {
  const Slots& tensor = known().tensor;
  if (is_array(given) || is_device_array(given))
    return tensor.make({given, format, Py_False, Py_None, Py_None, cell, Py_None});
  PyObject* both[] = {given, format};  // a NumPy scalar
  return call_python(reinterpret_cast<PyObject*>(tensor.type), both, 2, nullptr);
}

// The counter of writes that all tensors on this memory share.
PyObject* cell_of(PyObject* tensor) {
  PyObject*& cell = known().tensor.at(tensor, kCell);
  if (cell != Py_None) return cell;
  PyObject* made = PyList_New(1);
  if (!made) throw py::error_already_set();
  PyList_SET_ITEM(made, 0, PyLong_FromLong(0));
  Py_SETREF(cell, made);
  return cell;
}

void save(const py::dict& saved, const py::object& name, PyObject* tensor) {
  PyObject* cell = cell_of(tensor);
  const py::object one = known().saved.make({tensor, cell, PyList_GET_ITEM(cell, 0)});
  if (PyDict_SetItem(saved.ptr(), name.ptr(), one.ptr()) < 0) throw py::error_already_set();
}

py::dict saved_of(const Step& step, PyObject* const* operands, PyObject* const* outs) {
  const Slots& tensor = known().tensor;
  py::dict saved;
  for (const auto& [name, i] : step.saved_operands) {
    const bool given = static_cast<size_t>(i) < step.operands.size();  // the last ones may be left out
    if (given && operands[i] != Py_None) {
      save(saved, name, operands[i]);
    } else if (PyDict_SetItem(saved.ptr(), name.ptr(), Py_None) < 0) {
      throw py::error_already_set();
    }
  }
  for (const auto& [name, i] : step.saved_outs) {  // not the output itself: it holds this node
    PyObject *out = outs[i], *cell = cell_of(out);
    const py::object apart =
        tensor.make({tensor.at(out, kStorage), tensor.at(out, kDtype), Py_False, Py_None, Py_None, cell, Py_None});
    save(saved, name, apart.ptr());
  }
  return saved;
}

// Ties the first result to a node of the graph.
void record(const Step& step, PyObject* const* operands, PyObject* const* outs) {
  const Slots& tensor = known().tensor;
  py::list edges(step.operands.size());
  for (size_t i = 0; i < step.operands.size(); ++i) {
    PyObject* edge = Py_None;
    if (operands[i] != Py_None && tensor.at(operands[i], kRequiresGrad) == Py_True) {
      PyObject* node = tensor.at(operands[i], kNode);
      edge = node == Py_None ? operands[i] : node;
    }
    edges[i] = py::handle(edge);
  }
  const auto sequence = py::reinterpret_steal<py::object>(PyIter_Next(known().sequence));
  if (!sequence) throw py::error_already_set();
  PyObject *name = step.name.ptr(), *places = step.places.ptr();
  const py::object node =
      step.back ? known().move.make({name, sequence.ptr(), edges.ptr(), places, Py_None, Py_None, step.back.ptr()})
                : known().node.make({name, sequence.ptr(), edges.ptr(), places, Py_None, Py_None, step.primitive.ptr(),
                                     step.params.ptr(), saved_of(step, operands, outs).ptr()});
  Py_SETREF(tensor.at(outs[0], kNode), py::make_tuple(node, 0).release().ptr());
  Py_SETREF(tensor.at(outs[0], kRequiresGrad), Py_NewRef(Py_True));
}

// A view of the operand's memory.
py::object view_of(const Step& step, PyObject* array) {
  const auto& api = py::detail::npy_api::get();
  const auto* a = py::detail::array_proxy(array);
  auto view = py::reinterpret_steal<py::object>(
      api.PyArray_NewFromDescr_(api.PyArray_Type_, Py_NewRef(a->descr), static_cast<int>(step.shape.size()),
                                step.shape.data(), step.strides.data(), a->data + step.offset,
                                step.writeable ? py::detail::npy_api::NPY_ARRAY_WRITEABLE_ : 0, nullptr));
  if (!view || api.PyArray_SetBaseObject_(view.ptr(), Py_NewRef(array)) < 0) throw py::error_already_set();
  return view;
}

// What the kernel gives; nothing where it raised what the function has to see to: an event that the caller has made an
// error of, or a value that the function explains better.
py::object result_of(const Step& step, PyObject* const* arrays) {
  PyObject* given[2 * kMostOperands];
  const size_t count = step.operands.size();
  std::copy(arrays, arrays + count, given);
  for (size_t i = 0; i < step.values.size(); ++i) given[count + i] = step.values[i].ptr();
  auto result = py::reinterpret_steal<py::object>(PyObject_Vectorcall(step.run.ptr(), given, count, step.names.ptr()));
  if (result) return result;
  if (!PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError))
    throw py::error_already_set();
  PyErr_Clear();
  return result;
}

// Where the step is one on a device, its results and where they lie.
bool run_script(const Step& step, const Key& key, PyObject* const* arrays, const uint64_t* all, py::object* outs,
                uint64_t* places) {
  if (step.script.device < 0) return false;
  uint64_t addresses[kMostOperands];
  for (size_t i = 0; i < step.operands.size(); ++i) {
    const int at = step.operands[i];
    addresses[i] = at >= 0 ? all[at] : arrays[i] == Py_None ? 0 : address_of(arrays[i]);
    if (at >= key.tensors_size && !is_aligned(addresses[i])) return false;  // the key has the others
  }
  return step.script.run(arrays, addresses, step.operands.size(), outs, places);
}

// References, as many as there are by now.
class References {
 public:
  ~References() {
    while (size_) Py_DECREF(all_[--size_]);
  }
  void add(py::object one) { all_[size_++] = one.release().ptr(); }
  PyObject* operator[](int i) const { return all_[i]; }
  PyObject* const* from(int i) const { return all_ + i; }
  int size() const { return size_; }

 private:
  PyObject* all_[kMostTensors];
  int size_ = 0;
};

}  // namespace

py::object follow(const Lesson& lesson, const Key& key) {
  const Slots& slots = known().tensor;
  References made, memory;           // memory: other threads may give a tensor another meanwhile
  uint64_t addresses[kMostTensors];  // of memory on a device
  for (int i = 0; i < key.tensors_size; ++i) {
    made.add(py::reinterpret_borrow<py::object>(key.tensors[i]));
    memory.add(py::reinterpret_borrow<py::object>(slots.at(key.tensors[i], kStorage)));
    if (key.on_device) addresses[i] = key.addresses[i];
  }
  for (const Step& step : lesson.steps) {
    PyObject *operands[kMostOperands], *arrays[kMostOperands];
    for (size_t i = 0; i < step.operands.size(); ++i) {
      const int at = step.operands[i];
      operands[i] = at < 0 ? step.constants[~at].ptr() : made[at];
      arrays[i] = at >= 0 ? memory[at] : operands[i] == Py_None ? Py_None : slots.at(operands[i], kStorage);
    }
    const size_t results = step.formats.size();
    const int first = made.size();
    if (!step.run) {
      memory.add(view_of(step, arrays[0]));
      made.add(wrapped(memory[first], step.formats[0].ptr(), cell_of(operands[0])));
    } else if (py::object outs[kMostOperands];
               key.on_device && run_script(step, key, arrays, addresses, outs, addresses + first)) {
      for (size_t i = 0; i < results; ++i) {
        made.add(wrapped(outs[i].ptr(), PyTuple_GET_ITEM(step.formats.ptr(), i)));
        memory.add(std::move(outs[i]));
      }
    } else {
      const py::object result = result_of(step, arrays);
      if (!result) return result;
      for (size_t i = 0; i < results; ++i) {
        PyObject* one = results == 1 ? result.ptr() : PyTuple_GET_ITEM(result.ptr(), i);
        made.add(wrapped(one, PyTuple_GET_ITEM(step.formats.ptr(), i)));
        memory.add(py::reinterpret_borrow<py::object>(slots.at(made[first + i], kStorage)));
        if (key.on_device) addresses[first + i] = address_of(memory[first + i]);
      }
    }
    if (step.name) record(step, operands, made.from(first));
  }
  if (!lesson.several) return py::reinterpret_borrow<py::object>(made[lesson.outs[0]]);
  py::tuple all(lesson.outs.size());
  for (size_t i = 0; i < lesson.outs.size(); ++i) all[i] = py::handle(made[lesson.outs[i]]);
  return all;
}

namespace {

Step step_of(const py::tuple& found) {
  Step step;
  if (!found[0].is_none()) step.run = found[0];
  step.formats = found[1];
  for (const py::handle place : py::tuple(found[2])) {
    if (PyLong_CheckExact(place.ptr())) {
      step.operands.push_back(place.cast<int>());
    } else {
      step.operands.push_back(~static_cast<int>(step.constants.size()));
      step.constants.push_back(py::reinterpret_borrow<py::object>(place));
    }
  }
  if (step.run) {
    const py::dict params = found[3];
    py::tuple keys(params.size());
    size_t i = 0;
    for (const auto& [name, value] : params) {
      keys[i++] = name;
      step.values.push_back(py::reinterpret_borrow<py::object>(value));
    }
    if (i) step.names = keys;
  } else {
    const py::tuple layout = found[3];
    step.shape = layout[0].cast<std::vector<py::ssize_t>>(), step.strides = layout[1].cast<std::vector<py::ssize_t>>();
    step.offset = layout[2].cast<py::ssize_t>(), step.writeable = layout[3].cast<bool>();
  }
  if (!found[5].is_none()) step.script.take(found[5]);
  if (found[4].is_none()) return step;
  const py::tuple node = found[4];
  step.name = node[0], step.places = node[1];
  if (node.size() == 3) {
    step.back = node[2];
    return step;
  }
  step.primitive = node[2], step.params = found[3];
  const auto places = [](const py::handle& given) {
    std::vector<std::pair<py::object, int>> read;
    for (const py::handle pair : py::tuple(py::reinterpret_borrow<py::object>(given)))
      read.emplace_back(pair[py::int_(0)], pair[py::int_(1)].cast<int>());
    return read;
  };
  step.saved_operands = places(node[3]), step.saved_outs = places(node[4]);
  return step;
}

}  // namespace

void Lesson::take(const py::list& found, const py::object& places) {
  std::vector<Step> all;
  for (const py::handle one : found) {
    all.push_back(step_of(py::reinterpret_borrow<py::tuple>(one)));
    const Step& last = all.back();
    if (std::max({last.operands.size(), last.values.size(), last.script.results.size()}) > kMostOperands) return;
  }
  several = PyTuple_CheckExact(places.ptr());
  if (several) {
    outs = places.cast<std::vector<int>>();
  } else {
    outs = {places.cast<int>()};
  }
  steps = std::move(all);
}

}  // namespace ulpgrad
