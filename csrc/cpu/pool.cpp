// Pooling: planes are shared out among threads; what one plane gives depends on nothing else.
#include "pool.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>

#include "pool_images.h"

namespace ulpgrad {
namespace {

const PoolKernels<float>& kernels(Isa isa, float) { return table<PoolTable>(isa).f32; }
const PoolKernels<double>& kernels(Isa isa, double) { return table<PoolTable>(isa).f64; }

PoolGeometry checked(Pair size, Pair kernel, Pair stride, Pair padding, Pair dilation, bool include_padding) {
  PoolGeometry p{size[0], size[1], 0, 0, {}, {}, {}, {}, include_padding};
  Pair positions;
  for (int i = 0; i < 2; ++i) {
    if (kernel[i] < 1 || stride[i] < 1 || padding[i] < 0 || dilation[i] < 1 || size[i] < 0)
      throw py::value_error("pool: expected positive kernel, stride and dilation, and no negative padding");
    for (const int64_t setting : {kernel[i], stride[i], padding[i], dilation[i], size[i]}) {
      if (setting > INT32_MAX) throw py::value_error("pool: a setting above 2^31 - 1");  // products then fit int64_t
    }
    const int64_t room = size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1;
    if (room < 0) throw py::value_error("pool: the kernel is larger than the padded image");
    positions[i] = room / stride[i] + 1;
    p.kernel[i] = kernel[i], p.stride[i] = stride[i], p.padding[i] = padding[i], p.dilation[i] = dilation[i];
  }
  if (size[0] * size[1] > INT32_MAX) throw py::value_error("pool: images of more than 2^31 values");
  p.rows = positions[0], p.columns = positions[1];
  return p;
}

int64_t grain(const PoolGeometry& p) { return planes_for_a_thread(p.rows * p.columns * p.kernel[0] * p.kernel[1]); }

template <typename S>
py::object max_pool2d_of(const py::array& x, const PoolGeometry& p, Isa isa) {
  py::array indices = empty_images(x, py::dtype::of<int64_t>(), x.shape(0), x.shape(1), p.rows, p.columns);
  int64_t* const places = data_of<int64_t>(indices);
  const py::array y = pooled<S>(
      x, {p.rows, p.columns}, grain(p), isa,
      [&](const auto& images, S* to) { max_pool_pixels(images, p, to, places, isa); },
      [&](const auto* from, auto* to, int64_t i) {
        kernels(isa, Wide<S>()).max(p, from, to, places + i * p.rows * p.columns);
      });
  return py::make_tuple(y, indices);
}

// Gradients of one plane to where the largest values were; whether all places are in it.
template <typename T>
bool scatter(const T* g, const int64_t* places, int64_t count, T* dx, int64_t size) {
  bool inside = true;
  std::fill(dx, dx + size, T(0));
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t place = static_cast<uint64_t>(places[i]);
    if (place < static_cast<uint64_t>(size)) {
      dx[place] += g[i];
    } else {
      inside = false;
    }
  }
  return inside;
}

template <typename S>
py::object max_pool2d_gradient_of(const py::array& given, const py::array& given_places, Pair size, Isa isa) {
  expect_type<int64_t>(given_places, "indices");
  expect_shape(given_places, {given.shape(0), given.shape(1), given.shape(2), given.shape(3)}, "indices");
  if (size[0] < 0 || size[1] < 0) throw py::value_error("max_pool2d_gradient: expected a size that is not negative");
  const bool last = lies_last(given_places);
  const py::array g = laid(given, last), indices = laid(given_places, last);
  const int64_t* const places = static_cast<const int64_t*>(indices.data());
  const int64_t count = g.shape(2) * g.shape(3), values = size[0] * size[1];
  std::atomic<bool> inside{true};
  py::array dx = pooled<S>(
      g, size, planes_for_a_thread(values + count), isa,
      [&](const auto& images, S* to) { inside = max_pool_pixels_gradient(images, places, count, values, to, isa); },
      [&](const auto* from, auto* to, int64_t i) {
        if (!scatter(from, places + i * count, count, to, values)) inside = false;
      });
  if (!inside) throw py::index_error("max_pool2d_gradient: an index is outside the image");
  return std::move(dx);
}

template <typename S>
py::object avg_pool2d_of(const py::array& x, const PoolGeometry& p, Isa isa) {
  return pooled<S>(
      x, {p.rows, p.columns}, grain(p), isa, [&](const auto& images, S* to) { avg_pool_pixels(images, p, to, isa); },
      [&](const auto* from, auto* to, int64_t) { kernels(isa, Wide<S>()).avg(p, from, to); });
}

template <typename S>
py::object avg_pool2d_gradient_of(const py::array& g, const PoolGeometry& p, Isa isa) {
  expect_shape(g, {-1, -1, p.rows, p.columns}, "g");
  return pooled<S>(
      g, {p.height, p.width}, grain(p), isa,
      [&](const auto& images, S* to) { avg_pool_pixels_gradient(images, p, to, isa); },
      [&](const auto* from, auto* to, int64_t) {
        std::fill(to, to + p.height * p.width, Wide<S>(0));
        kernels(isa, Wide<S>()).avg_gradient(p, from, to);
      });
}

// Means of windows whose sum would not fit 32 bits are refused.
constexpr int64_t kLargestWindow = 1 << 15;

template <typename T>
py::object integer_pool_of(const py::array& x, const PoolGeometry& p, bool mean, int32_t padding_value, bool even,
                           const IntegerPoolKernels<T>& kernels) {
  const T* const from = contiguous<T>(x, "x");
  py::array_t<T> y = empty<T>({x.shape(0), x.shape(1), p.rows, p.columns});
  T* const to = y.mutable_data();
  const int64_t planes = x.shape(0) * x.shape(1), size = p.rows * p.columns;
  {
    py::gil_scoped_release release;
    parallel_for(planes, grain(p), [&](int64_t begin, int64_t end) {
      void* const memory = scratch(Slot::caller, p.rows * (p.width + p.columns) * sizeof(int32_t));
      for (int64_t i = begin; i < end; ++i) {
        const T* const plane = from + i * p.height * p.width;
        if (mean) {
          kernels.avg(p, plane, to + i * size, padding_value, even, memory);
        } else {
          kernels.max(p, plane, to + i * size, memory);
        }
      }
    });
  }
  return std::move(y);
}

py::object integer_pool(const py::array& x, const PoolGeometry& p, bool mean, int32_t padding_value, bool even,
                        const char* isa) {
  const PoolTable& kernels = table<PoolTable>(isa_named(isa));
  if (py::isinstance<py::array_t<int8_t>>(x)) return integer_pool_of(x, p, mean, padding_value, even, kernels.s8);
  if (py::isinstance<py::array_t<uint8_t>>(x)) return integer_pool_of(x, p, mean, padding_value, even, kernels.u8);
  return integer_pool_of(x, p, mean, padding_value, even, kernels.s16);
}

void bind_pool(py::module_& m) {
  m.def(
      "max_pool2d",
      [](const py::array& x, Pair kernel, Pair stride, Pair padding, Pair dilation, const char* isa) {
        expect_ndim(x, 4, "x");
        const PoolGeometry p = checked({x.shape(2), x.shape(3)}, kernel, stride, padding, dilation, false);
        return with_type(x, "x", [&](auto s) { return max_pool2d_of<decltype(s)>(x, p, isa_named(isa)); });
      },
      "Maximum of each window of images, and its place; both lie as x does, in any strides.", py::arg("x"),
      py::kw_only(), py::arg("kernel_size"), py::arg("stride"), py::arg("padding"), py::arg("dilation"),
      py::arg("isa") = "");
  m.def(
      "max_pool2d_gradient",
      [](const py::array& g, const py::array& indices, Pair size, const char* isa) {
        expect_ndim(g, 4, "g");
        return with_type(g, "g",
                         [&](auto s) { return max_pool2d_gradient_of<decltype(s)>(g, indices, size, isa_named(isa)); });
      },
      "Gradient of max_pool2d, which lies as the indices do; IndexError for an index outside the image.", py::arg("g"),
      py::arg("indices"), py::kw_only(), py::arg("size"), py::arg("isa") = "");
  m.def(
      "avg_pool2d",
      [](const py::array& x, Pair kernel, Pair stride, Pair padding, bool include, const char* isa) {
        expect_ndim(x, 4, "x");
        const PoolGeometry p = checked({x.shape(2), x.shape(3)}, kernel, stride, padding, {1, 1}, include);
        return with_type(x, "x", [&](auto s) { return avg_pool2d_of<decltype(s)>(x, p, isa_named(isa)); });
      },
      "Mean of each window of images, in any strides; it lies as x does.", py::arg("x"), py::kw_only(),
      py::arg("kernel_size"), py::arg("stride"), py::arg("padding"), py::arg("count_include_pad"), py::arg("isa") = "");
  m.def(
      "avg_pool2d_gradient",
      [](const py::array& g, Pair size, Pair kernel, Pair stride, Pair padding, bool include, const char* isa) {
        expect_ndim(g, 4, "g");
        const PoolGeometry p = checked(size, kernel, stride, padding, {1, 1}, include);
        return with_type(g, "g", [&](auto s) { return avg_pool2d_gradient_of<decltype(s)>(g, p, isa_named(isa)); });
      },
      "Gradient of avg_pool2d, which lies as g does.", py::arg("g"), py::kw_only(), py::arg("size"),
      py::arg("kernel_size"), py::arg("stride"), py::arg("padding"), py::arg("count_include_pad"), py::arg("isa") = "");
  m.def(
      "integer_max_pool2d",
      [](const py::array& x, Pair kernel, Pair stride, Pair padding, Pair dilation, const char* isa) {
        expect_ndim(x, 4, "x");
        const PoolGeometry p = checked({x.shape(2), x.shape(3)}, kernel, stride, padding, dilation, false);
        return integer_pool(x, p, false, 0, false, isa);
      },
      "Maximum of each window of C-contiguous int8, uint8 or int16 images.", py::arg("x"), py::kw_only(),
      py::arg("kernel_size"), py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("isa") = "");
  m.def(
      "integer_avg_pool2d",
      [](const py::array& x, Pair kernel, Pair stride, Pair padding, bool include, int32_t value, bool even,
         const char* isa) {
        expect_ndim(x, 4, "x");
        if (kernel[0] > kLargestWindow || kernel[1] > kLargestWindow || kernel[0] * kernel[1] > kLargestWindow)
          throw py::value_error("integer_avg_pool2d: a window of more than 2^15 values");
        if (value < INT16_MIN || value > INT16_MAX)
          throw py::value_error("integer_avg_pool2d: a padding value above 16 bits");
        const PoolGeometry p = checked({x.shape(2), x.shape(3)}, kernel, stride, padding, {1, 1}, include);
        return integer_pool(x, p, true, value, even, isa);
      },
      "Mean of each window of C-contiguous int8, uint8 or int16 images, rounded to nearest.", py::arg("x"),
      py::kw_only(), py::arg("kernel_size"), py::arg("stride"), py::arg("padding"), py::arg("count_include_pad"),
      py::arg("padding_value"), py::arg("even"), py::arg("isa") = "");
}

const Binder binder(bind_pool);

}  // namespace
}  // namespace ulpgrad
