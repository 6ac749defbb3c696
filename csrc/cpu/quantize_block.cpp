// Blocks with a shared power of two: rows of blocks over threads.
#include <cmath>
#include <vector>

#include "quantize_chunks.h"

namespace ulpgrad {
namespace {

// Calls body(row, first block, blocks) on runs of blocks of one row that cover all of them, without the GIL.
template <typename Body>
void over_rows(int64_t rows, int64_t per_row, int64_t size, int64_t most, const Body& body) {
  const py::gil_scoped_release free;
  parallel_for(rows * per_row, std::max<int64_t>(1, kConversionGrain / size), [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t row = begin / per_row, first = begin % per_row;
      const int64_t count = std::min(std::min(end - begin, per_row - first), most);
      body(row, first, count);
      begin += count;
    }
  });
}

void check_block(const py::array& values, int64_t size) {
  expect_ndim(values, 2, "x");
  if (size < 1) throw py::value_error("size: " + std::to_string(size) + ": expected at least 1");
}

py::tuple quantize_blocks(const py::array& x, const py::object& element, int max_exponent, int64_t carry_from,
                          int64_t size, int rounding, const Key& key, const char* isa) {
  check_block(x, size);
  const Isa chosen = isa_named(isa);
  const Rounding mode = rounding_of(rounding, key);
  const Source source = source_of(x);
  if (max_exponent < -1000 || max_exponent > 1000) throw py::value_error("max_exponent: expected -1000 to 1000");
  BlockGrid grid{};
  grid.max_exponent = max_exponent, grid.carry_from = carry_from, grid.size = size;
  grid.is_fixed = py::isinstance<py::tuple>(element);
  if (grid.is_fixed) {
    const auto [fraction_bits, bits] = element.cast<std::pair<int, int>>();
    if (bits < 2 || bits > 8 || fraction_bits < -100 || fraction_bits > 100)
      throw py::value_error("element: expected (fraction bits, 2 to 8 bits)");
    const double top = static_cast<double>(1 << (bits - 1));
    grid.fixed = {std::ldexp(1.0, fraction_bits), -top, top - 1, bits, false};
  } else {
    grid.element = element.cast<FloatGrid>();
    const FloatGrid& g = grid.element;
    if (!is_plain(g) || g.sign > 0x80 || g.min_exponent < -200 || g.min_exponent > 100)
      throw py::value_error(
          "element: expected a float of at most 8 bits with a sign, a negative zero and mantissa bits");
  }
  const int64_t rows = x.shape(0), length = x.shape(1), per_row = (length + size - 1) / size;
  py::array_t<uint8_t> codes = empty<uint8_t>({rows, length}), scales = empty<uint8_t>({rows, per_row});
  const char* from = static_cast<const char*>(x.data());
  uint8_t *to = codes.mutable_data(), *to_scales = scales.mutable_data();
  const BlockLoop loop = table<ToBlockTable>(chosen).to_blocks[source.is_double][mode];
  const RandomTable& random = table<RandomTable>(chosen);
  if (rows * length > 0) {
    over_rows(rows, per_row, size, mode == stochastic ? std::max<int64_t>(1, kChunk / size) : per_row,
              [&](int64_t row, int64_t first, int64_t count) {
                const int64_t begin = row * length + first * size, n = std::min(count * size, length - first * size);
                std::vector<uint32_t> words;
                if (mode == stochastic) {
                  words.resize(n);
                  Words part;
                  for (int64_t i = 0; i < n; i += kChunk) {
                    const int64_t some = std::min(kChunk, n - i);
                    std::copy_n(part.fill(random, key, begin + i, some), some, words.data() + i);
                  }
                }
                const Draws draws{words.data(), mode == stochastic ? static_cast<int>(key[3]) : 1};
                loop(grid, draws, from + begin * source.size(), to + begin, to_scales + row * per_row + first, n);
              });
  }
  return py::make_tuple(codes, scales);
}

// 2^(scale - 127), NaN for 0xFF.
float scale_value(uint8_t scale) {
  const uint32_t bits = scale == 0xFF ? 0x7FC00000u : scale == 0 ? 0x00400000u : uint32_t{scale} << 23;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <typename T>
void decode(const float* table, const uint8_t* codes, const uint8_t* scales, T* out, int64_t size, int64_t n) {
  for (int64_t at = 0; at < n; at += size) {
    const T scale = scale_value(*scales++);
    const int64_t end = std::min(at + size, n);
    for (int64_t i = at; i < end; ++i) out[i] = static_cast<T>(table[codes[i]]) * scale;
  }
}

template <typename T>
py::array decoded(const py::array& codes, const uint8_t* scales, const float* table, int64_t size) {
  const int64_t rows = codes.shape(0), length = codes.shape(1), per_row = (length + size - 1) / size;
  py::array_t<T> out = empty<T>({rows, length});
  T* to = out.mutable_data();
  const uint8_t* from = static_cast<const uint8_t*>(codes.data());
  if (rows * length > 0) {
    over_rows(rows, per_row, size, per_row, [&](int64_t row, int64_t first, int64_t count) {
      const int64_t begin = row * length + first * size;
      decode(table, from + begin, scales + row * per_row + first, to + begin, size,
             std::min(count * size, length - first * size));
    });
  }
  return out;
}

py::array dequantize_blocks(const py::array& codes, const py::array& scales, const py::array& values, int64_t size,
                            bool to_double) {
  check_block(codes, size);
  contiguous<uint8_t>(codes, "codes");
  const uint8_t* from_scales = contiguous<uint8_t>(scales, "scales");
  const float* table = contiguous<float>(values, "values");
  expect_shape(values, {256}, "values");
  expect_shape(scales, {codes.shape(0), (codes.shape(1) + size - 1) / size}, "scales");
  if (to_double) return decoded<double>(codes, from_scales, table, size);
  return decoded<float>(codes, from_scales, table, size);
}

void bind(py::module_& m) {
  m.def("quantize_blocks", &quantize_blocks, py::arg("x"), py::arg("element"), py::arg("max_exponent"),
        py::arg("carry_from"), py::arg("size"), py::arg("rounding"), py::arg("key") = Key{}, py::arg("isa") = "",
        "(codes, scales) of rows of blocks; element is a FloatGrid, or (fraction bits, bits) of signed fixed point.");
  m.def("dequantize_blocks", &dequantize_blocks, py::arg("codes"), py::arg("scales"), py::arg("values"),
        py::arg("size"), py::arg("to_double"), "Values of rows of blocks: values[code] times the block's scale.");
}

const Binder binder(bind);

}  // namespace
}  // namespace ulpgrad
