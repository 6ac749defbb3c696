// Sums in a chosen accumulator format: checks, then blocks of results over threads. Every result depends on its own
// terms and, where rounding is stochastic, on its own part of the random stream.
#include "accumulate.h"

#include <tuple>
#include <utility>

#include "batches.h"
#include "bind.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kRows = 32, kColumns = 128;  // results in a task
constexpr int64_t kGrain = 1 << 15;            // additions a thread should have at least

// mantissa_bits, min_exponent, max_exponent, max, beyond
using FormatTuple = std::tuple<int, int, int, double, double>;
// random_bits, key, counter_low, counter_high
using RandomTuple = std::tuple<int, uint64_t, uint64_t, uint64_t>;

Accumulation checked(const FormatTuple& format, const RandomTuple& random, int64_t chunk, int64_t k) {
  Accumulation how{};
  AccumulatorFormat& f = how.format;
  std::tie(f.mantissa_bits, f.min_exponent, f.max_exponent, f.max, f.beyond) = format;
  std::tie(how.random_bits, how.key, how.counter_low, how.counter_high) = random;
  const int m = f.mantissa_bits, r = how.random_bits;
  const bool is_double = m == 52 && r == 0 && f.min_exponent == -1022 && f.max_exponent == 1023;
  const bool fits = m >= 1 && m <= 50 && f.min_exponent - m - r >= -1022 && f.min_exponent <= f.max_exponent &&
                    f.max_exponent + 53 - m <= 1023;
  if (!is_double && !fits) throw py::value_error("accumulate: float64 has no room to round to this format");
  if (r < 0 || r > 32 || (r > 0 && m + r > 50))
    throw py::value_error("accumulate: expected at most 32 random bits, and 50 with those of the mantissa");
  if (chunk < 1) throw py::value_error("accumulate: expected chunks of at least 1 term");
  how.chunk = chunk;
  how.blocks = (k + (chunk < k ? (k - 1) / chunk + 1 : 0) + 3) / 4;
  return how;
}

template <typename T>
void run(const AccumulateTable& table, const Accumulation& how, const AccumulateTask<T>& task) {
  if constexpr (sizeof(T) == 4) {
    table.product32(how, task);
  } else {
    table.product64(how, task);
  }
}

template <typename T>
void run(const AccumulateTable& table, const Accumulation& how, const RunningTask<T>& task) {
  if constexpr (sizeof(T) == 4) {
    table.running32(how, task);
  } else {
    table.running64(how, task);
  }
}

template <typename T>
py::array matmul_of(const py::array& given_a, const py::array& given_b, const FormatTuple& format, int64_t chunk,
                    const RandomTuple& random, Isa isa) {
  const py::array a = usable(given_a), b = usable(given_b);
  expect_type<T>(b, "b");
  const int64_t da = a.ndim(), db = b.ndim();
  if (da < 2 || db < 2 || a.shape(da - 1) != b.shape(db - 2))
    throw py::value_error("accumulate: inner sizes differ: " + shape_text(a) + " @ " + shape_text(b));
  const std::vector<py::ssize_t> batch = batch_shape(a, b);
  const int64_t m = a.shape(da - 2), k = a.shape(da - 1), n = b.shape(db - 1);
  const Accumulation how = checked(format, random, chunk, k);
  py::array_t<T> out = empty<T>(result_shape(batch, m, n));
  const std::vector<int64_t> at_a = batch_offsets(a, batch), at_b = batch_offsets(b, batch);
  const int64_t stack = at_a.size();
  T* to = out.mutable_data();
  const AccumulateTable& kernels = table<AccumulateTable>(isa);
  AccumulateTask<T> all{{static_cast<const T*>(a.data()), stride<T>(a, da - 2), stride<T>(a, da - 1)},
                        {static_cast<const T*>(b.data()), stride<T>(b, db - 2), stride<T>(b, db - 1)},
                        {to, n, 1},
                        m,
                        k,
                        n,
                        0};
  // Rows fill the vectors better where there are few columns: the transposed product has the same terms in order.
  const bool flipped = n < m && n < kColumns;
  if (flipped) {
    const auto [left, right] = std::make_pair(all.a, all.b);
    all = {{right.values, right.column, right.row}, {left.values, left.column, left.row}, {to, 1, n}, n, k, m, 0};
  }
  const int64_t across = (all.n + kColumns - 1) / kColumns, down = (all.m + kRows - 1) / kRows;
  {
    py::gil_scoped_release free;
    parallel_tasks(stack * down * across, threads_for(stack * m * n * k, kGrain), [&](int64_t index) {
      const int64_t s = index / (down * across), i = index / across % down * kRows, j = index % across * kColumns;
      AccumulateTask<T> task = all;
      task.a.values += (flipped ? at_b : at_a)[s] + i * all.a.row;
      task.b.values += (flipped ? at_a : at_b)[s] + j * all.b.column;
      task.first = s * m * n + i * all.c.row + j * all.c.column;
      task.c.values += task.first;
      task.m = all.m - i < kRows ? all.m - i : kRows;
      task.n = all.n - j < kColumns ? all.n - j : kColumns;
      run(kernels, how, task);
    });
  }
  return out;
}

