// Pooling: planes are shared out among threads; what one plane gives depends on nothing else.
#include "pool.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <atomic>

#include "bind.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad {
namespace {

using Pair = std::array<int64_t, 2>;

constexpr int64_t kGrain = 1 << 15;  // values looked at that are worth a thread

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

int64_t grain(const PoolGeometry& p) {
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, p.rows * p.columns * p.kernel[0] * p.kernel[1]));
}

template <typename T>
py::object max_pool2d_of(const py::array& x, Pair kernel, Pair stride, Pair padding, Pair dilation, Isa isa) {
  const T* const from = contiguous<T>(x, "x");
  const PoolGeometry p = checked({x.shape(2), x.shape(3)}, kernel, stride, padding, dilation, false);
  py::array_t<T> y = empty<T>({x.shape(0), x.shape(1), p.rows, p.columns});
  py::array_t<int64_t> indices = empty<int64_t>({x.shape(0), x.shape(1), p.rows, p.columns});
  const int64_t planes = x.shape(0) * x.shape(1), size = p.rows * p.columns;
  T* const to = y.mutable_data();
  int64_t* const places = indices.mutable_data();
  {
    py::gil_scoped_release release;
    parallel_for(planes, grain(p), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        kernels(isa, T()).max(p, from + i * p.height * p.width, to + i * size, places + i * size);
    });
  }
  return py::make_tuple(y, indices);
}

template <typename T>
py::object max_pool2d_gradient_of(const py::array& g, const py::array& indices, Pair size) {
  const T* const from = contiguous<T>(g, "g");
  const int64_t* const places = contiguous<int64_t>(indices, "indices");
  expect_shape(indices, {g.shape(0), g.shape(1), g.shape(2), g.shape(3)}, "indices");
  if (size[0] < 0 || size[1] < 0) throw py::value_error("max_pool2d_gradient: expected a size that is not negative");
  py::array_t<T> dx = empty<T>({g.shape(0), g.shape(1), size[0], size[1]});
  T* const to = dx.mutable_data();
  const int64_t planes = g.shape(0) * g.shape(1), count = g.shape(2) * g.shape(3), values = size[0] * size[1];
  std::atomic<bool> outside{false};
  {
    py::gil_scoped_release release;
    parallel_for(planes, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, values + count)),
                 [&](int64_t begin, int64_t end) {
                   bool wrong = false;
                   for (int64_t plane = begin; plane < end; ++plane) {
                     T* const at = to + plane * values;
                     std::fill(at, at + values, T(0));
                     for (int64_t i = plane * count; i < (plane + 1) * count; ++i) {
                       const uint64_t place = static_cast<uint64_t>(places[i]);
                       if (place < static_cast<uint64_t>(values)) {
                         at[place] += from[i];
                       } else {
                         wrong = true;
                       }
                     }
                   }
                   if (wrong) outside = true;
                 });
  }
  if (outside) throw py::index_error("max_pool2d_gradient: an index is outside the image");
  return std::move(dx);
}

template <typename T>
py::object avg_pool2d_of(const py::array& x, Pair kernel, Pair stride, Pair padding, bool include_padding, Isa isa) {
  const T* const from = contiguous<T>(x, "x");
  const PoolGeometry p = checked({x.shape(2), x.shape(3)}, kernel, stride, padding, {1, 1}, include_padding);
  py::array_t<T> y = empty<T>({x.shape(0), x.shape(1), p.rows, p.columns});
  T* const to = y.mutable_data();
  const int64_t planes = x.shape(0) * x.shape(1);
  {
    py::gil_scoped_release release;
    parallel_for(planes, grain(p), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        kernels(isa, T()).avg(p, from + i * p.height * p.width, to + i * p.rows * p.columns);
    });
  }
  return std::move(y);
}

template <typename T>
py::object avg_pool2d_gradient_of(const py::array& g, Pair size, Pair kernel, Pair stride, Pair padding,
                                  bool include_padding, Isa isa) {
  const T* const from = contiguous<T>(g, "g");
  const PoolGeometry p = checked(size, kernel, stride, padding, {1, 1}, include_padding);
  expect_shape(g, {-1, -1, p.rows, p.columns}, "g");
  py::array_t<T> dx = empty<T>({g.shape(0), g.shape(1), size[0], size[1]});
  T* const to = dx.mutable_data();
  const int64_t planes = g.shape(0) * g.shape(1), values = size[0] * size[1];
  {
    py::gil_scoped_release release;
    parallel_for(planes, grain(p), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        std::fill(to + i * values, to + (i + 1) * values, T(0));
        kernels(isa, T()).avg_gradient(p, from + i * p.rows * p.columns, to + i * values);
      }
    });
  }
  return std::move(dx);
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

bool holds_doubles(const py::array& a) { return py::isinstance<py::array_t<double>>(a); }

void bind_pool(py::module_& m) {
  m.def(
      "max_pool2d",
      [](const py::array& x, Pair kernel, Pair stride, Pair padding, Pair dilation, const char* isa) {
        expect_ndim(x, 4, "x");
        const auto run = holds_doubles(x) ? max_pool2d_of<double> : max_pool2d_of<float>;
        return run(x, kernel, stride, padding, dilation, isa_named(isa));
      },
      "Maximum of each window of C-contiguous images, and its place.", py::arg("x"), py::kw_only(),
      py::arg("kernel_size"), py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("isa") = "");
  m.def(
      "max_pool2d_gradient",
      [](const py::array& g, const py::array& indices, Pair size) {
        expect_ndim(g, 4, "g");
        return holds_doubles(g) ? max_pool2d_gradient_of<double>(g, indices, size)
                                : max_pool2d_gradient_of<float>(g, indices, size);
      },
      "Gradient of max_pool2d; IndexError for an index outside the image.", py::arg("g"), py::arg("indices"),
      py::kw_only(), py::arg("size"));
  m.def(
      "avg_pool2d",
      [](const py::array& x, Pair kernel, Pair stride, Pair padding, bool include, const char* isa) {
        expect_ndim(x, 4, "x");
        const auto run = holds_doubles(x) ? avg_pool2d_of<double> : avg_pool2d_of<float>;
        return run(x, kernel, stride, padding, include, isa_named(isa));
      },
      "Mean of each window of C-contiguous images.", py::arg("x"), py::kw_only(), py::arg("kernel_size"),
      py::arg("stride"), py::arg("padding"), py::arg("count_include_pad"), py::arg("isa") = "");
  m.def(
      "avg_pool2d_gradient",
      [](const py::array& g, Pair size, Pair kernel, Pair stride, Pair padding, bool include, const char* isa) {
        expect_ndim(g, 4, "g");
        const auto run = holds_doubles(g) ? avg_pool2d_gradient_of<double> : avg_pool2d_gradient_of<float>;
        return run(g, size, kernel, stride, padding, include, isa_named(isa));
      },
      "Gradient of avg_pool2d.", py::arg("g"), py::kw_only(), py::arg("size"), py::arg("kernel_size"),
      py::arg("stride"), py::arg("padding"), py::arg("count_include_pad"), py::arg("isa") = "");
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
