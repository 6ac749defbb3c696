// How conversions walk over their values: chunks that stay in the first cache, with their random words beside them.
#pragma once

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "bind.h"
#include "quantize.h"
#include "random.h"
#include "threads.h"

namespace ulpgrad {

constexpr int64_t kChunk = 2048, kConversionGrain = 1 << 15;

// Of the random stream: key, counter (low, high), and how many bits of each word count.
using Key = std::array<uint64_t, 4>;

struct Source {
  bool is_double, computes_double = is_double;
  int size() const { return is_double ? 8 : 4; }
};

inline Source source_of(const py::array& x) {
  expect_contiguous(x, "x");
  if (py::isinstance<py::array_t<double>>(x)) {
    expect_type<double>(x, "x");
    return {true};
  }
  expect_type<float>(x, "x");
  return {false};
}

inline Rounding rounding_of(int rounding, const Key& key) {
  if (rounding < 0 || rounding >= roundings)
    throw py::value_error("rounding: " + std::to_string(rounding) + ": expected 0 to 6");
  if (rounding == stochastic && (key[3] < 1 || key[3] > 32))
    throw py::value_error("key: " + std::to_string(key[3]) + " random bits: expected 1 to 32");
  return static_cast<Rounding>(rounding);
}

// An array of the shape of x: codes of so many bytes, or with 0 values of x's type.
inline py::array result(const py::array& x, int code_bytes) {
  const std::vector<py::ssize_t> shape(x.shape(), x.shape() + x.ndim());
  switch (code_bytes) {
    case 1:
      return empty<uint8_t>(shape);
    case 2:
      return empty<uint16_t>(shape);
    case 4:
      return empty<uint32_t>(shape);
  }
  return new_array(x.dtype().release().ptr(), static_cast<int>(shape.size()), shape.data());
}

// Values of a chunk as the loop wants them: in double where its source is float but float does not do.
class Chunk {
 public:
  Chunk(const Source& source, bool values) : widens_(source.computes_double && !source.is_double), values_(values) {}

  const void* read(const void* in, int64_t n) {
    if (!widens_) return in;
    std::copy_n(static_cast<const float*>(in), n, wide_);
    return wide_;
  }
  void* target(void* out) { return widens_ && values_ ? wide_ : out; }
  void write(void* out, int64_t n) {
    if (!widens_ || !values_) return;
    for (int64_t i = 0; i < n; ++i) static_cast<float*>(out)[i] = static_cast<float>(wide_[i]);
  }

 private:
  const bool widens_, values_;
  alignas(64) double wide_[kChunk];
};

// Words [begin, begin + n) of a stream; n at most kChunk.
class Words {
 public:
  const uint32_t* fill(const RandomTable& run, const Key& key, int64_t begin, int64_t n) {
    const uint64_t first = static_cast<uint64_t>(begin / 4);
    Stream part{key[0], key[1] + first, key[2]};
    part.counter_high += part.counter_low < first;
    const int64_t skipped = begin % 4, blocks = (skipped + n + 3) / 4;
    run.bits(part, words_, 4 * blocks, 0, blocks);
    return words_ + skipped;
  }

 private:
  alignas(64) uint32_t words_[kChunk + 8];
};

// Calls body(draws, begin, n) on chunks that cover [0, size), without the GIL; `whole`: on a thread's whole part at
// once.
template <typename Body>
void over_chunks(int64_t size, bool whole, bool draws, const Key& key, Isa isa, const Body& body) {
  const RandomTable& random = table<RandomTable>(isa);
  const py::gil_scoped_release free;
  parallel_for(size, kConversionGrain, [&](int64_t begin, int64_t end) {
    if (whole) return body(Draws{nullptr, 1}, begin, end - begin);
    Words words;
    for (; begin < end; begin += kChunk) {
      const int64_t n = std::min(kChunk, end - begin);
      body(Draws{draws ? words.fill(random, key, begin, n) : nullptr, draws ? static_cast<int>(key[3]) : 1}, begin, n);
    }
  });
}

}  // namespace ulpgrad
