// Requantisation: rows of channels, or planes of one channel each, are shared out among threads; or the sums of a
// product as they arise.
#include "requantize.h"

#include <algorithm>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "batches.h"
#include "bind.h"
#include "integer_plan.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kGrain = 1 << 15;  // values that are worth a thread
constexpr int32_t kLargestShift = 62;

// x as [outer, channels, inner].
struct Layout {
  int64_t outer, channels, inner;
};

template <typename Acc, typename Out>
void run_all(const Acc* x, Out* y, const Layout& l, const Scales<Acc>& s, Range range, RequantizeRun<Acc, Out> single,
             RequantizeRun<Acc, Out> per_value) {
  if (l.inner == 1) {
    parallel_for(l.outer, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, l.channels)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i)
                     per_value(x + i * l.channels, y + i * l.channels, l.channels, s, range);
                 });
    return;
  }
  parallel_for(l.outer * l.channels, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, l.inner)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i) {
                   const int64_t c = i % l.channels;
                   single(x + i * l.inner, y + i * l.inner, l.inner, {s.multiplier + c, s.shift + c, s.bias + c},
                          range);
                 }
               });
}

template <typename Out>
struct Call {
  const RequantizeKernels<Out>& kernels;
  const Layout& layout;
  Range range;
  bool even;

  // The loops for one scale and for one per value.
  const RequantizeRun<int32_t, Out>* loops(const Scales<int32_t>& s, bool multiplied) const {
    const auto [least, most] = std::minmax_element(s.shift, s.shift + layout.channels);
    if (multiplied && !even && layout.channels && *least >= 33) return kernels.high;
    return !multiplied && (!layout.channels || *most < 32) ? kernels.shifted[even] : kernels.scaled[even];
  }
  const RequantizeRun<int64_t, Out>* loops(const Scales<int64_t>&, bool) const { return kernels.wide[even]; }

  template <typename Acc>
  void run(const Acc* x, Out* y, const Scales<Acc>& s, bool multiplied) const {
    const auto* const found = loops(s, multiplied);
    run_all(x, y, layout, s, range, found[0], found[1]);
  }
};

// The values of an array with one for each channel, as they are or in `converted`; `usual` for each where it is absent.
template <typename To, typename From>
const To* per_channel(const py::object& given, const char* name, int64_t channels, std::vector<To>& converted,
                      To usual) {
  if (given.is_none()) {
    converted.assign(static_cast<size_t>(channels), usual);
    return converted.data();
  }
  const py::array a = py::cast<py::array>(given);
  const From* const values = contiguous<From>(a, name);
  expect_shape(a, {channels}, name);
  if constexpr (std::is_same_v<To, From>) return values;
  converted.assign(values, values + channels);
  return converted.data();
}

// What scales each channel, in the types that the loops take.
template <typename Acc>
struct Channels {
  std::vector<int32_t> ones;
  std::vector<Acc> shifts, zeros;
  Scales<Acc> scales;

  Channels(const py::object& multiplier, const py::array& shift, const py::object& bias, int64_t count)
      : scales{per_channel<int32_t, int32_t>(multiplier, "multiplier", count, ones, 1),
               per_channel<Acc, int32_t>(shift, "shift", count, shifts, 0),
               per_channel<Acc, Acc>(bias, "bias", count, zeros, 0)} {
    for (int64_t c = 0; c < count; ++c) {
      if (scales.shift[c] < 0 || scales.shift[c] > kLargestShift)
        throw py::value_error("requantize: shift " + std::to_string(scales.shift[c]) + ": expected 0 to 62");
      if (scales.multiplier[c] < 0) throw py::value_error("requantize: expected no negative multiplier");
    }
  }
};

