#include "integer_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu_features.h"
#include "threads.h"

namespace ulpgrad {
namespace {

__extension__ typedef __int128 Int128;

constexpr double kInt = 2147483647.0, kSafe = 0x1p62;
constexpr int64_t kShortChunk = 16;      // steps of k up to which sums are folded where they arise
constexpr int64_t kSplitSegment = 256;   // 256 products of 16 bits and an unsigned byte fit 32 bits
constexpr int64_t kByteSegment = 32768;  // as do as many products of bytes
constexpr int kStepDigits = 22;          // of a rounded product that a float32 leaves room for beside 3 2^22
constexpr int64_t kWorthwhile = 64;      // steps of k between two folds that leave the dot products most of the time

int64_t code_at(const void* p, Codes codes, int64_t at) {
  switch (codes) {
    case Codes::int8:
      return static_cast<const int8_t*>(p)[at];
    case Codes::uint8:
      return static_cast<const uint8_t*>(p)[at];
    case Codes::int16:
      return static_cast<const int16_t*>(p)[at];
  }
  return 0;
}

// x * 2^-shift to a whole number.
Int128 rounded(Int128 x, int shift, const std::string& rounding) {
  if (shift <= 0) return x * (Int128{1} << -shift);
  const Int128 unit = Int128{1} << shift, down = x >> shift, rest = x - down * unit;
  if (rest == 0 || rounding == "down") return down;
  if (rounding == "up") return down + 1;
  if (rounding == "toward_zero") return down + (x < 0);
  if (rounding == "to_odd") return down | 1;
  if (2 * rest != unit) return down + (2 * rest > unit);
  return rounding == "nearest_even" ? down + (down & 1) : down + (x > 0);
}

Int128 wrapped(Int128 x, int bits) {
  const Int128 turn = Int128{1} << bits, rest = x - (x >> bits) * turn;
  return rest >= turn / 2 ? rest - turn : rest;
}

struct Axis {
  int64_t step, count;  // in bytes
};

// The axes of an array by falling steps, those that go on without a gap in one.
std::vector<Axis> axes_of(const py::array& x) {
  std::vector<Axis> all, joined;
  for (py::ssize_t i = 0; i < x.ndim(); ++i) {
    if (x.strides(i) && x.shape(i) > 1) all.push_back({x.strides(i), x.shape(i)});
  }
  std::sort(all.begin(), all.end(), [](const Axis& a, const Axis& b) { return std::abs(a.step) > std::abs(b.step); });
  for (const Axis& axis : all) {
    if (!joined.empty() && joined.back().step == axis.step * axis.count) {
      joined.back() = {axis.step, joined.back().count * axis.count};
    } else {
      joined.push_back(axis);
    }
  }
  return joined;
}

template <typename T>
int64_t largest_along(const char* data, const Axis* axis, const Axis* end) {
  if (axis == end) return std::abs(int64_t{*reinterpret_cast<const T*>(data)});
  if (axis + 1 == end && axis->step == sizeof(T)) {
    const T* values = reinterpret_cast<const T*>(data);
    T low = 0, high = 0;
    for (int64_t i = 0; i < axis->count; ++i) low = std::min(low, values[i]), high = std::max(high, values[i]);
    return std::max(-int64_t{low}, int64_t{high});
  }
  int64_t most = 0;
  for (int64_t i = 0; i < axis->count; ++i) {
    most = std::max(most, largest_along<T>(data + i * axis->step, axis + 1, end));
  }
  return most;
}

void set_rounding(IntegerPlan& plan, const std::string& rounding) {
  if (plan.shift <= 0) {
    plan.round = plan.shift < 0 ? Round::left : Round::plain;
    return;
  }
  const int64_t half = int64_t{1} << (plan.shift - 1), mask = half - 1 + half;
  plan.round = rounding == "down" || rounding == "up" ? Round::plain : Round::by_bit;
  if (rounding == "nearest_even") plan.round = Round::even;
  plan.by_sign = rounding == "toward_zero" || rounding == "nearest_away";
  if (rounding == "up" || rounding == "to_odd") plan.addend = mask;
  if (rounding == "toward_zero" || rounding == "to_odd") plan.flip = mask;
  if (rounding == "nearest_even" || rounding == "nearest_away") plan.addend = half;
  if (rounding == "nearest_even") plan.flip = mask;
  if (rounding == "nearest_away") plan.flip = half ^ (half - 1);
}

}  // namespace

IntegerIsa::IntegerIsa(const std::string& name) {
  struct Extension {
    const char* name;
    Isa isa;
    bool (*has)();
  };
  constexpr Extension extensions[] = {
#ifdef __aarch64__
      {"neon_dotprod", Isa::portable, has_neon_dotprod},
#else
      {"avx512_vnni", Isa::avx512, has_avx512_vnni},
      {"avx_vnni", Isa::avx2, has_avx_vnni},
#endif
  };
  for (const Extension& e : extensions) {
    const bool is_best = name.empty() && best_isa() == e.isa && e.has();
    if (name == e.name && !e.has())
      throw py::value_error("isa='" + name + "': this CPU, or ULPGRAD_ISA, does not allow it");
    if (name != e.name && !is_best) continue;
    isa = e.isa, vnni = true;
    return;
  }
  isa = isa_named(name.c_str()), vnni = false;
}

int64_t largest(Codes codes) { return codes == Codes::int8 ? 128 : codes == Codes::uint8 ? 255 : 32768; }

int64_t largest(const py::array& x, Codes codes) {
  if (x.size() == 0) return 0;
  const char* data = static_cast<const char*>(x.data());
  const std::vector<Axis> axes = axes_of(x);
  const Axis *const first = axes.data(), *const end = first + axes.size();
  switch (codes) {
    case Codes::int8:
      return largest_along<int8_t>(data, first, end);
    case Codes::uint8:
      return largest_along<uint8_t>(data, first, end);
    case Codes::int16:
      return largest_along<int16_t>(data, first, end);
  }
  return 0;
}

Codes codes_of(const py::array& x, const char* name) {
  if (py::isinstance<py::array_t<int8_t>>(x)) return Codes::int8;
  if (py::isinstance<py::array_t<uint8_t>>(x)) return Codes::uint8;
  if (py::isinstance<py::array_t<int16_t>>(x)) return Codes::int16;
  throw py::type_error(std::string(name) + ": expected int8, uint8 or int16 values, got " +
                       py::str(x.dtype()).cast<std::string>());
}

void check(const Accumulator& accumulator) {
  const auto one_of = [](const std::string& given, std::initializer_list<const char*> names) {
    return std::any_of(names.begin(), names.end(), [&](const char* name) { return given == name; });
  };
  const auto refuse = [](const std::string& what) { throw py::value_error("accumulator: " + what); };
  if (accumulator.bits < 2 || accumulator.bits > 64) refuse("expected 2 to 64 bits");
  if (accumulator.shift < -63 || accumulator.shift > 63) refuse("expected a shift of -63 to 63");
  if (accumulator.chunk < 0) refuse("expected a chunk of at least 1");
  if (!one_of(accumulator.overflow, {"wrap", "saturate", "raise"})) refuse("overflow='" + accumulator.overflow + "'");
  if (!one_of(accumulator.rounding, {"nearest_even", "nearest_away", "toward_zero", "up", "down", "to_odd"}))
    refuse("rounding='" + accumulator.rounding + "'");
}

IntegerPlan make_plan(const Accumulator& accumulator, int64_t k, Codes a, Codes b, int64_t a_largest, int64_t b_largest,
                      bool vnni) {
  IntegerPlan plan;
  plan.bits = accumulator.bits, plan.shift = accumulator.shift;
  const int64_t steps = std::max<int64_t>(1, k), product = a_largest * b_largest;
  const int64_t chunk = accumulator.chunk ? std::min(accumulator.chunk, steps) : steps;
  // Bounds, in magnitude: of a chunk's sum, with what rounding adds; of it rounded; and of all of them added up.
  const double sum = static_cast<double>(chunk) * static_cast<double>(product);
  const double with_addend = plan.shift > 0 ? sum + std::ldexp(1.0, plan.shift) : sum;
  const double more = plan.shift > 0 ? std::ldexp(sum, -plan.shift) + 1 : std::ldexp(sum, -plan.shift);
  const double total = more * std::ceil(static_cast<double>(steps) / static_cast<double>(chunk));
  const double top = std::ldexp(1.0, plan.bits - 1) - 1;

  if (accumulator.overflow == "wrap" || (total <= top && total < kSafe)) {
    plan.limit = Limit::none;
  } else if (accumulator.overflow == "raise") {
    plan.limit = Limit::note;
  } else {
    plan.limit = more <= top ? Limit::clamp : Limit::clamp_both;
  }
  const bool is_free = plan.limit == Limit::none && plan.shift <= 0;  // sums may be cut anywhere
  const bool is_modular = is_free && plan.bits <= 32;
  const bool wraps = plan.limit == Limit::none;
  const bool narrow = is_modular || (with_addend <= kInt && more <= kInt && plan.shift <= 30 &&
                                     (wraps ? plan.bits <= 32 || total <= kInt : plan.bits <= 31));
  plan.wide = !narrow;
  plan.scalar =
      !narrow && !is_free && !(with_addend < kSafe && more < kSafe && plan.shift <= 61 && (wraps || plan.bits <= 63));
  plan.chunk = is_free ? 0 : chunk;
  set_rounding(plan, accumulator.rounding);

  constexpr int64_t unlimited = std::numeric_limits<int64_t>::max();
  const int64_t exact =
      is_modular || product == 0 ? unlimited : std::max<int64_t>(1, static_cast<int64_t>(kInt) / product);
  const bool are_bytes = a != Codes::int16 && b != Codes::int16;
  if (!is_free && chunk <= kShortChunk && chunk <= exact) {
    plan.short_chunks = true, plan.segment = exact;
    const bool fits = plan.shift >= -64 && std::ldexp(static_cast<double>(product), -plan.shift) <= 1 << kStepDigits;
    plan.by_steps = narrow && chunk == 1 && fits && plan.round != Round::by_bit;
  } else if (are_bytes && vnni) {
    plan.units = Units::bytes, plan.segment = kByteSegment;
  } else if (narrow || exact >= std::min(chunk, kWorthwhile)) {
    plan.segment = exact;
  } else {
    plan.units = Units::split, plan.segment = kSplitSegment;
  }
  return plan;
}

void plan_product(IntegerGemm& g, const Accumulator& accumulator, const py::array& a, const py::array& b,
                  int64_t b_least) {
  const auto plan = [&](int64_t x, int64_t y) {
    return make_plan(accumulator, g.k, g.a_codes, g.b_codes, x, y, g.vnni);
  };
  g.plan = plan(largest(g.a_codes), largest(g.b_codes));
  const bool has_words = g.a_codes == Codes::int16 || g.b_codes == Codes::int16;
  const bool steps = accumulator.chunk == 1 && !g.plan.by_steps;
  if (has_words && (g.plan.wide || g.plan.units == Units::split || steps))
    g.plan = plan(largest(a, g.a_codes), std::max(b_least, largest(b, g.b_codes)));
}

IntegerResult integer_result(const IntegerGemm& g, const Accumulator& accumulator, int64_t row, int64_t column) {
  const int64_t chunk = accumulator.chunk ? accumulator.chunk : std::max<int64_t>(1, g.k);
  const Int128 top = (Int128{1} << (accumulator.bits - 1)) - 1, bottom = -top - 1;
  Int128 total = 0;
  IntegerResult result{0, -1};
  const auto limited = [&](Int128 x, int64_t k) {
    if (accumulator.overflow == "wrap") return wrapped(x, accumulator.bits);
    if ((x > top || x < bottom) && result.overflow < 0) result.overflow = k;
    return std::clamp(x, bottom, top);
  };
  for (int64_t first = 0; first < g.k; first += std::min(chunk, g.k - first)) {
    Int128 sum = 0;
    for (int64_t p = first; p < first + std::min(chunk, g.k - first); ++p)
      sum += code_at(g.a, g.a_codes, row * g.a_row + p * g.a_col) *
             code_at(g.b, g.b_codes, p * g.b_row + column * g.b_col);
    total = limited(total + limited(rounded(sum, accumulator.shift, accumulator.rounding), first), first);
  }
  result.value = static_cast<int64_t>(total);
  return result;
}

void multiply(const IntegerGemm& g, const Accumulator& accumulator, Isa isa) {
  if (!g.plan.scalar) return table<IntegerTable>(isa).multiply(g);
  const auto rows = [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; ++at) {
      const int64_t i = at / g.n, j = at % g.n;
      const IntegerResult result = integer_result(g, accumulator, i, j);
      const int64_t place = i * g.c_row + j;
      if (accumulator.bits > 32) {
        static_cast<int64_t*>(g.c)[place] = result.value;
      } else {
        static_cast<int32_t*>(g.c)[place] = static_cast<int32_t>(result.value);
      }
      if (accumulator.overflow != "raise" || result.overflow < 0) continue;
      int64_t seen = __atomic_load_n(g.overflowed, __ATOMIC_RELAXED);
      while (g.c_first + place < seen && !__atomic_compare_exchange_n(g.overflowed, &seen, g.c_first + place, true,
                                                                      __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
      }
    }
  };
  if (g.threaded) {
    parallel_for(g.m * g.n, 1 + (1 << 16) / std::max<int64_t>(1, g.k), rows);
  } else {
    rows(0, g.m * g.n);
  }
  if (g.finish) g.finish(g.with, 0, 0, g.m, g.n);
}

}  // namespace ulpgrad
