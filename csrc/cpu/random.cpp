// Philox random numbers: checks, then chunks of blocks over threads. Every value depends on its index alone.
#include "random.h"

#include "bind_floats.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kGrain = 4096;  // blocks, about 10 us: less does not pay for a thread

int64_t checked(int64_t size) {
  if (size < 0) throw py::value_error("size: expected at least 0, got " + std::to_string(size));
  return size;
}

// Calls body(begin, end), without the GIL, on ranges of blocks that begin at multiples of sixteen.
template <typename Body>
void over_blocks(int64_t size, int64_t per_block, const Body& body) {
  const int64_t blocks = (size + per_block - 1) / per_block, groups = (blocks + 15) / 16;
  py::gil_scoped_release free;
  parallel_for(groups, kGrain / 16,
               [&](int64_t begin, int64_t end) { body(16 * begin, 16 * end < blocks ? 16 * end : blocks); });
}

py::array random_bits(uint64_t key, uint64_t low, uint64_t high, int64_t size, const char* isa) {
  const RandomTable& run = table<RandomTable>(isa_named(isa));
  py::array_t<uint32_t> out = empty<uint32_t>({checked(size)});
  uint32_t* to = out.mutable_data();
  over_blocks(size, 4, [&](int64_t b, int64_t e) { run.bits({key, low, high}, to, size, b, e); });
  return out;
}

py::array random_uniform(uint64_t key, uint64_t low, uint64_t high, int64_t size, int bits, const char* isa) {
  if (bits < 1 || (bits > 24 && bits != 53))
    throw py::value_error("bits: expected 1 to 24 for float32, or 53 for float64; got " + std::to_string(bits));
  const RandomTable& run = table<RandomTable>(isa_named(isa));
  const Stream stream{key, low, high};
  if (bits == 53) {
    py::array_t<double> out = empty<double>({checked(size)});
    double* to = out.mutable_data();
    over_blocks(size, 2, [&](int64_t b, int64_t e) { run.uniform53(stream, to, size, b, e); });
    return out;
  }
  py::array_t<float> out = empty<float>({checked(size)});
  float* to = out.mutable_data();
  const float scale = 1.0f / static_cast<float>(1 << bits);
  over_blocks(size, 4, [&](int64_t b, int64_t e) { run.uniform(stream, to, size, b, e, 32 - bits, scale); });
  return out;
}

py::array random_normal(uint64_t key, uint64_t low, uint64_t high, int64_t size, bool is_double, const char* isa) {
  const RandomTable& run = table<RandomTable>(isa_named(isa));
  const Stream stream{key, low, high};
  if (is_double) {
    py::array_t<double> out = empty<double>({checked(size)});
    double* to = out.mutable_data();
    over_blocks(size, 2, [&](int64_t b, int64_t e) { run.normal53(stream, to, size, b, e); });
    return out;
  }
  py::array_t<float> out = empty<float>({checked(size)});
  float* to = out.mutable_data();
  over_blocks(size, 4, [&](int64_t b, int64_t e) { run.normal(stream, to, size, b, e); });
  return out;
}

// Fisher and Yates, inside out: value i goes to a random place j <= i, and what was there to place i. Two words x give
// j = floor(x span / 2^64), unless the product's lower half says that x would favour some j; then x is drawn again,
// from the stream 2^96 blocks on. See philox.py.
void permute(const RandomTable& run, const Stream& stream, int64_t* out, int64_t size) {
  constexpr int64_t kChunk = 1024;  // values: eight kilobytes of words
  uint32_t words[2 * kChunk];
  for (int64_t start = 0; start < size; start += kChunk) {
    const int64_t count = size - start < kChunk ? size - start : kChunk;
    Stream part = stream;
    part.counter_low += static_cast<uint64_t>(start / 2);
    part.counter_high += part.counter_low < stream.counter_low;
    run.bits(part, words, 2 * count, 0, (count + 1) / 2);
    for (int64_t k = 0; k < count; ++k) {
      const uint64_t span = static_cast<uint64_t>(start + k) + 1;
      uint64_t x = words[2 * k] | uint64_t{words[2 * k + 1]} << 32;
      Stream attempt = part;
      while (x * span < span && x * span < (0 - span) % span) {
        uint32_t again[4];
        attempt.counter_high += uint64_t{1} << 32;
        Stream block = attempt;
        block.counter_low += static_cast<uint64_t>(k / 2);
        block.counter_high += block.counter_low < attempt.counter_low;
        run.bits(block, again, 4, 0, 1);
        x = again[2 * (k % 2)] | uint64_t{again[2 * (k % 2) + 1]} << 32;
      }
      const int64_t j = static_cast<int64_t>((static_cast<unsigned __int128>(x) * span) >> 64);
      out[start + k] = out[j];
      out[j] = start + k;
    }
  }
}