template <typename Acc, typename Out>
py::object requantize_of(const py::array& x, const py::object& multiplier, const py::array& shift,
                         const py::object& bias, int64_t axis, Range range, bool even,
                         const RequantizeKernels<Out>& kernels) {
  const Acc* const from = contiguous<Acc>(x, "x");
  Layout layout{1, x.shape(axis), 1};
  for (int64_t i = 0; i < x.ndim(); ++i) (i < axis ? layout.outer : layout.inner) *= i == axis ? 1 : x.shape(i);
  const Channels<Acc> channels(multiplier, shift, bias, layout.channels);
  py::array_t<Out> y = empty<Out>(std::vector<py::ssize_t>(x.shape(), x.shape() + x.ndim()));
  Out* const to = y.mutable_data();
  {
    py::gil_scoped_release release;
    Call<Out>{kernels, layout, range, even}.run(from, to, channels.scales, !multiplier.is_none());
  }
  return std::move(y);
}

template <typename Out>
void check_range(Range range) {
  const int64_t least = std::numeric_limits<Out>::min(), most = std::numeric_limits<Out>::max();
  if (range.zero_point < least || range.zero_point > most || range.least + range.zero_point < least ||
      range.most + range.zero_point > most || range.least > range.most)
    throw py::value_error("requantize: zero point or clamp outside the result's type");
}

template <typename Out>
py::object requantize_to(const py::array& x, const py::object& multiplier, const py::array& shift,
                         const py::object& bias, int64_t axis, Range range, bool even,
                         const RequantizeKernels<Out>& kernels) {
  if (axis < 0 || axis >= x.ndim()) throw py::value_error("requantize: axis is outside x of shape " + shape_text(x));
  check_range<Out>(range);
  if (py::isinstance<py::array_t<int64_t>>(x)) {
    if (!multiplier.is_none()) throw py::type_error("requantize: a multiplier needs int32 values");
    return requantize_of<int64_t>(x, multiplier, shift, bias, axis, range, even, kernels);
  }
  return requantize_of<int32_t>(x, multiplier, shift, bias, axis, range, even, kernels);
}

// Calls body with the kernels for results of this type.
template <typename Body>
py::object by_result(const py::dtype& dtype, const RequantizeTable& kernels, const Body& body) {
  if (dtype.is(py::dtype::of<int8_t>())) return body(kernels.s8);
  if (dtype.is(py::dtype::of<uint8_t>())) return body(kernels.u8);
  if (dtype.is(py::dtype::of<int16_t>())) return body(kernels.s16);
  if (dtype.is(py::dtype::of<int32_t>())) return body(kernels.s32);
  throw py::type_error("requantize: expected int8, uint8, int16 or int32 for the result");
}

Range range_of(int32_t zero_point, int32_t low, int32_t high) {
  return {zero_point, int64_t{low} - zero_point, int64_t{high} - zero_point};
}

py::object requantize(const py::array& x, const py::object& multiplier, const py::array& shift, const py::object& bias,
                      int64_t axis, int32_t zero_point, int32_t low, int32_t high, bool even, const py::dtype& dtype,
                      const char* isa) {
  return by_result(dtype, table<RequantizeTable>(isa_named(isa)), [&](const auto& kernels) {
    return requantize_to(x, multiplier, shift, bias, axis, range_of(zero_point, low, high), even, kernels);
  });
}

// A part of a product's sums becomes codes while it is in the cache.
template <typename Acc, typename Out>
struct Finish {
  const Acc* sums;
  Out* codes;
  int64_t row;
  Scales<Acc> scales;
  Range range;
  RequantizeRun<Acc, Out> loop;

  static void part(const void* with, int64_t i0, int64_t j, int64_t m, int64_t n) {
    const Finish& f = *static_cast<const Finish*>(with);
    const Scales<Acc> scales{f.scales.multiplier + j, f.scales.shift + j, f.scales.bias + j};
    for (int64_t i = i0; i < i0 + m; ++i) f.loop(f.sums + i * f.row + j, f.codes + i * f.row + j, n, scales, f.range);
  }
};

