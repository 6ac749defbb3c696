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

Geometry checked(int64_t images, int64_t inputs, int64_t outputs, Sizes size, Sizes kernel, Sizes stride, Sizes padding,
                 Sizes dilation, int64_t groups) {
  if (groups < 1 || inputs % groups || outputs % groups)
    throw py::value_error("conv2d: channels do not divide into groups");
  Sizes positions{};
  for (int axis = 0; axis < 3; ++axis) {
    if (kernel[axis] < 1 || stride[axis] < 1 || padding[axis] < 0 || dilation[axis] < 1 || size[axis] < 0) {
      throw py::value_error("conv2d: expected positive kernel, stride and dilation, and no negative padding");
    }
    for (const int64_t setting : {kernel[axis], stride[axis], padding[axis], dilation[axis], size[axis]}) {
      if (setting > INT32_MAX) throw py::value_error("conv2d: a setting above 2^31 - 1");  // products then fit int64_t
    }
    const int64_t span = dilation[axis] * (kernel[axis] - 1) + 1, room = size[axis] + 2 * padding[axis] - span;
    if (room < 0) throw py::value_error("conv2d: the kernel is larger than the padded image");
    positions[axis] = room / stride[axis] + 1;
  }
  const auto plane = [](const Sizes& s) { return Pair{s[1], s[2]}; };
  return {images,
          groups,
          inputs / groups,
          outputs / groups,
          plane(size),
          plane(kernel),
          plane(stride),
          plane(padding),
          plane(dilation),
          plane(positions),
          {size[0], kernel[0], stride[0], padding[0], dilation[0], positions[0]}};
}