template <typename T>
py::array cumulate_of(const py::array& given, const FormatTuple& format, const RandomTuple& random, Isa isa) {
  const py::array x = usable(given);
  const int64_t outer = x.shape(0), k = x.shape(1), inner = x.shape(2);
  const Accumulation how = checked(format, random, k + 1, k);
  py::array_t<T> out = empty<T>({outer, k, inner});
  T* to = out.mutable_data();
  const AccumulateTable& kernels = table<AccumulateTable>(isa);
  const T* from = static_cast<const T*>(x.data());
  const int64_t over = stride<T>(x, 0), along = stride<T>(x, 1), beside = stride<T>(x, 2);
  // Lines side by side are one task: those of an outer index, or all of them where each has only one.
  const int64_t lines = inner == 1 ? outer : inner, groups = inner == 1 ? 1 : outer;
  const int64_t across = (lines + kColumns - 1) / kColumns;
  {
    py::gil_scoped_release free;
    parallel_tasks(groups * across, threads_for(outer * k * inner, kGrain), [&](int64_t index) {
      const int64_t o = index / across, j = index % across * kColumns;
      const int64_t in_step = inner == 1 ? over : beside, out_step = inner == 1 ? k : 1;
      const RunningTask<T> task{{from + o * over + j * in_step, along, in_step},
                                {to + o * k * inner + j * out_step, inner, out_step},
                                k,
                                lines - j < kColumns ? lines - j : kColumns,
                                o * inner + j};
      run(kernels, how, task);
    });
  }
  return out;
}

py::array accumulate_matmul(const py::array& a, const py::array& b, const FormatTuple& format, int64_t chunk,
                            const RandomTuple& random, const char* isa) {
  if (py::isinstance<py::array_t<double>>(a)) return matmul_of<double>(a, b, format, chunk, random, isa_named(isa));
  if (!py::isinstance<py::array_t<float>>(a)) throw py::type_error("a: expected float32 or float64 values");
  return matmul_of<float>(a, b, format, chunk, random, isa_named(isa));
}

py::array accumulate_cumulative_sum(const py::array& x, const FormatTuple& format, const RandomTuple& random,
                                    const char* isa) {
  expect_ndim(x, 3, "x");
  if (py::isinstance<py::array_t<double>>(x)) return cumulate_of<double>(x, format, random, isa_named(isa));
  if (!py::isinstance<py::array_t<float>>(x)) throw py::type_error("x: expected float32 or float64 values");
  return cumulate_of<float>(x, format, random, isa_named(isa));
}

void bind_accumulate(py::module_& m) {
  m.def("accumulate_matmul", &accumulate_matmul, py::arg("a"), py::arg("b"), py::arg("format"), py::arg("chunk"),
        py::arg("random"), py::arg("isa") = "",
        "Products of [..., m, k] and [..., k, n], whose stacks broadcast, with an accumulator of a format\n"
        "(mantissa_bits, min_exponent, max_exponent, max, beyond), rounded to nearest even, or stochastically for\n"
        "random = (bits above 0, key, counter's low half, its high half).");
  m.def("accumulate_cumulative_sum", &accumulate_cumulative_sum, py::arg("x"), py::arg("format"), py::arg("random"),
        py::arg("isa") = "", "Running sums over the middle axis of [outer, n, inner] in an accumulator of a format.");
}

const Binder binder(bind_accumulate);

}  // namespace
}  // namespace ulpgrad