// x[m, k] times weight[n, k] transposed, on sums of Acc.
template <typename Acc, typename Out>
py::object linear_of(const py::array& x, const py::array& weight, const py::object& multiplier, const py::array& shift,
                     const py::object& bias, Range range, bool even, const IntegerIsa& isa,
                     const RequantizeKernels<Out>& kernels) {
  check_range<Out>(range);
  const Accumulator accumulator{8 * static_cast<int>(sizeof(Acc)), 0, "wrap", "down", 0};
  IntegerGemm g;
  g.a_codes = codes_of(x, "x"), g.b_codes = codes_of(weight, "weight"), g.vnni = isa.vnni;
  g.m = x.shape(0), g.n = weight.shape(0), g.k = x.shape(1), g.c_row = g.n;
  g.a = x.data(), g.a_row = x.strides(0) / x.itemsize(), g.a_col = x.strides(1) / x.itemsize();
  g.b = weight.data(), g.b_row = weight.strides(1) / weight.itemsize(), g.b_col = weight.strides(0) / weight.itemsize();
  const Channels<Acc> channels(multiplier, shift, bias, g.n);
  py::array_t<Acc> sums = empty<Acc>({g.m, g.n});
  py::array_t<Out> codes = empty<Out>({g.m, g.n});
  const auto* const loops =
      Call<Out>{kernels, Layout{g.m, g.n, 1}, range, even}.loops(channels.scales, !multiplier.is_none());
  const Finish<Acc, Out> finish{sums.data(), codes.mutable_data(), g.n, channels.scales, range, loops[1]};
  g.c = sums.mutable_data(), g.finish = Finish<Acc, Out>::part, g.with = &finish;
  {
    py::gil_scoped_release release;
    plan_product(g, accumulator, x, weight);
    multiply(g, accumulator, isa.isa);
  }
  return std::move(codes);
}

py::object integer_linear(const py::array& given_x, const py::array& given_weight, const py::object& multiplier,
                          const py::array& shift, const py::object& bias, int bits, int32_t zero_point, int32_t low,
                          int32_t high, bool even, const py::dtype& dtype, const std::string& name) {
  const IntegerIsa isa(name);
  const py::array x = usable(given_x), weight = usable(given_weight);
  expect_ndim(x, 2, "x");
  expect_shape(weight, {-1, x.shape(1)}, "weight");
  if (bits != 32 && (bits != 64 || !multiplier.is_none()))
    throw py::value_error("integer_linear: expected sums of 32 bits, or of 64 without a multiplier");
  return by_result(dtype, table<RequantizeTable>(isa.isa), [&](const auto& kernels) {
    const Range range = range_of(zero_point, low, high);
    return bits == 32 ? linear_of<int32_t>(x, weight, multiplier, shift, bias, range, even, isa, kernels)
                      : linear_of<int64_t>(x, weight, multiplier, shift, bias, range, even, isa, kernels);
  });
}

void bind_requantize(py::module_& m) {
  m.def("requantize", &requantize, "Accumulators as codes: bias, multiplier, rounded shift, zero point, clamp.",
        py::arg("x"), py::arg("multiplier").none(true), py::arg("shift"), py::arg("bias").none(true), py::kw_only(),
        py::arg("axis"), py::arg("zero_point"), py::arg("low"), py::arg("high"), py::arg("even"), py::arg("dtype"),
        py::arg("isa") = "");
  m.def("integer_linear", &integer_linear, "requantize(x[m, k] @ weight[n, k].T), part by part as the sums arise.",
        py::arg("x"), py::arg("weight"), py::arg("multiplier").none(true), py::arg("shift"), py::arg("bias").none(true),
        py::kw_only(), py::arg("bits"), py::arg("zero_point"), py::arg("low"), py::arg("high"), py::arg("even"),
        py::arg("dtype"), py::arg("isa") = "");
}

const Binder binder(bind_requantize);

}  // namespace
}  // namespace ulpgrad
