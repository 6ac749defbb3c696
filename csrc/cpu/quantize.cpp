// Conversions with a choice of rounding: checks, then chunks over threads. Every result depends on its own value and
// index alone.
#include "quantize.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>

#include "elementwise_callable.h"
#include "quantize_chunks.h"

namespace ulpgrad {
namespace {

using Codes = std::array<uint32_t, 2>;
using Values = std::array<double, 2>;

int within(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    throw py::value_error(std::string(name) + ": " + std::to_string(value) + ": expected " + std::to_string(low) +
                          " to " + std::to_string(high));
  }
  return static_cast<int>(value);
}

FloatGrid float_grid(int mantissa_bits, int min_exponent, int64_t max_code, int64_t kept_from, uint32_t sign,
                     const Codes& zero, const Codes& beyond, const Codes& infinity, const Codes& nan,
                     const Values& beyond_value, const Values& infinity_value) {
  FloatGrid g{};
  g.mantissa_bits = within("mantissa_bits", mantissa_bits, 0, 23);
  g.min_exponent = within("min_exponent", min_exponent, -1022 + mantissa_bits, 1000);
  g.max_code = within("max_code", max_code, 1, 0x7FFFFFFF);
  g.kept_from = within("kept_from", kept_from, 0, int64_t{1} << mantissa_bits);
  if (sign & (sign - 1)) throw py::value_error("sign: expected one bit, or 0");
  g.sign = sign;
  for (int i = 0; i < 2; ++i) {
    g.zero[i] = zero[i], g.beyond[i] = beyond[i], g.infinity[i] = infinity[i], g.nan[i] = nan[i];
    g.beyond_value[i] = beyond_value[i], g.infinity_value[i] = infinity_value[i];
  }
  return g;
}

// Whether float's normal range holds that of a grid; if not, the loops take double.
bool fits_float(const FloatGrid& g) {
  return g.min_exponent >= -126 && (g.max_code >> g.mantissa_bits) - 1 + g.min_exponent <= 127;
}

struct FloatJob {
  const FloatGrid& grid;
  FloatLoop loop;
  Source source;
  int size_out;  // bytes
  bool values;
};

template <typename Out, typename In>
void below_zero(const void* in, void* out, int64_t n, Out code) {
  const In* x = static_cast<const In*>(in);
  Out* y = static_cast<Out*>(out);
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] < 0 ? code : y[i];
}

// Where there is no sign, everything below zero becomes one code, also what rounds to zero.
template <typename In>
void without_sign(const FloatJob& job, const void* in, void* out, int64_t n) {
  if (job.values) return below_zero<In, In>(in, out, n, static_cast<In>(job.grid.beyond_value[1]));
  const uint32_t code = job.grid.beyond[1];
  if (job.size_out == 1) return below_zero<uint8_t, In>(in, out, n, static_cast<uint8_t>(code));
  if (job.size_out == 2) return below_zero<uint16_t, In>(in, out, n, static_cast<uint16_t>(code));
  below_zero<uint32_t, In>(in, out, n, code);
}

void convert(const FloatJob& job, const Draws& draws, const void* in, void* out, int64_t n) {
  Chunk chunk(job.source, job.values);
  job.loop(job.grid, draws, chunk.read(in, n), chunk.target(out), n);
  chunk.write(out, n);
  if (job.grid.sign) return;
  if (job.source.is_double) return without_sign<double>(job, in, out, n);
  without_sign<float>(job, in, out, n);
}

FloatLoop find_loop(const FloatGrid& g, const Source& source, Rounding rounding, int target, const QuantizeTable& t) {
  if (!source.computes_double && rounding == nearest_even && is_plain(g)) return t.plain[target];
  return t.to_float[source.computes_double][rounding][target];
}

int target_of(int code_bytes) {
  switch (code_bytes) {
    case 0:
      return same_type;
    case 1:
      return codes8;
    case 2:
      return codes16;
    case 4:
      return codes32;
  }
  throw py::value_error("code_bytes: " + std::to_string(code_bytes) + ": expected 1, 2, 4, or 0 for values");
}

py::array quantize_float(const py::array& x, const FloatGrid& grid, int rounding, int code_bytes, const Key& key,
                         const char* isa) {
  const Isa chosen = isa_named(isa);
  const Rounding mode = rounding_of(rounding, key);
  Source source = source_of(x);
  source.computes_double = source.is_double || !fits_float(grid);
  const int target = target_of(code_bytes);
  const FloatJob job{grid, find_loop(grid, source, mode, target, table<QuantizeTable>(chosen)), source,
                     code_bytes ? code_bytes : source.size(), code_bytes == 0};
  py::array out = result(x, code_bytes);
  const char* from = static_cast<const char*>(x.data());
  char* to = static_cast<char*>(out.mutable_data());
  const bool whole = mode != stochastic && source.computes_double == source.is_double && grid.sign;
  over_chunks(x.size(), whole, mode == stochastic, key, chosen, [&](const Draws& draws, int64_t begin, int64_t n) {
    convert(job, draws, from + begin * source.size(), to + begin * job.size_out, n);
  });
  return out;
}

