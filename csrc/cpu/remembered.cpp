// Remembered: a function of tensors that knows what its earlier calls came to. Turning arguments into operands,
// checking them and choosing a kernel takes Python ten times as long as a kernel takes for a few values; it comes out
// the same for all calls whose tensors agree in format, shape and layout and whose other arguments are equal. The first
// such call runs the function; the next ones go from here straight to the kernel.
#include <Python.h>  // what structmember.h needs
#include <structmember.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <unordered_map>

#include "bind.h"

namespace ulpgrad {
namespace {

constexpr size_t kMostLessons = 1024;  // of one function; then it starts afresh
constexpr size_t kSeen = 256;          // a call is learnt when it comes again: many never do
constexpr int kMostArguments = 16, kMostWords = 256;

// What calls of one kind came to. `run` is empty where the function itself has to be called each time.
struct Lesson {
  std::vector<uint64_t> key;
  std::vector<py::object> kept;  // what the key names by its address
  py::object run, names, formats;
  std::vector<int> operands;          // positions among the arguments, or less than 0 for those in constants
  std::vector<py::object> constants;  // an operand that is absent, or a number
  std::vector<py::object> values;     // of the kernel's parameters
  // The node that records a call, where one does: what its fields are, and which tensors it saves under which names.
  py::object primitive, params, name, places;
  std::vector<std::pair<py::object, int>> saved_operands, saved_outs;
};

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

enum TensorSlot { kStorage, kDtype, kRequiresGrad, kGrad, kNode, kCell, kHooks };

// What is known of Python.
struct Known {
  Slots tensor, saved, node;
  PyTypeObject* format;
  PyObject *state, *special, *recording, *sequence, *learn;
  uint64_t age = 0;  // how often what was learnt has become void
  int learning = 0;  // functions that run now so that it is seen what their calls come to
};

Known& known() {
  static Known* const one = new Known;  // never freed: Python may be gone by then
  return *one;
}

struct Remembered {
  PyObject_HEAD vectorcallfunc call;
  PyObject *function, *dict, *weak;
  uint64_t* seen;  // hashes of calls that came once
  std::unordered_map<uint64_t, std::shared_ptr<const Lesson>>* lessons;
};

bool is_array(PyObject* given) {
  return Py_TYPE(given) == reinterpret_cast<PyTypeObject*>(py::detail::npy_api::get().PyArray_Type_);
}

// Arguments in words: two calls with the same words come to the same.
class Key {
 public:
  uint64_t words[kMostWords];
  int size = 0;
  PyObject* kept[kMostWords];
  int kept_size = 0;
  bool recorded = false;  // whether an operand requires a gradient

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
  bool add_tensor(PyObject* given) {
    const Slots& slots = known().tensor;
    PyObject *storage = slots.at(given, kStorage), *dtype = slots.at(given, kDtype);
    PyObject* wanted = slots.at(given, kRequiresGrad);
    if (!storage || !dtype || !wanted || !is_array(storage)) return false;
    const auto* a = py::detail::array_proxy(storage);
    recorded = recorded || wanted == Py_True;
    const uint64_t flags = static_cast<uint64_t>(a->flags) << 16 | static_cast<uint64_t>(a->nd) << 8;
    if (!add(flags | (wanted == Py_True) << 4 | 1) || !add_object(dtype)) return false;
    for (int i = 0; i < a->nd; ++i)
      if (!add(static_cast<uint64_t>(a->dimensions[i])) || !add(static_cast<uint64_t>(a->strides[i]))) return false;
    return true;
  }
  // A tensor, or a value that cannot change: None, a bool, a number, a text, a Format, or a tuple of such.
  bool add_argument(PyObject* given) {
    PyTypeObject* type = Py_TYPE(given);
    if (type == known().tensor.type) return add_tensor(given);
    if (given == Py_None || given == Py_True || given == Py_False) return add(2) && add_object(given);
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
    if (type != &PyTuple_Type) return PyType_IsSubtype(type, known().format) && add(7) && add_object(given);
    const Py_ssize_t items = PyTuple_GET_SIZE(given);
    if (!add(6 | static_cast<uint64_t>(items) << 8)) return false;
    for (Py_ssize_t i = 0; i < items; ++i) {
      PyObject* item = PyTuple_GET_ITEM(given, i);
      if (Py_TYPE(item) == known().tensor.type || !add_argument(item)) return false;
    }
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
};

// Whether calls are recorded in the graph now.
bool recording() {
  PyObject* now;
  if (PyContextVar_Get(known().recording, nullptr, &now) < 0) throw py::error_already_set();
  Py_DECREF(now);
  return now == Py_True;
}

// Whether a pin, the log or a policy is active, so that calls are not what they were.
bool special() {
  const auto now = py::reinterpret_steal<py::object>(PyObject_GetAttr(known().state, known().special));
  if (!now) throw py::error_already_set();
  return now.ptr() != Py_False;
}

// A Tensor of what a kernel gave.
py::object wrapped(PyObject* given, PyObject* format) {
  const Slots& tensor = known().tensor;
  if (is_array(given)) return tensor.make({given, format, Py_False, Py_None, Py_None, Py_None, Py_None});
  PyObject* both[] = {given, format};  // a NumPy scalar
  auto made = py::reinterpret_steal<py::object>(
      PyObject_Vectorcall(reinterpret_cast<PyObject*>(tensor.type), both, 2, nullptr));
  if (!made) throw py::error_already_set();
  return made;
}

py::object call_python(PyObject* function, PyObject* const* args, size_t count, PyObject* names) {
  auto out = py::reinterpret_steal<py::object>(PyObject_Vectorcall(function, args, count, names));
  if (!out) throw py::error_already_set();
  return out;
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

// Ties the first result to a node of the graph, as Primitive.record does.
void record(const Lesson& lesson, PyObject* const* tensors, const std::vector<py::object>& outs) {
  const Slots& tensor = known().tensor;
  py::list edges(lesson.operands.size());
  for (size_t i = 0; i < lesson.operands.size(); ++i) {
    PyObject* edge = Py_None;
    if (tensors[i] != Py_None && tensor.at(tensors[i], kRequiresGrad) == Py_True) {
      PyObject* node = tensor.at(tensors[i], kNode);
      edge = node == Py_None ? tensors[i] : node;
    }
    edges[i] = py::handle(edge);
  }
  py::dict saved;
  for (const auto& [name, i] : lesson.saved_operands) {
    if (tensors[i] != Py_None) {
      save(saved, name, tensors[i]);
    } else if (PyDict_SetItem(saved.ptr(), name.ptr(), Py_None) < 0) {
      throw py::error_already_set();
    }
  }
  for (const auto& [name, i] : lesson.saved_outs) {  // not the output itself: it holds this node
    PyObject *out = outs[i].ptr(), *cell = cell_of(out);
    const py::object apart =
        tensor.make({tensor.at(out, kStorage), tensor.at(out, kDtype), Py_False, Py_None, Py_None, cell, Py_None});
    save(saved, name, apart.ptr());
  }
  const auto sequence = py::reinterpret_steal<py::object>(PyIter_Next(known().sequence));
  if (!sequence) throw py::error_already_set();
  const py::object node =
      known().node.make({lesson.name.ptr(), sequence.ptr(), edges.ptr(), lesson.places.ptr(), Py_None, Py_None,
                         lesson.primitive.ptr(), lesson.params.ptr(), saved.ptr()});
  Py_SETREF(tensor.at(outs[0].ptr(), kNode), py::make_tuple(node, 0).release().ptr());
  Py_SETREF(tensor.at(outs[0].ptr(), kRequiresGrad), Py_NewRef(Py_True));
}

// The first result of the kernel that a lesson names; nothing where the caller has made errors of NumPy's events, which
// the function sees to.
py::object follow(const Lesson& lesson, PyObject* const* args) {
  PyObject *tensors[kMostArguments], *given[2 * kMostArguments];
  py::object held[kMostArguments];  // other threads may give a tensor other memory meanwhile
  size_t count = 0;
  for (const int i : lesson.operands) {
    tensors[count] = i < 0 ? lesson.constants[~i].ptr() : args[i];
    held[count] = py::reinterpret_borrow<py::object>(
        tensors[count] == Py_None ? Py_None : known().tensor.at(tensors[count], kStorage));
    given[count] = held[count].ptr();
    ++count;
  }
  const size_t arrays = count;
  for (const py::object& value : lesson.values) given[count++] = value.ptr();
  const auto result =
      py::reinterpret_steal<py::object>(PyObject_Vectorcall(lesson.run.ptr(), given, arrays, lesson.names.ptr()));
  if (!result) {
    if (!PyErr_ExceptionMatches(PyExc_FloatingPointError) && !PyErr_ExceptionMatches(PyExc_RuntimeWarning))
      throw py::error_already_set();
    PyErr_Clear();
    return py::object();
  }
  const auto format = [&](Py_ssize_t i) { return PyTuple_GET_ITEM(lesson.formats.ptr(), i); };
  const Py_ssize_t results = PyTuple_GET_SIZE(lesson.formats.ptr());
  const auto one = [&](Py_ssize_t i) { return results == 1 ? result.ptr() : PyTuple_GET_ITEM(result.ptr(), i); };
  if (!lesson.primitive) return wrapped(one(0), format(0));
  std::vector<py::object> outs;
  for (Py_ssize_t i = 0; i < results; ++i) outs.push_back(wrapped(one(i), format(i)));
  record(lesson, tensors, outs);
  return outs[0];
}

// Runs the function, and keeps what the call came to.
py::object learn(Remembered* self, const Key& key, uint64_t hash, PyObject* const* args, size_t count,
                 PyObject* names) {
  std::vector<PyObject*> all{self->function};
  const size_t named = names ? PyTuple_GET_SIZE(names) : 0;
  all.insert(all.end(), args, args + count + named);
  auto lesson = std::make_shared<Lesson>();
  lesson->key.assign(key.words, key.words + key.size);
  for (int i = 0; i < key.kept_size; ++i) lesson->kept.push_back(py::reinterpret_borrow<py::object>(key.kept[i]));
  ++known().learning;
  struct Done {
    ~Done() { --known().learning; }
  } done;
  const py::tuple found = call_python(known().learn, all.data(), count + 1, names);
  if (found.size() > 1) {
    lesson->formats = found[2];
    for (const py::handle place : py::tuple(found[3])) {
      if (PyLong_CheckExact(place.ptr())) {
        lesson->operands.push_back(place.cast<int>());
      } else {
        lesson->operands.push_back(~static_cast<int>(lesson->constants.size()));
        lesson->constants.push_back(py::reinterpret_borrow<py::object>(place));
      }
    }
    const py::dict params = found[4];
    py::tuple keys(params.size());
    size_t i = 0;
    for (const auto& [name, value] : params) {
      keys[i++] = name;
      lesson->values.push_back(py::reinterpret_borrow<py::object>(value));
    }
    if (i) lesson->names = keys;
    if (const py::object node = found[5]; !node.is_none()) {
      const py::tuple fields = node;
      lesson->primitive = fields[0], lesson->params = params, lesson->name = fields[1], lesson->places = fields[2];
      const auto places = [](const py::handle& given) {
        std::vector<std::pair<py::object, int>> read;
        for (const py::handle pair : py::tuple(py::reinterpret_borrow<py::object>(given)))
          read.emplace_back(pair[py::int_(0)], pair[py::int_(1)].cast<int>());
        return read;
      };
      lesson->saved_operands = places(fields[3]), lesson->saved_outs = places(fields[4]);
    }
    if (lesson->operands.size() <= kMostArguments && lesson->values.size() <= kMostArguments) lesson->run = found[1];
  }
  if (self->lessons->size() >= kMostLessons) self->lessons->clear();
  (*self->lessons)[hash] = lesson;
  return found[0];
}

py::object answer(Remembered* self, PyObject* const* args, size_t count, PyObject* names) {
  const size_t all = count + (names ? PyTuple_GET_SIZE(names) : 0);
  Key key;
  bool ordinary = known().tensor.type && !known().learning && all <= kMostArguments && !special();
  for (size_t i = 0; ordinary && i < all; ++i) {
    const size_t first = std::find(args, args + i, args[i]) - args;  // one tensor twice is not two tensors
    ordinary =
        first < i && Py_TYPE(args[i]) == known().tensor.type ? key.add(first << 8 | 8) : key.add_argument(args[i]);
  }
  for (size_t i = count; ordinary && i < all; ++i) ordinary = key.add_object(PyTuple_GET_ITEM(names, i - count));
  ordinary = ordinary && key.add(known().age << 16 | count << 8 | (key.recorded && recording()));
  if (!ordinary) return call_python(self->function, args, count, names);
  const uint64_t hash = key.hash();
  const auto found = self->lessons->find(hash);
  if (found == self->lessons->end() || !key.is(found->second->key)) {
    if (uint64_t& last = self->seen[hash % kSeen]; last != hash) {
      last = hash;
      return call_python(self->function, args, count, names);
    }
    return learn(self, key, hash, args, count, names);
  }
  const std::shared_ptr<const Lesson> lesson = found->second;  // held: the call may change what is remembered
  if (lesson->run)
    if (py::object out = follow(*lesson, args)) return out;
  return call_python(self->function, args, count, names);
}

PyObject* vectorcall(PyObject* self, PyObject* const* args, size_t flags, PyObject* names) {
  try {
    return answer(reinterpret_cast<Remembered*>(self), args, PyVectorcall_NARGS(flags), names).release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

Remembered* cast(PyObject* self) { return reinterpret_cast<Remembered*>(self); }

PyObject* make(PyTypeObject* type, PyObject*, PyObject*) {
  PyObject* self = type->tp_alloc(type, 0);
  if (!self) return nullptr;
  cast(self)->call = vectorcall;
  cast(self)->function = Py_NewRef(Py_None);
  cast(self)->lessons = new (std::nothrow) std::unordered_map<uint64_t, std::shared_ptr<const Lesson>>;
  cast(self)->seen = new (std::nothrow) uint64_t[kSeen]();
  if (cast(self)->lessons && cast(self)->seen) return self;
  Py_DECREF(self);
  return PyErr_NoMemory();
}

int initialize(PyObject* self, PyObject* args, PyObject*) {
  PyObject* function;
  if (!PyArg_ParseTuple(args, "O:Remembered", &function)) return -1;
  Py_SETREF(cast(self)->function, Py_NewRef(function));
  return 0;
}

int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(cast(self)->function);
  Py_VISIT(cast(self)->dict);
  return 0;
}

int clear(PyObject* self) {
  Py_CLEAR(cast(self)->function);
  Py_CLEAR(cast(self)->dict);
  if (cast(self)->lessons) cast(self)->lessons->clear();
  return 0;
}

void deallocate(PyObject* self) {
  PyObject_GC_UnTrack(self);
  if (cast(self)->weak) PyObject_ClearWeakRefs(self);
  clear(self);
  delete cast(self)->lessons;
  delete[] cast(self)->seen;
  PyTypeObject* type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* bound(PyObject* self, PyObject* object, PyObject*) {
  return object ? PyMethod_New(self, object) : Py_NewRef(self);
}

PyObject* text(PyObject* self) { return PyObject_Repr(cast(self)->function); }

// Copied and pickled as functions are: by name.
PyObject* reduce(PyObject* self, PyObject*) { return PyObject_GetAttrString(self, "__qualname__"); }

PyMemberDef members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Remembered, call), READONLY, nullptr},
    {"__dictoffset__", T_PYSSIZET, offsetof(Remembered, dict), READONLY, nullptr},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Remembered, weak), READONLY, nullptr},
    {"__wrapped__", T_OBJECT, offsetof(Remembered, function), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

PyMethodDef methods[] = {
    {"__reduce__", reduce, METH_NOARGS, "The name it is found by."},
    {nullptr, nullptr, 0, nullptr},
};

PyType_Slot slots[] = {
    {Py_tp_new, reinterpret_cast<void*>(make)},
    {Py_tp_init, reinterpret_cast<void*>(initialize)},
    {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
    {Py_tp_traverse, reinterpret_cast<void*>(traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(clear)},
    {Py_tp_dealloc, reinterpret_cast<void*>(deallocate)},
    {Py_tp_descr_get, reinterpret_cast<void*>(bound)},
    {Py_tp_repr, reinterpret_cast<void*>(text)},
    {Py_tp_getattro, reinterpret_cast<void*>(PyObject_GenericGetAttr)},
    {Py_tp_setattro, reinterpret_cast<void*>(PyObject_GenericSetAttr)},
    {Py_tp_members, members},
    {Py_tp_methods, methods},
    {0, nullptr},
};

PyType_Spec type_spec = {"ulpgrad._native.Remembered", sizeof(Remembered), 0,
                         Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
                             Py_TPFLAGS_METHOD_DESCRIPTOR,
                         slots};

void remember(const py::object& tensor, const py::object& saved, const py::object& node, const py::object& format,
              const py::object& state, const py::object& recording, const py::object& sequence,
              const py::object& learn) {
  Known& k = known();
  k.saved = Slots(saved, {"tensor", "cell", "count"});
  k.node = Slots(node, {"name", "sequence", "edges", "operands", "hooks", "retained", "primitive", "params", "saved"});
  k.special = PyUnicode_InternFromString("special");
  if (!k.special) throw py::error_already_set();
  k.format = reinterpret_cast<PyTypeObject*>(format.inc_ref().ptr());
  k.state = state.inc_ref().ptr(), k.recording = recording.inc_ref().ptr();
  k.sequence = sequence.inc_ref().ptr(), k.learn = learn.inc_ref().ptr();
  k.tensor = Slots(tensor, {"storage", "dtype", "requires_grad", "grad", "_node", "_cell", "_hooks"});
}

void bind_remembered(py::module_& m) {
  const auto type = py::reinterpret_steal<py::object>(PyType_FromSpec(&type_spec));
  if (!type) throw py::error_already_set();
  m.add_object("Remembered", type);
  m.def("forget_calls", [] { ++known().age; }, "Have functions learn anew: the choice of kernels has changed.");
  m.def("remember", &remember, py::arg("tensor"), py::arg("saved"), py::arg("node"), py::arg("format"),
        py::arg("state"), py::arg("recording"), py::arg("sequence"), py::arg("learn"),
        "Tell Remembered functions the classes they make instances of, and what they ask of Python.");
}

const Binder binder(bind_remembered);

}  // namespace
}  // namespace ulpgrad
