// Requantisation: rows of channels, or planes of one channel each, are shared out among threads.
#include "requantize.h"

#include <algorithm>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "bind.h"
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

  void run(const int32_t* x, Out* y, const Scales<int32_t>& s, bool multiplied) const {
    const auto [least, most] = std::minmax_element(s.shift, s.shift + layout.channels);
    const bool is_high = multiplied && !even && layout.channels && *least >= 33;
    const bool is_low = !multiplied && (!layout.channels || *most < 32);
    if (is_high) {
      run_all(x, y, layout, s, range, kernels.high[0], kernels.high[1]);
    } else {
      const auto& runs = is_low ? kernels.shifted[even] : kernels.scaled[even];
      run_all(x, y, layout, s, range, runs[0], runs[1]);
    }
  }

  void run(const int64_t* x, Out* y, const Scales<int64_t>& s, bool) const {
    run_all(x, y, layout, s, range, kernels.wide[even][0], kernels.wide[even][1]);
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

template <typename Acc, typename Out>
py::object requantize_of(const py::array& x, const py::object& multiplier, const py::array& shift,
                         const py::object& bias, int64_t axis, Range range, bool even,
                         const RequantizeKernels<Out>& kernels) {
  const Acc* const from = contiguous<Acc>(x, "x");
  Layout layout{1, x.shape(axis), 1};
  for (int64_t i = 0; i < x.ndim(); ++i) (i < axis ? layout.outer : layout.inner) *= i == axis ? 1 : x.shape(i);
  std::vector<int32_t> ones;
  std::vector<Acc> shifts, zeros;
  const Scales<Acc> scales{per_channel<int32_t, int32_t>(multiplier, "multiplier", layout.channels, ones, 1),
                           per_channel<Acc, int32_t>(shift, "shift", layout.channels, shifts, 0),
                           per_channel<Acc, Acc>(bias, "bias", layout.channels, zeros, 0)};
  for (int64_t c = 0; c < layout.channels; ++c) {
    if (scales.shift[c] < 0 || scales.shift[c] > kLargestShift)
      throw py::value_error("requantize: shift " + std::to_string(scales.shift[c]) + ": expected 0 to 62");
    if (scales.multiplier[c] < 0) throw py::value_error("requantize: expected no negative multiplier");
  }
  py::array_t<Out> y = empty<Out>(std::vector<py::ssize_t>(x.shape(), x.shape() + x.ndim()));
  Out* const to = y.mutable_data();
  {
    py::gil_scoped_release release;
    Call<Out>{kernels, layout, range, even}.run(from, to, scales, !multiplier.is_none());
  }
  return std::move(y);
}

template <typename Out>
py::object requantize_to(const py::array& x, const py::object& multiplier, const py::array& shift,
                         const py::object& bias, int64_t axis, Range range, bool even,
                         const RequantizeKernels<Out>& kernels) {
  if (axis < 0 || axis >= x.ndim()) throw py::value_error("requantize: axis is outside x of shape " + shape_text(x));
  const int64_t least = std::numeric_limits<Out>::min(), most = std::numeric_limits<Out>::max();
  if (range.zero_point < least || range.zero_point > most || range.least + range.zero_point < least ||
      range.most + range.zero_point > most || range.least > range.most)
    throw py::value_error("requantize: zero point or clamp outside the result's type");
  if (py::isinstance<py::array_t<int64_t>>(x)) {
    if (!multiplier.is_none()) throw py::type_error("requantize: a multiplier needs int32 values");
    return requantize_of<int64_t>(x, multiplier, shift, bias, axis, range, even, kernels);
  }
  return requantize_of<int32_t>(x, multiplier, shift, bias, axis, range, even, kernels);
}

py::object requantize(const py::array& x, const py::object& multiplier, const py::array& shift, const py::object& bias,
                      int64_t axis, int32_t zero_point, int32_t low, int32_t high, bool even, const py::dtype& dtype,
                      const char* isa) {
  const RequantizeTable& kernels = table<RequantizeTable>(isa_named(isa));
  const Range range{zero_point, int64_t{low} - zero_point, int64_t{high} - zero_point};
  if (dtype.is(py::dtype::of<int8_t>()))
    return requantize_to(x, multiplier, shift, bias, axis, range, even, kernels.s8);
  if (dtype.is(py::dtype::of<uint8_t>()))
    return requantize_to(x, multiplier, shift, bias, axis, range, even, kernels.u8);
  if (dtype.is(py::dtype::of<int16_t>()))
    return requantize_to(x, multiplier, shift, bias, axis, range, even, kernels.s16);
  if (dtype.is(py::dtype::of<int32_t>()))
    return requantize_to(x, multiplier, shift, bias, axis, range, even, kernels.s32);
  throw py::type_error("requantize: expected int8, uint8, int16 or int32 for the result");
}

void bind_requantize(py::module_& m) {
  m.def("requantize", &requantize, "Accumulators as codes: bias, multiplier, rounded shift, zero point, clamp.",
        py::arg("x"), py::arg("multiplier").none(true), py::arg("shift"), py::arg("bias").none(true), py::kw_only(),
        py::arg("axis"), py::arg("zero_point"), py::arg("low"), py::arg("high"), py::arg("even"), py::arg("dtype"),
        py::arg("isa") = "");
}

const Binder binder(bind_requantize);

}  // namespace
}  // namespace ulpgrad