void expect_positions(const py::array& a, const Geometry& g, int64_t channels, const char* name) {
  if (a.ndim() == 5) {
    expect_shape(a, {g.images, channels, g.depth.positions, g.positions[0], g.positions[1]}, name);
  } else {
    expect_shape(a, {g.images, channels, g.positions[0], g.positions[1]}, name);
  }
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

py::array empty_images(const py::array& like, int64_t n, int64_t c, Sizes sizes) {
  if (like.ndim() == 4) return empty_images(like, like.dtype(), n, c, sizes[1], sizes[2]);
  const bool last = like.strides(1) == like.itemsize() && like.shape(1) > 1 && !(like.flags() & py::array::c_style);
  const auto [d, h, w] = sizes;
  const std::array<py::ssize_t, 5> shape =
      last ? std::array<py::ssize_t, 5>{n, d, h, w, c} : std::array<py::ssize_t, 5>{n, c, d, h, w};
  const py::object volumes = new_array(py::dtype(like.dtype()).release().ptr(), 5, shape.data());
  return last ? volumes.attr("transpose")(0, 4, 1, 2, 3) : volumes;
}

namespace {

constexpr int64_t kZeroGrain = 1 << 19;   // bytes set to zero: fewer do not pay for a thread
constexpr int64_t kMostPlaces = 1 << 24;  // of an image, which float32 counts exactly

struct Results {
  py::array y, places;  // places only where results are pooled
};

// What follows the sums.
struct Ending {
  Activation activation = Activation::none;
  const Pair* windows = nullptr;  // of max pooling
  py::object scale = py::none(), residual = py::none();
  bool residual_first = false;
};

// One value of x's format for each output, or an empty array for None.
py::array values_of_outputs(const py::array& x, const py::object& given, int64_t outputs, const char* name) {
  if (given.is_none()) return {};
  py::array values = py::array::ensure(given, py::array::c_style);
  expect_like(x, values, 1, name);
  expect_shape(values, {outputs}, name);
  return values;
}

template <typename S>
Images<S> results_of(py::array& a) {
  const Images<const S> seen = images_of<S>(a);
  return {static_cast<S*>(a.mutable_data()),
          seen.image,
          seen.channel,
          seen.row,
          seen.column,
          seen.height,
          seen.width,
          0,
          0,
          seen.slice,
          seen.depth};
}

// Images whose every value is an output of its own are one long row each, and all together where they lie so.
template <typename S>
void flatten(Correlation<S>& c) {
  const auto row = [](const auto& a) { return a.row == a.width * a.column || a.height == 1; };
  const auto whole = [](const auto& a) { return a.image == a.height * a.width * a.column; };
  const bool steps = c.step != Pair{1, 1} || c.depth.stride != 1;
  if (c.taps.size() != 1 || c.places.data || steps || c.x.top || c.x.left || c.x.front || !row(c.x) || !row(c.y))
    return;
  const auto joined = [](const auto& a) { return a.depth == 1 || a.slice == a.height * a.width * a.column; };
  if (!joined(c.x) || !joined(c.y)) return;
  if (c.residual.data && !(row(c.residual) && joined(c.residual))) return;
  c.x.height *= c.x.depth, c.y.height *= c.y.depth, c.residual.height *= c.residual.depth;
  c.positions[0] *= c.depth.positions;
  c.x.depth = c.y.depth = c.residual.depth = c.depth.positions = 1;
  const bool residual = c.residual.data;
  const int64_t images = whole(c.x) && whole(c.y) && (!residual || whole(c.residual)) ? c.images : 1;
  const int64_t pixels = c.positions[0] * c.positions[1];
  c.images /= images;
  c.positions = {1, images * pixels};
  c.x.height = c.y.height = 1, c.x.width = c.y.width = images * pixels;
}

template <typename S>
Results convolution(const py::array& x, const py::array& weight, const py::object& bias, Sizes stride, Sizes padding,
                    Sizes dilation, int64_t groups, const Ending& ending, Isa isa) {
  const Pair* const windows = ending.windows;
  expect_like(x, weight, x.ndim(), "weight");
  const Geometry g = checked(x.shape(0), x.shape(1), weight.shape(0), sizes_of(x), sizes_of(weight), stride, padding,
                             dilation, groups);
  if (weight.shape(1) != g.inputs) throw py::value_error("weight: inputs differ from the channels of a group");
  const py::array biases = values_of_outputs(x, bias, g.outputs * groups, "bias");
  const py::array scales = values_of_outputs(x, ending.scale, g.outputs * groups, "scale");
  const Pair window = windows ? *windows : Pair{1, 1};
  for (int axis = 0; axis < 2; ++axis) {
    if (window[axis] < 1 || window[axis] > g.positions[axis])
      throw py::value_error("conv2d: no window of results fits");
  }
  const Pair size = {g.positions[0] / window[0], g.positions[1] / window[1]};
  Results found;
  found.y = empty_images(x, g.images, g.outputs * groups, {g.depth.positions, size[0], size[1]});
  const Images<const S> filters = images_of<S>(weight);
  Correlation<S> c{};
  c.images = g.images, c.groups = groups, c.inputs = g.inputs, c.outputs = g.outputs;
  c.positions = {size[0] * window[0], size[1] * window[1]}, c.step = g.stride;
  c.depth = g.depth.along();
  c.x = images_of<S>(x);
  c.x.front = padding[0], c.x.top = padding[1], c.x.left = padding[2];
  c.taps = g.taps(filters.slice, filters.row, filters.column);
  c.weight = filters.data;
  c.weight_group = g.outputs * filters.image;
  c.weight_output = filters.image, c.weight_input = filters.channel;
  c.bias = bias.is_none() ? nullptr : static_cast<const S*>(biases.data());
  c.y = results_of<S>(found.y);
  c.scale = ending.scale.is_none() ? nullptr : static_cast<const S*>(scales.data());
  py::array residual;
  if (!ending.residual.is_none()) {
    residual = py::array::ensure(ending.residual);
    expect_like(x, residual, x.ndim(), "residual");
    expect_positions(residual, g, g.outputs * groups, "residual");
    c.residual = images_of<S>(residual), c.residual_first = ending.residual_first;
  }
  c.activation = ending.activation, c.window = window, c.image_width = g.positions[1];
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

Phase phase_of(int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation, int64_t phase) {
  Phase p{{}, std::max<int64_t>(0, ceil_div(padding - phase, stride)), 0, 0};
  const int64_t end = padding + size - phase;
  p.count = end > 0 ? ceil_div(end, stride) - p.first : 0;
  for (int64_t i = 0; i < kernel; ++i) {
    if (i * dilation % stride == phase) p.taps.emplace_back(i, i * dilation / stride);
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
void add_special(const Geometry& g, const Images<const S>& dy, int64_t channel, int64_t input, Sizes at, Wide<S> weight,
                 const Images<S>& dx) {
  for (int64_t i = 0; i < g.images * g.depth.positions * g.positions[0] * g.positions[1]; ++i) {
    const int64_t q = i % g.positions[1], r = i / g.positions[1] % g.positions[0];
    const int64_t d = i / g.positions[1] / g.positions[0] % g.depth.positions;
    const int64_t n = i / g.positions[1] / g.positions[0] / g.depth.positions;
    const int64_t slice = d * g.depth.stride + at[0] * g.depth.dilation - g.depth.padding;
    const int64_t row = r * g.stride[0] + at[1] * g.dilation[0] - g.padding[0];
    const int64_t column = q * g.stride[1] + at[2] * g.dilation[1] - g.padding[1];
    if (slice < 0 || slice >= g.depth.size || row < 0 || row >= g.size[0] || column < 0 || column >= g.size[1])
      continue;
    const S value = dy.data[n * dy.image + channel * dy.channel + d * dy.slice + r * dy.row + q * dy.column];
    S& to = dx.data[n * dx.image + input * dx.channel + slice * dx.slice + row * dx.row + column * dx.column];
    set_special(to, wide_value(to) + weight * wide_value(value));
  }
}

template <typename S>
void add_specials(const Geometry& g, const Images<const S>& dy, const Images<const S>& weight, const Images<S>& dx) {
  for (int64_t o = 0; o < g.groups * g.outputs; ++o) {
    for (int64_t p = 0; p < g.inputs; ++p) {
      for (int64_t tap = 0; tap < g.depth.kernel * g.kernel[0] * g.kernel[1]; ++tap) {
        const int64_t j = tap % g.kernel[1], i = tap / g.kernel[1] % g.kernel[0], d = tap / g.kernel[1] / g.kernel[0];
        const Wide<S> w = wide_value(
            weight.data[o * weight.image + p * weight.channel + d * weight.slice + i * weight.row + j * weight.column]);
        if (!std::isfinite(w)) add_special(g, dy, o, o / g.outputs * g.inputs + p, {d, i, j}, w, dx);
      }
    }
  }
}

template <typename S>
py::array input_gradient_of(const py::array& g, const py::array& weight, Sizes size, Sizes stride, Sizes padding,
                            Sizes dilation, int64_t groups, Isa isa) {
  expect_like(g, weight, g.ndim(), "weight");
  const Geometry geometry = checked(g.shape(0), weight.shape(1) * std::max<int64_t>(groups, 1), weight.shape(0), size,
                                    sizes_of(weight), stride, padding, dilation, groups);
  expect_positions(g, geometry, weight.shape(0), "g");
  py::array dx = empty_images(g, geometry.images, geometry.inputs * groups, size);
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
  c.y.slice *= stride[0], c.y.row *= stride[1], c.y.column *= stride[2];
  const int64_t bytes = dx.nbytes();
  if (bytes > 0) {
    py::gil_scoped_release release;
    std::vector<Correlation<S>> phases;
    bool unseen = false;  // whether some values are in no sum
    const auto count = [&](int axis) { return std::min(stride[axis], padding[axis] + size[axis]); };
    const Sizes kernel = sizes_of(weight), all{count(0), count(1), count(2)};
    for (int64_t i = 0; i < all[0] * all[1] * all[2]; ++i) {
      const Sizes at{i / all[2] / all[1], i / all[2] % all[1], i % all[2]};
      const auto phase = [&](int axis) {
        return phase_of(size[axis], kernel[axis], stride[axis], padding[axis], dilation[axis], at[axis]);
      };
      const Phase slices = phase(0), rows = phase(1), columns = phase(2);
      if (slices.count <= 0 || rows.count <= 0 || columns.count <= 0) continue;
      if (slices.taps.empty() || rows.taps.empty() || columns.taps.empty()) {  // a stride beyond the filter
        unseen = true;
        continue;
      }
      c.positions = {rows.count, columns.count}, c.depth = {slices.count, 1};
      c.x = gradients;
      c.x.front = slices.furthest - slices.first;
      c.x.top = rows.furthest - rows.first, c.x.left = columns.furthest - columns.first;
      c.taps.clear();
      for (const auto& [d, before] : slices.taps) {
        for (const auto& [i, up] : rows.taps) {
          for (const auto& [j, back] : columns.taps) {
            c.taps.push_back({rows.furthest - up, columns.furthest - back,
                              d * filters.slice + i * filters.row + j * filters.column, slices.furthest - before});
          }
        }
      }
      c.y.data = results.data + (slices.first * stride[0] + at[0] - padding[0]) * results.slice +
                 (rows.first * stride[1] + at[1] - padding[1]) * results.row +
                 (columns.first * stride[2] + at[2] - padding[2]) * results.column;
      phases.push_back(c);
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
        Ending ending;
        ending.activation = activation_named("conv2d", activation);
        return with_type(x, "x", [&](auto s) {
          return convolution<decltype(s)>(x, weight, bias, deep(stride, 1), deep(padding, 0), deep(dilation, 1), groups,
                                          ending, isa_named(isa))
              .y;
        });
      },
      "Convolution; operands may have any strides, the result is contiguous or, as x, channels last.", py::arg("x"),
      py::arg("weight"), py::arg("bias").none(true), py::kw_only(), py::arg("stride"), py::arg("padding"),
      py::arg("dilation"), py::arg("groups"), py::arg("activation") = "", py::arg("isa") = "");
  m.def(
      "conv2d_finished",
      [](const py::array& x, const py::array& weight, const py::object& bias, const py::object& scale,
         const py::object& residual, Pair stride, Pair padding, Pair dilation, int64_t groups,
         const std::string& activation, bool residual_first, const char* isa) {
        expect_ndim(x, 4, "x");
        Ending ending;
        ending.activation = activation_named("conv2d_finished", activation);
        ending.scale = scale, ending.residual = residual, ending.residual_first = residual_first;
        return with_type(x, "x", [&](auto s) {
          return convolution<decltype(s)>(x, weight, bias, deep(stride, 1), deep(padding, 0), deep(dilation, 1), groups,
                                          ending, isa_named(isa))
              .y;
        });
      },
      "activation(convolution * scale + bias) + residual, or activation(convolution * scale + bias + residual).",
      py::arg("x"), py::arg("weight"), py::arg("bias").none(true), py::arg("scale").none(true),
      py::arg("residual").none(true), py::kw_only(), py::arg("stride"), py::arg("padding"), py::arg("dilation"),
      py::arg("groups"), py::arg("activation") = "", py::arg("residual_first") = false, py::arg("isa") = "");
  m.def(
      "conv2d_max_pool",
      [](const py::array& x, const py::array& weight, const py::object& bias, Pair stride, Pair padding, Pair dilation,
         Pair window, const std::string& activation, const char* isa) {
        expect_ndim(x, 4, "x");
        Ending ending;
        ending.activation = activation_named("conv2d_max_pool", activation), ending.windows = &window;
        return with_type(x, "x", [&](auto s) {
          const Results found = convolution<decltype(s)>(x, weight, bias, deep(stride, 1), deep(padding, 0),
                                                         deep(dilation, 1), 1, ending, isa_named(isa));
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
          return input_gradient_of<decltype(s)>(g, weight, deep(size, 1), deep(stride, 1), deep(padding, 0),
                                                deep(dilation, 1), groups, isa_named(isa));
        });
      },
      "Gradient of conv2d with respect to x; it lies as g does.", py::arg("g"), py::arg("weight"), py::kw_only(),
      py::arg("size"), py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"),
      py::arg("isa") = "");
  m.def(
      "conv3d",
      [](const py::array& x, const py::array& weight, const py::object& bias, Sizes stride, Sizes padding,
         Sizes dilation, int64_t groups, const char* isa) {
        expect_ndim(x, 5, "x");
        return with_type(x, "x", [&](auto s) {
          return convolution<decltype(s)>(x, weight, bias, stride, padding, dilation, groups, {}, isa_named(isa)).y;
        });
      },
      "Convolution of volumes; operands may have any strides, the result is contiguous or, as x, channels last.",
      py::arg("x"), py::arg("weight"), py::arg("bias").none(true), py::kw_only(), py::arg("stride"), py::arg("padding"),
      py::arg("dilation"), py::arg("groups"), py::arg("isa") = "");
  m.def(
      "conv3d_input_gradient",
      [](const py::array& g, const py::array& weight, Sizes size, Sizes stride, Sizes padding, Sizes dilation,
         int64_t groups, const char* isa) {
        expect_ndim(g, 5, "g");
        return with_type(g, "g", [&](auto s) {
          return input_gradient_of<decltype(s)>(g, weight, size, stride, padding, dilation, groups, isa_named(isa));
        });
      },
      "Gradient of conv3d with respect to x; it lies as g does.", py::arg("g"), py::arg("weight"), py::kw_only(),
      py::arg("size"), py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"),
      py::arg("isa") = "");
}

const Binder binder(bind_conv);

}  // namespace
}  // namespace ulpgrad