py::array random_permutation(uint64_t key, uint64_t low, uint64_t high, int64_t size, const char* isa) {
  const RandomTable& run = table<RandomTable>(isa_named(isa));
  py::array_t<int64_t> out = empty<int64_t>({checked(size)});
  int64_t* to = out.mutable_data();
  {
    py::gil_scoped_release free;
    permute(run, {key, low, high}, to, size);
  }
  return out;
}

py::array dropout(const py::array& x, uint64_t key, uint64_t low, uint64_t high, uint64_t limit, double scale,
                  const char* isa) {
  const RandomTable& table = ulpgrad::table<RandomTable>(isa_named(isa));
  if (limit > uint64_t{1} << 32) throw py::value_error("limit: expected at most 2^32");
  return by_type(x, "x", [&](auto type) {
    using T = decltype(type);
    const T* from = values<T>(x, "x");
    py::array out = empty_of<T>({x.shape(), x.shape() + x.ndim()});
    T* to = data_of<T>(out);
    const int64_t size = x.size();
    const auto run = of<T>(table.dropout);
    over_blocks(size, 4, [&](int64_t b, int64_t e) {
      run({key, low, high}, from, to, size, b, e, limit, static_cast<Wide<T>>(scale));
    });
    return out;
  });
}

// w % span by two multiplications (Lemire, Kaser and Kurz, "Faster remainder by direct computation", 2019).
uint64_t remainder(uint32_t w, uint64_t span, uint64_t inverse) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(inverse * w) * span) >> 64);
}

py::object integers_among(const py::array& words, uint64_t low, uint64_t span) {
  constexpr uint64_t all = uint64_t{1} << 32;
  if (span < 1 || span > all) throw py::value_error("span: expected 1 to 2^32, got " + std::to_string(span));
  const uint32_t* from = contiguous<uint32_t>(words, "words");
  py::array out = empty(py::dtype::of<int64_t>(), {words.shape(), words.shape() + words.ndim()});
  auto* to = static_cast<uint64_t*>(out.mutable_data());
  const uint64_t limit = all - all % span, inverse = ~uint64_t{0} / span + 1;
  const int64_t size = words.size();
  bool fair = true;
  {
    const py::gil_scoped_release free;
    for (int64_t i = 0; i < size; ++i) {
      fair &= from[i] < limit;
      to[i] = low + (span == all ? from[i] : span == 1 ? 0 : remainder(from[i], span, inverse));
    }
  }
  if (!fair) return py::none();
  return out;
}

void bind_random(py::module_& m) {
  m.def("random_bits", &random_bits, py::arg("key"), py::arg("low"), py::arg("high"), py::arg("size"),
        py::arg("isa") = "", "Words of the Philox4x32-10 stream of a key from block (high, low) on: uint32[size].");
  m.def("random_uniform", &random_uniform, py::arg("key"), py::arg("low"), py::arg("high"), py::arg("size"),
        py::arg("bits"), py::arg("isa") = "", "Uniform multiples of 2^-bits: float32[size], or float64[size] for 53.");
  m.def("random_normal", &random_normal, py::arg("key"), py::arg("low"), py::arg("high"), py::arg("size"),
        py::arg("is_double"), py::arg("isa") = "", "Standard normal values: float32[size] or float64[size].");
  m.def("random_permutation", &random_permutation, py::arg("key"), py::arg("low"), py::arg("high"), py::arg("size"),
        py::arg("isa") = "", "The numbers 0 to size - 1 in random order: int64[size].");
  m.def("integers_among", &integers_among, py::arg("words"), py::arg("low"), py::arg("span"),
        "low + words % span as int64, wrapping; None where a word is so high that it would favour some number.");
  m.def("dropout", &dropout, py::arg("x"), py::arg("key"), py::arg("low"), py::arg("high"), py::arg("limit"),
        py::arg("scale"), py::arg("isa") = "", "x * scale where the element's word is at least limit, else 0.");
}

const Binder binder(bind_random);

}  // namespace
}  // namespace ulpgrad