py::tuple count_float(const py::array& x, const FloatGrid& grid, int rounding, const Key& key, const char* isa) {
  const Isa chosen = isa_named(isa);
  const Rounding mode = rounding_of(rounding, key);
  Source source = source_of(x);
  source.computes_double = source.is_double || !fits_float(grid);
  const CountLoop loop = table<QuantizeTable>(chosen).count[source.computes_double][mode];
  const char* from = static_cast<const char*>(x.data());
  std::atomic<int64_t> overflowed{0}, underflowed{0}, flushed{0}, nan{0}, infinite{0};
  over_chunks(x.size(), false, mode == stochastic, key, chosen, [&](const Draws& draws, int64_t begin, int64_t n) {
    Chunk chunk(source, true);
    Counts counts{};
    loop(grid, draws, chunk.read(from + begin * source.size(), n), counts, n);
    overflowed += counts.overflowed, underflowed += counts.underflowed, flushed += counts.flushed;
    nan += counts.nan, infinite += counts.infinite;
  });
  return py::make_tuple(overflowed.load(), underflowed.load(), flushed.load(), nan.load(), infinite.load());
}

// A grid in the callable that converts arrays of any layout to nearest even.
py::object float_converter(const FloatGrid& grid, bool is_double, int code_bytes, const char* isa) {
  const Source source{is_double, is_double || !fits_float(grid)};
  const FloatLoop loop =
      find_loop(grid, source, nearest_even, target_of(code_bytes), table<QuantizeTable>(isa_named(isa)));
  if (!code_bytes) throw py::value_error("code_bytes: expected 1, 2 or 4");
  auto call = std::make_unique<ElementwiseCall>();
  call->name = "cast";
  call->operands = {{is_double ? py::dtype::num_of<double>() : py::dtype::num_of<float>(), source.size()}};
  call->result = {code_bytes == 1   ? py::dtype::num_of<uint8_t>()
                  : code_bytes == 2 ? py::dtype::num_of<uint16_t>()
                                    : py::dtype::num_of<uint32_t>(),
                  code_bytes};
  call->cast = [=](const void* in, void* out, int64_t n) {
    const FloatJob job{grid, loop, source, code_bytes, false};
    if (source.computes_double == source.is_double && grid.sign) return loop(grid, {nullptr, 1}, in, out, n);
    for (int64_t begin = 0; begin < n; begin += kChunk)
      convert(job, {nullptr, 1}, static_cast<const char*>(in) + begin * source.size(),
              static_cast<char*>(out) + begin * code_bytes, std::min(kChunk, n - begin));
  };
  call->computed_size = std::max(source.size(), code_bytes);
  call->params = 0;
  call->grain = 1 << 15;
  call->loop = nullptr;
  return make_callable(std::move(call));
}

// One value for each code, looked up: four loads a cycle would be the limit, and the stores are.
template <typename Code, typename T>
void look_up(const T* table, size_t mask, const void* in, void* out, int64_t n) {
  const Code* x = static_cast<const Code*>(in);
  T* y = static_cast<T*>(out);
  for (int64_t i = 0; i < n; ++i) y[i] = table[x[i] & mask];
}

template <typename Code, typename T>
CastFunction looks_up(const py::array& values) {
  const T* from = static_cast<const T*>(values.data());
  const std::vector<T> table(from, from + values.size());
  return [table, mask = table.size() - 1](const void* in, void* out, int64_t n) {
    look_up<Code>(table.data(), mask, in, out, n);
  };
}

py::object table_decoder(const py::array& values, int code_bytes) {
  expect_ndim(values, 1, "values");
  expect_contiguous(values, "values");
  const bool is_double = py::isinstance<py::array_t<double>>(values);
  if (!is_double) expect_type<float>(values, "values");
  const int64_t size = values.size();
  if (size < 2 || (size & (size - 1)) || size > 65536) throw py::value_error("values: expected 2, 4, ... or 65536");
  if (code_bytes != 1 && code_bytes != 2) throw py::value_error("code_bytes: expected 1 or 2");
  auto call = std::make_unique<ElementwiseCall>();
  call->name = "cast";
  call->operands = {{code_bytes == 1 ? py::dtype::num_of<uint8_t>() : py::dtype::num_of<uint16_t>(), code_bytes}};
  call->result = {values.dtype().num(), is_double ? 8 : 4};
  call->cast = code_bytes == 1 ? (is_double ? looks_up<uint8_t, double>(values) : looks_up<uint8_t, float>(values))
                               : (is_double ? looks_up<uint16_t, double>(values) : looks_up<uint16_t, float>(values));
  call->computed_size = call->result.size;
  call->params = 0;
  call->grain = 1 << 15;
  call->loop = nullptr;
  return make_callable(std::move(call));
}

void bind(py::module_& m) {
  py::class_<FloatGrid>(m, "FloatGrid", "A float as rounding sees it.")
      .def(py::init(&float_grid), py::kw_only(), py::arg("mantissa_bits"), py::arg("min_exponent"), py::arg("max_code"),
           py::arg("kept_from"), py::arg("sign"), py::arg("zero"), py::arg("beyond"), py::arg("infinity"),
           py::arg("nan"), py::arg("beyond_value"), py::arg("infinity_value"));
  m.def("quantize_float", &quantize_float, py::arg("x"), py::arg("grid"), py::arg("rounding"), py::arg("code_bytes"),
        py::arg("key") = Key{}, py::arg("isa") = "", "Codes of a float of any size, or (code_bytes=0) the values.");
  m.def("count_float", &count_float, py::arg("x"), py::arg("grid"), py::arg("rounding"), py::arg("key") = Key{},
        py::arg("isa") = "", "How many values overflow, underflow, are flushed, are NaN, are infinite.");
  m.def("float_converter", &float_converter, py::arg("grid"), py::arg("is_double"), py::arg("code_bytes"),
        py::arg("isa") = "", "The function that converts arrays to codes, rounding to nearest even.");
  m.def("table_decoder", &table_decoder, py::arg("values"), py::arg("code_bytes"),
        "The function that turns arrays of codes into values[code].");
}

const Binder binder(bind);

}  // namespace
}  // namespace ulpgrad
