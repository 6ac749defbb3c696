// Convolution and the gradient of its input. The two are the same sums with other taps: the latter is one problem for
// each phase of the stride.
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "activation_named.h"
#include "conv_correlate.h"
#include "conv_geometry.h"
#include "memory.h"
#include "threads.h"

namespace ulpgrad {

Geometry checked(int64_t images, int64_t inputs, int64_t outputs, Pair size, Pair kernel, Pair stride, Pair padding,
                 Pair dilation, int64_t groups) {
  if (groups < 1 || inputs % groups || outputs % groups)
    throw py::value_error("conv2d: channels do not divide into groups");
  Geometry g{images, groups, inputs / groups, outputs / groups, size, kernel, stride, padding, dilation, {}};
  for (int axis = 0; axis < 2; ++axis) {
    if (kernel[axis] < 1 || stride[axis] < 1 || padding[axis] < 0 || dilation[axis] < 1 || size[axis] < 0) {
      throw py::value_error("conv2d: expected positive kernel, stride and dilation, and no negative padding");
    }
    for (const int64_t setting : {kernel[axis], stride[axis], padding[axis], dilation[axis], size[axis]}) {
      if (setting > INT32_MAX) throw py::value_error("conv2d: a setting above 2^31 - 1");  // products then fit int64_t
    }
    const int64_t span = dilation[axis] * (kernel[axis] - 1) + 1, room = size[axis] + 2 * padding[axis] - span;
    if (room < 0) throw py::value_error("conv2d: the kernel is larger than the padded image");
    g.positions[axis] = room / stride[axis] + 1;
  }
  return g;
}

void expect_like(const py::array& a, const py::array& b, int64_t ndim, const char* name) {
  if (a.dtype().kind() != b.dtype().kind() || a.itemsize() != b.itemsize())
    throw py::type_error(std::string(name) + ": expected " + py::str(a.dtype()).cast<std::string>() + " values, got " +
                         py::str(b.dtype()).cast<std::string>());
  if (!(b.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
    throw py::value_error(std::string(name) + ": not aligned");
  expect_ndim(b, ndim, name);
}

py::array empty_images(const py::array& like, const py::dtype& dtype, int64_t n, int64_t c, int64_t h, int64_t w) {
  const bool last = like.strides(1) == like.itemsize() && like.shape(1) > 1 && !(like.flags() & py::array::c_style);
  const std::array<py::ssize_t, 4> shape =
      last ? std::array<py::ssize_t, 4>{n, h, w, c} : std::array<py::ssize_t, 4>{n, c, h, w};
  const py::object images = new_array(py::dtype(dtype).release().ptr(), 4, shape.data());
  return last ? images.attr("transpose")(0, 3, 1, 2) : images;
}

namespace {

constexpr int64_t kZeroGrain = 1 << 19;   // bytes set to zero: fewer do not pay for a thread
constexpr int64_t kMostPlaces = 1 << 24;  // of an image, which float32 counts exactly

struct Results {
  py::array y, places;  // places only where results are pooled
};

template <typename S>
Images<S> results_of(py::array& a) {
  const Images<const S> seen = images_of<S>(a);
  return {static_cast<S*>(a.mutable_data()), seen.image, seen.channel, seen.row, seen.column, seen.height, seen.width};
}

// Images whose every value is an output of its own are one long row each, and all together where they lie so.
template <typename S>
void flatten(Correlation<S>& c) {
  const auto row = [](const auto& a) { return a.row == a.width * a.column || a.height == 1; };
  const auto whole = [](const auto& a) { return a.image == a.height * a.width * a.column; };
  if (c.taps.size() != 1 || c.places.data || c.step != Pair{1, 1} || c.x.top || c.x.left || !row(c.x) || !row(c.y))
    return;
  const int64_t images = whole(c.x) && whole(c.y) ? c.images : 1;
  const int64_t pixels = c.positions[0] * c.positions[1];
  c.images /= images;
  c.positions = {1, images * pixels};
  c.x.height = c.y.height = 1, c.x.width = c.y.width = images * pixels;
}

template <typename S>
Results conv2d_of(const py::array& x, const py::array& weight, const py::object& bias, Pair stride, Pair padding,
                  Pair dilation, int64_t groups, Activation activation, const Pair* windows, Isa isa) {
  expect_like(x, weight, 4, "weight");
  const Geometry g = checked(x.shape(0), x.shape(1), weight.shape(0), {x.shape(2), x.shape(3)},
                             {weight.shape(2), weight.shape(3)}, stride, padding, dilation, groups);
  expect_shape(weight, {-1, g.inputs, -1, -1}, "weight");
  py::array biases;
  if (!bias.is_none()) {
    biases = py::array::ensure(bias, py::array::c_style);
    expect_like(x, biases, 1, "bias");
    expect_shape(biases, {g.outputs * groups}, "bias");
  }
  const Pair window = windows ? *windows : Pair{1, 1};
  for (int axis = 0; axis < 2; ++axis) {
    if (window[axis] < 1 || window[axis] > g.positions[axis])
      throw py::value_error("conv2d: no window of results fits");
  }
  const Pair size = {g.positions[0] / window[0], g.positions[1] / window[1]};
  Results found;
  found.y = empty_images(x, x.dtype(), g.images, g.outputs * groups, size[0], size[1]);
  const Images<const S> filters = images_of<S>(weight);
  Correlation<S> c{};
  c.images = g.images, c.groups = groups, c.inputs = g.inputs, c.outputs = g.outputs;
  c.positions = {size[0] * window[0], size[1] * window[1]}, c.step = g.stride;
  c.x = images_of<S>(x);
  c.x.top = padding[0], c.x.left = padding[1];
  c.taps = g.taps(filters.row, filters.column);
  c.weight = filters.data;
  c.weight_group = g.outputs * filters.image;
  c.weight_output = filters.image, c.weight_input = filters.channel;
  c.bias = bias.is_none() ? nullptr : static_cast<const S*>(biases.data());
  c.y = results_of<S>(found.y);
  c.activation = activation, c.window = window, c.image_width = g.positions[1];
  if (windows) {
    if (g.positions[0] * g.positions[1] > kMostPlaces) throw py::value_error("conv2d: an image too large for places");
    found.places = empty_images(x, py::dtype::of<int64_t>(), g.images, g.outputs * groups, size[0], size[1]);
    c.places = results_of<int64_t>(found.places);
  }
  if (found.y.size() > 0) {
    py::gil_scoped_release release;
    flatten(c);
    correlate<S>({c}, isa);
  }
  return found;
}

// The taps of one phase of the padded image along one axis: kernel rows `index` whose outputs lie `back` steps before.
struct Phase {
  std::vector<std::pair<int64_t, int64_t>> taps;  // (index, back)
  int64_t first, count, furthest;                 // positions on the padded image, in strides; largest `back`
};

Phase phase_of(const Geometry& g, int axis, int64_t phase) {
  Phase p{{}, std::max<int64_t>(0, ceil_div(g.padding[axis] - phase, g.stride[axis])), 0, 0};
  const int64_t end = g.padding[axis] + g.size[axis] - phase;
  p.count = end > 0 ? ceil_div(end, g.stride[axis]) - p.first : 0;
  for (int64_t i = 0; i < g.kernel[axis]; ++i) {
    if (i * g.dilation[axis] % g.stride[axis] == phase) p.taps.emplace_back(i, i * g.dilation[axis] / g.stride[axis]);
  }
  for (const auto& tap : p.taps) p.furthest = std::max(p.furthest, tap.second);
  return p;
}

// Sums that are infinite or NaN, in each format.
void set_special(float& to, float x) { to = x; }
void set_special(double& to, double x) { to = x; }
void set_special(Bfloat16& to, float x) {
  const uint16_t size = std::isnan(x) ? 0x7FC0 : 0x7F80;
  to.bits = static_cast<uint16_t>(size | (std::signbit(x) ? 0x8000 : 0));
}
void set_special(Float16& to, float x) {
  const uint16_t size = std::isnan(x) ? 0x7E00 : 0x7C00;
  to.bits = static_cast<uint16_t>(size | (std::signbit(x) ? 0x8000 : 0));
}

// Adds what a weight that is not finite gives to the input's gradient, which correlate() has left out: it meets the
// gradients that there are, but no padding.
template <typename S>
void add_special(const Geometry& g, const Images<const S>& dy, int64_t channel, int64_t input, Pair at, Wide<S> weight,
                 const Images<S>& dx) {
  for (int64_t n = 0; n < g.images; ++n) {
    for (int64_t r = 0; r < g.positions[0]; ++r) {
      const int64_t y = r * g.stride[0] + at[0] * g.dilation[0] - g.padding[0];
      if (y < 0 || y >= g.size[0]) continue;
      for (int64_t q = 0; q < g.positions[1]; ++q) {
        const int64_t z = q * g.stride[1] + at[1] * g.dilation[1] - g.padding[1];
        if (z < 0 || z >= g.size[1]) continue;
        const Wide<S> product =
            weight * wide_value(dy.data[n * dy.image + channel * dy.channel + r * dy.row + q * dy.column]);
        S& to = dx.data[n * dx.image + input * dx.channel + y * dx.row + z * dx.column];
        set_special(to, wide_value(to) + product);
      }
    }
  }
}

template <typename S>
void add_specials(const Geometry& g, const Images<const S>& dy, const Images<const S>& weight, const Images<S>& dx) {
  for (int64_t o = 0; o < g.groups * g.outputs; ++o) {
    for (int64_t p = 0; p < g.inputs; ++p) {
      for (int64_t i = 0; i < g.kernel[0]; ++i) {
        for (int64_t j = 0; j < g.kernel[1]; ++j) {
          const Wide<S> w =
              wide_value(weight.data[o * weight.image + p * weight.channel + i * weight.row + j * weight.column]);
          if (!std::isfinite(w)) add_special(g, dy, o, o / g.outputs * g.inputs + p, {i, j}, w, dx);
        }
      }
    }
  }
}

template <typename S>
py::array input_gradient_of(const py::array& g, const py::array& weight, Pair size, Pair stride, Pair padding,
                            Pair dilation, int64_t groups, Isa isa) {
  expect_like(g, weight, 4, "weight");
  const Geometry geometry = checked(g.shape(0), weight.shape(1) * std::max<int64_t>(groups, 1), weight.shape(0), size,
                                    {weight.shape(2), weight.shape(3)}, stride, padding, dilation, groups);
  expect_shape(g, {-1, weight.shape(0), geometry.positions[0], geometry.positions[1]}, "g");
  py::array dx = empty_images(g, g.dtype(), geometry.images, geometry.inputs * groups, size[0], size[1]);
  const Images<const S> filters = images_of<S>(weight), gradients = images_of<S>(g);
  const Images<S> results = results_of<S>(dx);
  Correlation<S> c{};
  c.images = geometry.images, c.groups = groups, c.inputs = geometry.outputs, c.outputs = geometry.inputs;
  c.step = {1, 1};
  c.weight = filters.data;
  c.weight_group = geometry.outputs * filters.image;
  c.weight_output = filters.channel, c.weight_input = filters.image;
  c.finite = true;
  c.y = results;
  c.y.row *= stride[0], c.y.column *= stride[1];
  const int64_t bytes = dx.nbytes();
  if (bytes > 0) {
    py::gil_scoped_release release;
    std::vector<Correlation<S>> phases;
    bool unseen = false;  // whether some values are in no sum
    for (int64_t a = 0; a < std::min(stride[0], padding[0] + size[0]); ++a) {
      const Phase rows = phase_of(geometry, 0, a);
      for (int64_t b = 0; b < std::min(stride[1], padding[1] + size[1]); ++b) {
        const Phase columns = phase_of(geometry, 1, b);
        if (rows.count <= 0 || columns.count <= 0) continue;
        if (rows.taps.empty() || columns.taps.empty()) {  // a stride beyond the filter
          unseen = true;
          continue;
        }
        c.positions = {rows.count, columns.count};
        c.x = gradients;
        c.x.top = rows.furthest - rows.first, c.x.left = columns.furthest - columns.first;
        c.taps.clear();
        for (const auto& [i, up] : rows.taps) {
          for (const auto& [j, back] : columns.taps) {
            c.taps.push_back({rows.furthest - up, columns.furthest - back, i * filters.row + j * filters.column});
          }
        }
        c.y.data = results.data + (rows.first * stride[0] + a - padding[0]) * results.row +
                   (columns.first * stride[1] + b - padding[1]) * results.column;
        phases.push_back(c);
      }
    }
    if (unseen) {
      parallel_for(bytes, kZeroGrain, [&](int64_t begin, int64_t end) {
        std::memset(reinterpret_cast<char*>(results.data) + begin, 0, static_cast<size_t>(end - begin));
      });
    }
    if (correlate(std::move(phases), isa)) add_specials(geometry, gradients, filters, results);
  }
  return dx;
}

void bind_conv(py::module_& m) {
  m.def(
      "conv2d",
      [](const py::array& x, const py::array& weight, const py::object& bias, Pair stride, Pair padding, Pair dilation,
         int64_t groups, const std::string& activation, const char* isa) {
        expect_ndim(x, 4, "x");
        const Activation after = activation_named("conv2d", activation);
        return with_type(x, "x", [&](auto s) {
          return conv2d_of<decltype(s)>(x, weight, bias, stride, padding, dilation, groups, after, nullptr,
                                        isa_named(isa))
              .y;
        });
      },
      "Convolution; operands may have any strides, the result is contiguous or, as x, channels last.", py::arg("x"),
      py::arg("weight"), py::arg("bias").none(true), py::kw_only(), py::arg("stride"), py::arg("padding"),
      py::arg("dilation"), py::arg("groups"), py::arg("activation") = "", py::arg("isa") = "");
  m.def(
      "conv2d_max_pool",
      [](const py::array& x, const py::array& weight, const py::object& bias, Pair stride, Pair padding, Pair dilation,
         Pair window, const std::string& activation, const char* isa) {
        expect_ndim(x, 4, "x");
        const Activation after = activation_named("conv2d_max_pool", activation);
        return with_type(x, "x", [&](auto s) {
          const Results found =
              conv2d_of<decltype(s)>(x, weight, bias, stride, padding, dilation, 1, after, &window, isa_named(isa));
          return py::make_tuple(found.y, found.places);
        });
      },
      "activation(the largest value of each window of a convolution), and its place as row * width + column.",
      py::arg("x"), py::arg("weight"), py::arg("bias").none(true), py::kw_only(), py::arg("stride"), py::arg("padding"),
      py::arg("dilation"), py::arg("window"), py::arg("activation") = "", py::arg("isa") = "");
  m.def(
      "conv2d_input_gradient",
      [](const py::array& g, const py::array& weight, Pair size, Pair stride, Pair padding, Pair dilation,
         int64_t groups, const char* isa) {
        expect_ndim(g, 4, "g");
        return with_type(g, "g", [&](auto s) {
          return input_gradient_of<decltype(s)>(g, weight, size, stride, padding, dilation, groups, isa_named(isa));
        });
      },
      "Gradient of conv2d with respect to x; it lies as g does.", py::arg("g"), py::arg("weight"), py::kw_only(),
      py::arg("size"), py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"),
      py::arg("isa") = "");
}

const Binder binder(bind_conv);

}  // namespace
}  // namespace ulpgrad
