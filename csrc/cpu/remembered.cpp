// Remembered: a function of tensors that knows what its earlier calls came to. Turning arguments into operands,
// checking them and choosing a kernel takes Python ten times as long as a kernel takes for a few values; it comes out
// the same for all calls whose tensors agree in format, shape and layout and whose other arguments are equal. The first
// such call runs the function; the next ones go from here straight to the kernels.
#include <algorithm>
#include <memory>
#include <unordered_map>

#include "bind_entry.h"
#include "remembered_lesson.h"

namespace ulpgrad {
namespace {

constexpr size_t kMostLessons = 1024;  // of one function; then it starts afresh
constexpr int kGivenUp = 16;           // calls on a device, none of a kind that could be learnt
constexpr size_t kSeen = 256;          // a call is learnt when it comes again: many never do

struct Remembered {
  PyObject_HEAD vectorcallfunc call;
  PyObject *function, *dict, *weak;
  int given_up;    // such calls so far; less than none once a kind was learnt
  uint64_t* seen;  // hashes of calls that came once
  std::unordered_map<uint64_t, std::shared_ptr<const Lesson>>* lessons;
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
  if (found.size() > 1) lesson->take(found[1], found[2]);
  if (key.on_device) self->given_up = lesson->steps.empty() ? self->given_up + 1 : -(1 << 30);
  if (self->lessons->size() >= kMostLessons) self->lessons->clear();
  (*self->lessons)[hash] = lesson;
  return found[0];
}

py::object answer(Remembered* self, PyObject* const* args, size_t count, PyObject* names) {
  const size_t all = count + (names ? PyTuple_GET_SIZE(names) : 0);
  Key key;
  key.learns_devices = self->given_up < kGivenUp;
  bool ordinary = known().tensor.type && !known().learning && !special();
  for (size_t i = 0; ordinary && i < all; ++i) ordinary = key.add_argument(args[i]);
  for (size_t i = count; ordinary && i < all; ++i) ordinary = key.add_object(PyTuple_GET_ITEM(names, i - count));
  ordinary = ordinary && !(key.on_device && key.on_host);
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
  if (lesson->steps.empty()) {
    self->given_up += key.on_device;
  } else if (py::object out = follow(*lesson, key)) {
    return out;
  }
  return call_python(self->function, args, count, names);
}

PyObject* vectorcall(PyObject* self, PyObject* const* args, size_t flags, PyObject* names) {
  return answer_python(
      [&] { return answer(reinterpret_cast<Remembered*>(self), args, PyVectorcall_NARGS(flags), names); });
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

void remember(const py::object& tensor, const py::object& saved, const py::object& node, const py::object& move,
              const py::object& format, const py::object& state, const py::object& recording,
              const py::object& sequence, const py::object& learn) {
  Known& k = known();
  k.saved = Slots(saved, {"tensor", "cell", "count"});
  k.node = Slots(node, {"name", "sequence", "edges", "operands", "hooks", "retained", "primitive", "params", "saved"});
  k.move = Slots(move, {"name", "sequence", "edges", "operands", "hooks", "retained", "back"});
  k.special = PyUnicode_InternFromString("special");
  if (!k.special) throw py::error_already_set();
  k.format = reinterpret_cast<PyTypeObject*>(format.inc_ref().ptr());
  k.state = state.inc_ref().ptr(), k.recording = recording.inc_ref().ptr();
  k.sequence = sequence.inc_ref().ptr(), k.learn = learn.inc_ref().ptr();
  k.tensor = Slots(tensor, {"storage", "dtype", "requires_grad", "grad", "_node", "_cell", "_hooks"});
}

void remember_device(const py::object& array, const py::object& pointer, const py::object& current_device,
                     const py::object& current_stream, const py::object& empty, const py::object& start) {
  Known& k = known();
  k.current_device = current_device.inc_ref().ptr(), k.current_stream = current_stream.inc_ref().ptr();
  k.empty = empty.inc_ref().ptr();
  k.start = start.is_none() ? nullptr : start.inc_ref().ptr();
  auto* type = reinterpret_cast<PyTypeObject*>(array.inc_ref().ptr());
  auto* memory = reinterpret_cast<PyTypeObject*>(pointer.inc_ref().ptr());
  k.shape = Attribute("shape", type), k.strides = Attribute("strides", type), k.data = Attribute("data", type);
  k.ptr = Attribute("ptr", memory), k.device_id = Attribute("device_id", memory);
  k.device_array = type;
}

void bind_remembered(py::module_& m) {
  const auto type = py::reinterpret_steal<py::object>(PyType_FromSpec(&type_spec));
  if (!type) throw py::error_already_set();
  m.add_object("Remembered", type);
  m.def("forget_calls", [] { ++known().age; }, "Have functions learn anew: the choice of kernels has changed.");
  m.def("remember_device", &remember_device, py::arg("array"), py::arg("pointer"), py::arg("current_device"),
        py::arg("current_stream"), py::arg("empty"), py::arg("start"),
        "Tell Remembered functions of a device: the class of its arrays, and what they ask of it.");
  m.def(
      "capture_calls", [](int change) { known().captures += change; },
      "Note that a capture of work on a device begins (1) or ends (-1): meanwhile functions run as they stand.");
  m.def("remember_calls", &remember, py::arg("tensor"), py::arg("saved"), py::arg("node"), py::arg("move"),
        py::arg("format"), py::arg("state"), py::arg("recording"), py::arg("sequence"), py::arg("learn"),
        "Tell Remembered functions the classes they make instances of, and what they ask of Python.");
}

const Binder binder(bind_remembered);

}  // namespace
}  // namespace ulpgrad
