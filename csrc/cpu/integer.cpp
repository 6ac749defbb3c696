// Binds integer_matmul: batches, strides and threads. The extension's list of instruction sets beyond the three levels
// is bound here too, because integers are what they are for.
#include "integer.h"

#include <algorithm>
#include <limits>

#include "batches.h"
#include "integer_plan.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kBatchGrain = int64_t{1} << 18;  // products below which the batches of a call are not shared out
constexpr int64_t kNone = std::numeric_limits<int64_t>::max();

// (results, position of the first that overflowed or -1, the first k of the chunk in which it did).
py::tuple integer_matmul(const py::array& given_a, const py::array& given_b, int bits, int shift,
                         const std::string& overflow, const std::string& rounding, int64_t chunk,
                         const std::string& name) {
  const IntegerIsa isa(name);
  const Accumulator accumulator{bits, shift, overflow, rounding, chunk};
  check(accumulator);
  const py::array a = usable(given_a), b = usable(given_b);
  IntegerGemm g;
  g.a_codes = codes_of(a, "a"), g.b_codes = codes_of(b, "b"), g.vnni = isa.vnni;
  const int64_t da = a.ndim(), db = b.ndim();
  if (da < 2 || db < 2 || a.shape(da - 1) != b.shape(db - 2))
    throw py::value_error("integer_matmul: inner sizes differ: " + shape_text(a) + " @ " + shape_text(b));
  std::vector<py::ssize_t> shape = batch_shape(a, b);
  const std::vector<int64_t> at_a = batch_offsets(a, shape), at_b = batch_offsets(b, shape);
  g.m = a.shape(da - 2), g.n = b.shape(db - 1), g.k = a.shape(da - 1), g.c_row = g.n;
  g.a_row = a.strides(da - 2) / a.itemsize(), g.a_col = a.strides(da - 1) / a.itemsize();
  g.b_row = b.strides(db - 2) / b.itemsize(), g.b_col = b.strides(db - 1) / b.itemsize();
  shape.push_back(g.m), shape.push_back(g.n);
  py::array out = bits > 32 ? py::array(empty<int64_t>(shape)) : py::array(empty<int32_t>(shape));
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
    const int threads = threads_for(batches * each * std::max<int64_t>(1, g.k), kBatchGrain);
    const bool shared = batches >= 2 * threads;  // else each product is shared out by itself
    g.threaded = !shared;
    parallel_tasks(batches, shared ? threads : 1, [&](int64_t i) { multiply(product(i), accumulator, isa.isa); });
    if (first != kNone)
      first_k = integer_result(product(first / each), accumulator, first % each / g.n, first % g.n).overflow;
  }
  return py::make_tuple(out, first == kNone ? -1 : first, first_k);
}

void bind_integer(py::module_& m) {
  m.def("integer_matmul", &integer_matmul, py::arg("a"), py::arg("b"), py::arg("bits") = 32, py::arg("shift") = 0,
        py::arg("overflow") = "wrap", py::arg("rounding") = "down", py::arg("chunk") = 0, py::arg("isa") = "",
        "a[..., m, k] @ b[..., k, n] of int8, uint8 or int16 in an accumulator of `bits` bits, with any strides.");
}

const Binder binder(bind_integer);

}  // namespace
}  // namespace ulpgrad
