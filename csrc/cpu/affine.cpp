// Conversion to affine formats: rows of channels, planes of one channel, or, with one scale, any stretch of values are
// shared out among threads.
#include "affine.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "bind.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kGrain = 1 << 15;  // values that are worth a thread

template <typename T, typename Out>
bool run_all(const T* x, Out* y, int64_t outer, int64_t channels, int64_t inner, const AffineGrid& g,
             const AffineRun<T, Out> (&runs)[2]) {
  std::atomic<bool> unordered{false};
  const auto note = [&](bool found) {
    if (found) unordered = true;
  };
  if (channels == 1) {
    parallel_for(outer * inner, kGrain,
                 [&](int64_t begin, int64_t end) { note(runs[0](x + begin, y + begin, end - begin, g)); });
  } else if (inner == 1) {
    parallel_for(outer, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, channels)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) note(runs[1](x + i * channels, y + i * channels, channels, g));
    });
  } else {
    parallel_for(outer * channels, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, inner)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) {
                     const int64_t c = i % channels;
                     const AffineGrid one{g.scale + c, g.zero_point + c, g.low, g.high};
                     note(runs[0](x + i * inner, y + i * inner, inner, one));
                   }
                 });
  }
  return unordered;
}

template <typename T, typename Out>
py::object affine_of(const py::array& x, int64_t outer, int64_t channels, int64_t inner, const AffineGrid& g,
                     const AffineRun<T, Out> (&runs)[2]) {
  const T* const from = contiguous<T>(x, "x");
  py::array_t<Out> y = empty<Out>(std::vector<py::ssize_t>(x.shape(), x.shape() + x.ndim()));
  Out* const to = y.mutable_data();
  bool unordered = false;
  {
    py::gil_scoped_release release;
    unordered = run_all(from, to, outer, channels, inner, g, runs);
  }
  return py::make_tuple(y, unordered);
}

template <typename T>
py::object affine_to(const py::array& x, int64_t outer, int64_t channels, int64_t inner, const AffineGrid& g,
                     bool is_signed, bool values, const AffineKernels<T>& kernels) {
  if (values) return affine_of<T, T>(x, outer, channels, inner, g, kernels.values);
  if (is_signed) return affine_of<T, int8_t>(x, outer, channels, inner, g, kernels.s8);
  return affine_of<T, uint8_t>(x, outer, channels, inner, g, kernels.u8);
}

py::object quantize_affine(const py::array& x, const py::array& scale, const py::array& zero_point, int64_t axis,
                           bool is_signed, bool values, const char* isa) {
  const AffineTable& kernels = table<AffineTable>(isa_named(isa));
  int64_t outer = 1, channels = 1, inner = 1;
  if (axis >= x.ndim()) throw py::value_error("quantize_affine: axis is outside x of shape " + shape_text(x));
  for (int64_t i = 0; i < x.ndim(); ++i) (i == axis ? channels : i < axis ? outer : inner) *= x.shape(i);
  const AffineGrid g{contiguous<double>(scale, "scale"), contiguous<double>(zero_point, "zero_point"),
                     is_signed ? -128.0 : 0.0, is_signed ? 127.0 : 255.0};
  expect_shape(scale, {channels}, "scale");
  expect_shape(zero_point, {channels}, "zero_point");
  if (py::isinstance<py::array_t<double>>(x))
    return affine_to<double>(x, outer, channels, inner, g, is_signed, values, kernels.f64);
  return affine_to<float>(x, outer, channels, inner, g, is_signed, values, kernels.f32);
}

void bind_affine(py::module_& m) {
  m.def(
      "quantize_affine", &quantize_affine,
      "(codes, or with values=True what they stand for, of C-contiguous float32 or float64 values; whether there was a "
      "NaN). axis=-1: one scale for all.",
      py::arg("x"), py::arg("scale"), py::arg("zero_point"), py::kw_only(), py::arg("axis"), py::arg("is_signed"),
      py::arg("values"), py::arg("isa") = "");
}

const Binder binder(bind_affine);

}  // namespace
}  // namespace ulpgrad
