// Fixed point: checks, then chunks over threads.
#include <atomic>
#include <cmath>

#include "elementwise_callable.h"
#include "quantize_chunks.h"

namespace ulpgrad {
namespace {

FixedGrid fixed_grid(int fraction_bits, int bits, bool is_signed, bool wraps) {
  if (fraction_bits < -1000 || fraction_bits > 1000)
    throw py::value_error("fraction_bits: " + std::to_string(fraction_bits) + ": expected -1000 to 1000");
  if (bits < 1 || bits > 32) throw py::value_error("bits: " + std::to_string(bits) + ": expected 1 to 32");
  const double top = std::ldexp(1.0, bits - is_signed);
  return {std::ldexp(1.0, fraction_bits), is_signed ? -top : 0.0, top - 1, bits, wraps};
}

// In float where nothing is lost: codes that its 24 digits hold with a rounding to spare, products that do not
// underflow.
bool fits_float(const FixedGrid& g) { return !g.wraps && g.bits <= 16 && g.scale >= 1 && g.scale <= 0x1p100; }

py::tuple quantize_fixed(const py::array& x, int fraction_bits, int bits, bool is_signed, bool wraps, int rounding,
                         int code_bytes, const Key& key, const char* isa) {
  const Isa chosen = isa_named(isa);
  const Rounding mode = rounding_of(rounding, key);
  const FixedGrid grid = fixed_grid(fraction_bits, bits, is_signed, wraps);
  Source source = source_of(x);
  source.computes_double = source.is_double || !fits_float(grid);
  if (code_bytes && 8 * code_bytes < bits) throw py::value_error("code_bytes: too few for the word");
  const int target = code_bytes == 0 ? same_type : code_bytes == 1 ? codes8 : code_bytes == 2 ? codes16 : codes32;
  py::array out = result(x, code_bytes);
  const FixedLoop loop = table<ToFixedTable>(chosen).to_fixed[source.computes_double][mode][target];
  const char* from = static_cast<const char*>(x.data());
  char* to = static_cast<char*>(out.mutable_data());
  const int size_out = code_bytes ? code_bytes : source.size();
  std::atomic<int64_t> wild{0};
  over_chunks(x.size(), false, mode == stochastic, key, chosen, [&](const Draws& draws, int64_t begin, int64_t n) {
    Chunk chunk(source, code_bytes == 0);
    char* at = to + begin * size_out;
    const int64_t found = loop(grid, draws, chunk.read(from + begin * source.size(), n), chunk.target(at), n);
    chunk.write(at, n);
    if (found) wild += found;
  });
  return py::make_tuple(out, wild.load());
}

template <typename Code, typename T>
CastFunction steps(double step) {
  return [=](const void* in, void* out, int64_t n) {
    const Code* __restrict x = static_cast<const Code*>(in);
    T* __restrict y = static_cast<T*>(out);
    for (int64_t i = 0; i < n; ++i) y[i] = static_cast<T>(x[i]) * static_cast<T>(step);
  };
}

template <typename Code>
py::object decoder(int fraction_bits, bool to_double) {
  auto call = std::make_unique<ElementwiseCall>();
  const double step = std::ldexp(1.0, -fraction_bits);
  call->name = "fixed_decoder";
  call->operands = {{py::dtype::num_of<Code>(), sizeof(Code)}};
  call->result = {to_double ? py::dtype::num_of<double>() : py::dtype::num_of<float>(), to_double ? 8 : 4};
  call->cast = to_double ? steps<Code, double>(step) : steps<Code, float>(step);
  call->computed_size = std::max<int>(sizeof(Code), call->result.size);
  call->params = 0;
  call->grain = kConversionGrain;
  call->loop = nullptr;
  return make_callable(std::move(call));
}

py::object fixed_decoder(const std::string& code, int fraction_bits, bool to_double) {
  if (fraction_bits < -1000 || fraction_bits > 1000) throw py::value_error("fraction_bits: expected -1000 to 1000");
  if (code == "int8") return decoder<int8_t>(fraction_bits, to_double);
  if (code == "uint8") return decoder<uint8_t>(fraction_bits, to_double);
  if (code == "int16") return decoder<int16_t>(fraction_bits, to_double);
  if (code == "uint16") return decoder<uint16_t>(fraction_bits, to_double);
  if (code == "int32") return decoder<int32_t>(fraction_bits, to_double);
  if (code == "uint32") return decoder<uint32_t>(fraction_bits, to_double);
  throw py::value_error("fixed_decoder: codes in '" + code + "': expected 8, 16 or 32 bits");
}

void bind(py::module_& m) {
  m.def("quantize_fixed", &quantize_fixed, py::arg("x"), py::arg("fraction_bits"), py::arg("bits"),
        py::arg("is_signed"), py::arg("wraps"), py::arg("rounding"), py::arg("code_bytes"), py::arg("key") = Key{},
        py::arg("isa") = "", "(codes, or with code_bytes=0 values; how many were NaN, or where it wraps, not finite).");
  m.def("fixed_decoder", &fixed_decoder, py::arg("code"), py::arg("fraction_bits"), py::arg("to_double"),
        "The function that turns arrays of codes into code * 2^-fraction_bits.");
}

const Binder binder(bind);

}  // namespace
}  // namespace ulpgrad
