// Arrays own their memory, as if NumPy had allocated it: each names a memory handler (NEP 49), of which there is one
// for each kind of block, and NumPy gives the block back through it.
#include "memory.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <unordered_map>

#include "bind.h"
#include "memory_cache.h"

namespace ulpgrad {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool exact = true;  // every array comes from the system, so that one byte too far is noticed
#else
constexpr bool exact = false;
#endif

constexpr int carray = 0x0501;  // C-contiguous, aligned and writeable

// NumPy's structures as its C API has them (ndarraytypes.h) since 1.22.
struct Allocator {
  void* ctx;
  void* (*malloc)(void* ctx, size_t bytes);
  void* (*calloc)(void* ctx, size_t count, size_t bytes);
  void* (*realloc)(void* ctx, void* block, size_t bytes);
  void (*free)(void* ctx, void* block, size_t bytes);
};

struct Handler {
  char name[127];
  uint8_t version;
  Allocator allocator;
};

struct ArrayFields {
  py::detail::PyArray_Proxy known;
  PyObject* weakreflist;
  void* buffer_info;
  PyObject* mem_handler;
};

constexpr int api_get_handler = 305;  // PyDataMem_GetHandler

// Blocks that ndarray.resize made: they are not of their handler's kind, but from malloc.
struct Resized {
  std::mutex mutex;
  std::unordered_map<void*, size_t> bytes;
  std::atomic<size_t> count{0};
};

Resized& resized() {
  static Resized* const one = new Resized;
  return *one;
}

// Forgets such a block; its bytes, or 0 if it is none.
size_t forget_resized(void* block) {
  Resized& all = resized();
  if (!all.count.load(std::memory_order_relaxed)) return 0;
  const std::lock_guard<std::mutex> lock(all.mutex);
  const auto found = all.bytes.find(block);
  if (found == all.bytes.end()) return 0;
  const size_t bytes = found->second;
  all.bytes.erase(found);
  --all.count;
  return bytes;
}

void* handler_calloc(void*, size_t count, size_t bytes) {
  void* block = std::calloc(count, bytes);
  if (!block) return nullptr;
  Resized& all = resized();
  const std::lock_guard<std::mutex> lock(all.mutex);
  try {
    all.bytes[block] = count * bytes;
  } catch (const std::bad_alloc&) {
    std::free(block);
    return nullptr;
  }
  ++all.count;
  return block;
}

void* handler_malloc(void* ctx, size_t bytes) { return handler_calloc(ctx, 1, bytes); }

int kind_of(void* ctx) { return static_cast<int>(reinterpret_cast<intptr_t>(ctx)); }

void handler_free(void* ctx, void* block, size_t) {
  if (forget_resized(block)) return std::free(block);
  give_block(kind_of(ctx), block);
}

void* handler_realloc(void* ctx, void* block, size_t bytes) {
  void* grown = handler_malloc(ctx, bytes);
  if (!grown) return nullptr;
  const size_t was = forget_resized(block);
  std::memcpy(grown, block, std::min(bytes, was ? was : block_bytes(kind_of(ctx))));
  was ? std::free(block) : give_block(kind_of(ctx), block);
  return grown;
}

// The capsule that arrays in blocks of this kind name as their handler.
PyObject* handler_of(int kind) {
  static PyObject* made[kBlockSizes] = {};
  if (!made[kind]) {
    auto* handler = new Handler{"ulpgrad",
                                1,
                                {reinterpret_cast<void*>(static_cast<intptr_t>(kind)), handler_malloc, handler_calloc,
                                 handler_realloc, handler_free}};
    made[kind] = PyCapsule_New(handler, "mem_handler", nullptr);
    if (!made[kind]) throw py::error_already_set();
  }
  return made[kind];
}

// Whether arrays name their memory's handler where ArrayFields says: asked of an array that NumPy made.
bool numpy_is_known() {
  const py::array probe = py::array_t<double>(4096);
  const auto* type = reinterpret_cast<PyTypeObject*>(py::detail::npy_api::get().PyArray_Type_);
  if (type->tp_basicsize < static_cast<Py_ssize_t>(sizeof(ArrayFields))) return false;
  const py::module_ core = py::detail::import_numpy_core_submodule("multiarray");
  auto** const api = static_cast<void**>(PyCapsule_GetPointer(core.attr("_ARRAY_API").ptr(), nullptr));
  if (!api) throw py::error_already_set();
  const auto get_handler = reinterpret_cast<PyObject* (*)()>(api[api_get_handler]);
  const auto current = py::reinterpret_steal<py::object>(get_handler());
  if (!current) throw py::error_already_set();
  return reinterpret_cast<const ArrayFields*>(probe.ptr())->mem_handler == current.ptr();
}

bool usable = false;

// "(3, 4) (12 KiB)"
std::string size_text(int ndim, const Py_ssize_t* shape, size_t bytes) {
  std::string text = "(";
  for (int i = 0; i < ndim; ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  text += ndim == 1 ? ",)" : ")";
  if (!bytes) return text;
  const char* unit = "KiB";
  double size = static_cast<double>(bytes) / 1024;
  for (const char* larger : {"MiB", "GiB", "TiB"})
    if (size >= 1024) size /= 1024, unit = larger;
  char number[32];
  std::snprintf(number, sizeof number, "%.4g", size);
  return text + " (" + number + " " + unit + ")";
}

py::object from_numpy(PyObject* descr, int ndim, const Py_ssize_t* shape) {
  const auto& api = py::detail::npy_api::get();
  auto out = py::reinterpret_steal<py::object>(
      api.PyArray_NewFromDescr_(api.PyArray_Type_, descr, ndim, shape, nullptr, nullptr, 0, nullptr));
  if (!out) throw py::error_already_set();
  return out;
}

}  // namespace

py::object new_array(PyObject* descr, int ndim, const Py_ssize_t* shape) {
  auto type = py::reinterpret_steal<py::dtype>(descr);
  Py_ssize_t bytes = type.itemsize();
  bool too_large = false, none = false;
  for (int i = 0; i < ndim; ++i) {
    none = none || shape[i] == 0;
    too_large = __builtin_mul_overflow(bytes, shape[i] ? shape[i] : 1, &bytes) || too_large;
  }
  if (too_large)
    throw py::value_error("a result of shape " + size_text(ndim, shape, 0) + " has more bytes than can be counted");
  const int kind = usable && !none && cache_is_on() ? block_kind(static_cast<size_t>(bytes)) : -1;
  if (kind < 0) return from_numpy(type.release().ptr(), ndim, shape);
  PyObject* handler = handler_of(kind);
  void* block = take_block(kind);
  if (!block) {
    PyErr_SetString(PyExc_MemoryError,
                    ("no memory for a result of shape " + size_text(ndim, shape, static_cast<size_t>(bytes))).c_str());
    throw py::error_already_set();
  }
  const auto& api = py::detail::npy_api::get();
  auto out = py::reinterpret_steal<py::object>(
      api.PyArray_NewFromDescr_(api.PyArray_Type_, type.release().ptr(), ndim, shape, nullptr, block, carray, nullptr));
  if (!out) {
    give_block(kind, block);
    throw py::error_already_set();
  }
  auto* fields = reinterpret_cast<ArrayFields*>(out.ptr());
  fields->known.flags |= py::detail::npy_api::NPY_ARRAY_OWNDATA_;
  fields->mem_handler = py::handle(handler).inc_ref().ptr();
  return out;
}

namespace {

py::object empty_of(const std::vector<py::ssize_t>& shape, py::dtype type) {
  if (!std::strchr("biufc", type.kind())) throw py::type_error("empty: expected a dtype of numbers");
  if (shape.size() > 64) throw py::value_error("empty: expected at most 64 axes");
  for (const py::ssize_t size : shape)
    if (size < 0) throw py::value_error("empty: expected sizes of at least 0, got " + std::to_string(size));
  return new_array(type.release().ptr(), static_cast<int>(shape.size()), shape.data());
}

py::dict stats() {
  const CacheStats now = cache_stats();
  py::dict found;
  found["in_use"] = now.in_use;
  found["peak"] = now.peak;
  found["cached"] = now.cached;
  found["limit"] = now.limit;
  found["reused"] = now.reused;
  found["allocated"] = now.allocated;
  return found;
}

void bind_memory(py::module_& m) {
  usable = !exact && numpy_is_known();
  m.def("empty", &empty_of, py::arg("shape"), py::arg("dtype"), "A new array whose values are not set.");
  m.def("cache_stats", &stats, "Bytes in use, at their peak, cached, and the limit; blocks reused and allocated.");
  m.def("empty_cache", &empty_cache, "Give all kept blocks back to the system.");
  m.def("set_cache_limit", &set_cache_limit, py::arg("bytes"), "The most bytes that are kept; 0 switches it off.");
}

const Binder binder(bind_memory);

}  // namespace
}  // namespace ulpgrad
