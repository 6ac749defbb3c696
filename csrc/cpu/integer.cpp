// Binds integer_matmul: batches, strides and threads.
#include "integer.h"

#include <algorithm>
#include <limits>
#include <memory>

#include "batches.h"
#include "bind_entry.h"
#include "integer_plan.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kBatchGrain = int64_t{1} << 18;  // products below which the batches of a call are not shared out
constexpr int64_t kBatchCall = int64_t{1} << 15;   // what beginning a batch costs beside its products
constexpr int64_t kNone = std::numeric_limits<int64_t>::max();

// What is chosen once for many products.
struct Way {
  Accumulator accumulator;
  IntegerIsa isa;
};

// The results; of an accumulator that raises, with the position of the first that overflowed or -1, and the first k of
// the chunk in which it did.
py::object integer_matmul(const py::array& given_a, const py::array& given_b, const Way& way) {
  const auto& [accumulator, isa] = way;
  const py::array a = usable(given_a), b = usable(given_b);
  IntegerGemm g;
  g.a_codes = codes_of(a, "a"), g.b_codes = codes_of(b, "b"), g.vnni = isa.vnni;
  const int64_t da = a.ndim(), db = b.ndim();
  if (da < 2 || db < 2 || a.shape(da - 1) != b.shape(db - 2))
    throw py::value_error("integer_matmul: inner sizes differ: " + shape_text(a) + " @ " + shape_text(b));
  const std::vector<py::ssize_t> batch = batch_shape(a, b);
  g.m = a.shape(da - 2), g.n = b.shape(db - 1), g.k = a.shape(da - 1), g.c_row = g.n;
  g.a_row = a.strides(da - 2) / a.itemsize(), g.a_col = a.strides(da - 1) / a.itemsize();
  g.b_row = b.strides(db - 2) / b.itemsize(), g.b_col = b.strides(db - 1) / b.itemsize();
  const std::vector<py::ssize_t> shape = result_shape(batch, g.m, g.n);
  py::array out = accumulator.bits > 32 ? py::array(empty<int64_t>(shape)) : py::array(empty<int32_t>(shape));
  const std::vector<int64_t> at_a = batch_offsets(a, batch), at_b = batch_offsets(b, batch);
  const char *from_a = static_cast<const char*>(a.data()), *from_b = static_cast<const char*>(b.data());
  char* c = static_cast<char*>(out.mutable_data());
  const int64_t size_a = a.itemsize(), size_b = b.itemsize(), size_c = out.itemsize(), each = g.m * g.n;
  const auto product = [&](int64_t i) {
    IntegerGemm one = g;
    one.a = from_a + at_a[i] * size_a, one.b = from_b + at_b[i] * size_b;
    one.c = c + i * each * size_c, one.c_first = i * each;
    return one;
  };
  int64_t first = kNone, first_k = -1;
  g.overflowed = &first;
  {
    py::gil_scoped_release released;
    plan_product(g, accumulator, a, b);
    const int64_t batches = static_cast<int64_t>(at_a.size());
    const int threads = threads_for(batches * (kBatchCall + each * g.k), kBatchGrain);
    const bool shared = batches >= 2 * threads;  // else each product is shared out by itself
    g.threaded = !shared;
    parallel_tasks(batches, shared ? threads : 1,
                   [&](int64_t i) { multiply(product(i), way.accumulator, way.isa.isa); });
    if (first != kNone)
      first_k = integer_result(product(first / each), accumulator, first % each / g.n, first % g.n).overflow;
  }
  if (accumulator.overflow != "raise") return out;
  return py::make_tuple(out, first == kNone ? -1 : first, first_k);
}

PyObject* enter(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names);

PyMethodDef definition = {"integer_matmul", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(enter)),
                          METH_FASTCALL | METH_KEYWORDS,
                          "a[..., m, k] @ b[..., k, n] in the accumulator that was chosen, whatever else is named."};

PyObject* enter(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject*) {
  return answer_python([&] {
    if (count != 2 || !py::isinstance<py::array>(args[0]) || !py::isinstance<py::array>(args[1]))
      throw py::type_error("integer_matmul: expected two arrays");
    const auto a = py::reinterpret_borrow<py::array>(args[0]), b = py::reinterpret_borrow<py::array>(args[1]);
    return integer_matmul(a, b, held_by<Way>(self, definition));
  });
}

py::object integer_matmul_by(int bits, int shift, const std::string& overflow, const std::string& rounding,
                             int64_t chunk, const std::string& isa) {
  auto way = std::make_unique<Way>(Way{{bits, shift, overflow, rounding, chunk}, IntegerIsa(isa)});
  check(way->accumulator);
  return function_holding(std::move(way), definition);
}

void bind_integer(py::module_& m) {
  m.def(
      "integer_matmul_by", &integer_matmul_by, py::arg("bits") = 32, py::arg("shift") = 0, py::arg("overflow") = "wrap",
      py::arg("rounding") = "down", py::arg("chunk") = 0, py::arg("isa") = "",
      "A function of a[..., m, k] and b[..., k, n] of int8, uint8 or int16, with any strides, for their product in an "
      "accumulator of `bits` bits.");
}

const Binder binder(bind_integer);

}  // namespace
}  // namespace ulpgrad
