// Binds the product of integers in their own width: batches, strides and threads.
#include "integer_words.h"

#include <cstring>

#include "batches.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kGrain = int64_t{1} << 16;  // products worth a thread

void run(const WordTable& table, const WordBlock<uint8_t>& x) { table.u8(x); }
void run(const WordTable& table, const WordBlock<uint16_t>& x) { table.u16(x); }
void run(const WordTable& table, const WordBlock<uint32_t>& x) { table.u32(x); }
void run(const WordTable& table, const WordBlock<uint64_t>& x) { table.u64(x); }

// The rows or columns [begin, end) of a product, whichever are more.
template <typename T>
WordBlock<T> part(WordBlock<T> x, int64_t begin, int64_t end) {
  if (x.m >= x.n) {
    x.m = end - begin, x.a += begin * x.a_row, x.c += begin * x.c_row;
  } else {
    x.n = end - begin, x.b += begin * x.b_column, x.c += begin;
  }
  return x;
}

template <typename T>
py::array product(const py::array& a, const py::array& b, const WordTable& table) {
  const std::vector<py::ssize_t> batch = batch_shape(a, b);
  const int64_t da = a.ndim(), db = b.ndim();
  WordBlock<T> x;
  x.m = a.shape(da - 2), x.n = b.shape(db - 1), x.k = a.shape(da - 1);
  x.a_row = stride<T>(a, da - 2), x.a_column = stride<T>(a, da - 1);
  x.b_row = stride<T>(b, db - 2), x.b_column = stride<T>(b, db - 1);
  x.c_row = x.n;
  const std::vector<py::ssize_t> shape = result_shape(batch, x.m, x.n);
  py::array out = empty(a.dtype(), shape);
  const std::vector<int64_t> at_a = batch_offsets(a, batch), at_b = batch_offsets(b, batch);
  const T *from_a = static_cast<const T*>(a.data()), *from_b = static_cast<const T*>(b.data());
  T* c = static_cast<T*>(out.mutable_data());
  {
    py::gil_scoped_release released;
    const int64_t batches = static_cast<int64_t>(at_a.size()), longer = std::max(x.m, x.n);
    const int threads = threads_for(batches * x.m * x.n * std::max<int64_t>(1, x.k), kGrain);
    const int64_t parts = batches >= 2 * threads ? 1 : threads, step = ((longer + parts - 1) / parts + 63) / 64 * 64;
    parallel_tasks(batches * parts, threads, [&](int64_t i) {
      WordBlock<T> one = x;
      one.a = from_a + at_a[i / parts], one.b = from_b + at_b[i / parts], one.c = c + i / parts * x.m * x.n;
      const int64_t begin = std::min(longer, i % parts * step), end = std::min(longer, begin + step);
      if (begin < end) run(table, part(one, begin, end));
    });
  }
  return out;
}

// The array itself, or a copy where its rows run backwards or stand still: tiles walk along them.
py::array forward(const py::array& x) {
  return x.ndim() > 0 && x.strides(x.ndim() - 1) <= 0 ? py::array(x.attr("copy")()) : x;
}

py::array words_matmul(const py::array& given_a, const py::array& given_b, const char* isa) {
  const py::array a = forward(usable(given_a)), b = usable(given_b);
  const int64_t da = a.ndim(), db = b.ndim();
  if (!a.dtype().equal(b.dtype()) || !std::strchr("iu", a.dtype().kind()))
    throw py::type_error("words_matmul: expected two operands of one integer type");
  if (da < 2 || db < 2 || a.shape(da - 1) != b.shape(db - 2))
    throw py::value_error("words_matmul: inner sizes differ: " + shape_text(a) + " @ " + shape_text(b));
  const WordTable& chosen = table<WordTable>(isa_named(isa));
  switch (a.itemsize()) {
    case 1:
      return product<uint8_t>(a, b, chosen);
    case 2:
      return product<uint16_t>(a, b, chosen);
    case 4:
      return product<uint32_t>(a, b, chosen);
    default:
      return product<uint64_t>(a, b, chosen);
  }
}

void bind_integer_words(py::module_& m) {
  m.def("words_matmul", &words_matmul, py::arg("a"), py::arg("b"), py::arg("isa") = "",
        "a[..., m, k] @ b[..., k, n] of integers of one type, which wrap, with any strides.");
}

const Binder binder(bind_integer_words);

}  // namespace
}  // namespace ulpgrad
