// Convolution and its gradients. The convolution and the gradient of its input are the same sums with other taps: the
// latter is one problem for each phase of the stride. The gradient of the weights is dot products along the planes.
#include "conv.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "bind.h"
#include "conv_planes.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad {
namespace {

using Pair = std::array<int64_t, 2>;

constexpr int64_t kPositions = 1536;  // of a span: enough to hide its edges, few enough for its planes to stay in L2
constexpr int64_t kPlaneValues = 1 << 17;  // that the planes of a span should take at most
constexpr int64_t kMinPositions = 384;
constexpr int64_t kTasks = 16;             // a problem with fewer spans is also cut along its channels
constexpr int64_t kGrain = 1 << 18;        // products that are worth a thread
constexpr int64_t kMaxPartials = 1 << 22;  // values of partial weight gradients

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

const ConvKernels<float>& kernels(Isa isa, float) { return table<ConvTable>(isa).f32; }
const ConvKernels<double>& kernels(Isa isa, double) { return table<ConvTable>(isa).f64; }

int64_t target_positions(int64_t channels) {
  return std::clamp(kPlaneValues / std::max<int64_t>(1, channels), kMinPositions, kPositions);
}

template <typename T>
struct Correlation {
  int64_t images, groups, inputs, outputs;  // channels of one group
  int64_t rows, columns;                    // of y
  Pair step;
  Images<T> x;
  std::vector<Tap> taps;
  const T* weight;
  int64_t weight_group, weight_output, weight_input;  // strides
  const T* bias;                                      // contiguous, or none
  T* to;
  Images<T> y;  // how results lie from `to` on
};

// The weights of a group's outputs [first, first + count), in the order in which a register tile reads them.
template <typename T>
void pack(const Correlation<T>& c, int64_t group, int64_t first, int64_t count, T* to) {
  const T* const from = c.weight + group * c.weight_group + first * c.weight_output;
  for (int64_t p = 0; p < c.inputs; ++p) {
    for (const Tap& tap : c.taps) {
      for (int64_t i = 0; i < count; ++i) *to++ = from[i * c.weight_output + p * c.weight_input + tap.weight];
    }
  }
}

// Whether any of `count` outputs, `step` apart, sees the image through a tap.
bool sees(int64_t tap, int64_t count, int64_t step, int64_t padding, int64_t size) {
  const int64_t first = tap - padding, last = first + (count - 1) * step;
  if (first >= size || last < 0) return false;
  const int64_t inside = first < 0 ? first + ceil_div(-first, step) * step : first;
  return inside < size;
}

template <typename T>
bool sees(const Tap& tap, int64_t rows, int64_t columns, Pair step, const Images<T>& x) {
  return sees(tap.row, rows, step[0], x.top, x.height) && sees(tap.column, columns, step[1], x.left, x.width);
}

// The same taps on images with less padding, so that the first row and column are those of some tap.
template <typename T>
std::vector<Tap> shifted(std::vector<Tap> taps, Images<T>& x) {
  int64_t row = taps[0].row, column = taps[0].column;
  for (const Tap& tap : taps) row = std::min(row, tap.row), column = std::min(column, tap.column);
  for (Tap& tap : taps) tap.row -= row, tap.column -= column;
  x.top -= row, x.left -= column;
  return taps;
}

// Leaves out the taps through which no output sees the image, so that a window far larger than the image costs what one
// that covers it does. Padding is zeros: a weight that is not finite makes NaN of them, and keeps its tap.
template <typename T>
void crop(Correlation<T>& c) {
  const auto weightless = [&](const Tap& tap) {
    for (int64_t group = 0; group < c.groups; ++group) {
      for (int64_t o = 0; o < c.outputs; ++o) {
        for (int64_t p = 0; p < c.inputs; ++p) {
          const int64_t at = group * c.weight_group + o * c.weight_output + p * c.weight_input + tap.weight;
          if (!std::isfinite(c.weight[at])) return false;
        }
      }
    }
    return true;
  };
  std::vector<Tap> kept;
  for (const Tap& tap : c.taps) {
    if (sees(tap, c.rows, c.columns, c.step, c.x) || !weightless(tap)) kept.push_back(tap);
  }
  if (kept.empty() && !c.taps.empty()) kept.push_back(c.taps[0]);
  if (kept.size() < c.taps.size()) c.taps = shifted(kept, c.x);
}

template <typename T>
void correlate(Correlation<T> c, Isa isa) {
  crop(c);
  const int64_t k = c.inputs * static_cast<int64_t>(c.taps.size());
  const Planes planes(c.images, c.rows, c.columns, c.step[0], c.step[1], c.x.top, c.x.left, c.x.height, c.x.width,
                      c.taps, target_positions(c.inputs));
  const std::vector<int64_t> offsets = planes.offsets(c.inputs);
  const int64_t width = table<ConvTable>(isa).block, blocks = ceil_div(c.outputs, width);
  const int64_t products = c.images * c.groups * c.outputs * k * c.rows * c.columns;
  const int64_t useful = threads_for(products, kGrain);
  const int64_t parts = std::clamp<int64_t>(useful > 1 ? 2 * useful / (planes.spans() * c.groups) : 1, 1, blocks);
  const int64_t tasks = planes.spans() * c.groups * parts;
  const int threads = static_cast<int>(std::min(useful, tasks));

  std::vector<T> packed(c.groups * c.outputs * k);
  parallel_for(c.groups * blocks, std::max<int64_t>(1, kGrain / (width * k + 1) / 8), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t group = i / blocks, first = i % blocks * width;
      pack(c, group, first, std::min(width, c.outputs - first), packed.data() + (group * c.outputs + first) * k);
    }
  });

  parallel_tasks(tasks, threads, [&](int64_t task) {
    const int64_t part = task % parts, group = task / parts % c.groups;
    const Span s = planes.span(task / parts / c.groups);
    const int64_t positions = planes.positions(s), row = round_up(positions, 16),
                  x_size = round_up(planes.size(c.inputs), 16);
    T* const x = static_cast<T*>(scratch(Slot::caller, (x_size + width * row) * sizeof(T)));
    T* const y = x + x_size;
    Images<T> source = c.x;
    source.data += group * c.inputs * source.channel;
    planes.fill(source, s, c.inputs, x);
    for (int64_t b = part * blocks / parts; b < (part + 1) * blocks / parts; ++b) {
      const int64_t first = b * width, count = std::min(width, c.outputs - first);
      const int64_t channel = group * c.outputs + first;
      kernels(isa, T()).block({count, k, positions, packed.data() + channel * k, c.bias ? c.bias + channel : nullptr, x,
                               offsets.data(), y, row});
      planes.take_outputs(c.y, s, count, y, row, c.to + channel * c.y.channel);
    }
  });
}

// The numbers that the three functions share.
struct Geometry {
  int64_t images, groups, inputs, outputs;  // channels of one group
  Pair size, kernel, stride, padding, dilation, positions;

  std::vector<Tap> taps(int64_t weight_row, int64_t weight_column) const {
    std::vector<Tap> all;
    for (int64_t i = 0; i < kernel[0]; ++i) {
      for (int64_t j = 0; j < kernel[1]; ++j) {
        all.push_back({i * dilation[0], j * dilation[1], i * weight_row + j * weight_column});
      }
    }
    return all;
  }
};

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

template <typename T>
Images<T> images_of(const py::array& a) {
  return {static_cast<const T*>(a.data()),
          stride<T>(a, 0),
          stride<T>(a, 1),
          stride<T>(a, 2),
          stride<T>(a, 3),
          a.shape(2),
          a.shape(3)};
}

template <typename T>
py::array conv2d_of(const py::array& x, const py::array& weight, const py::object& bias, Pair stride_, Pair padding,
                    Pair dilation, int64_t groups, Isa isa) {
  expect_type<T>(x, "x");
  expect_type<T>(weight, "weight");
  expect_ndim(weight, 4, "weight");
  const Geometry g = checked(x.shape(0), x.shape(1), weight.shape(0), {x.shape(2), x.shape(3)},
                             {weight.shape(2), weight.shape(3)}, stride_, padding, dilation, groups);
  expect_shape(weight, {-1, g.inputs, -1, -1}, "weight");
  py::array_t<T> biases;
  if (!bias.is_none()) {
    const py::array given = py::cast<py::array>(bias);
    expect_type<T>(given, "bias");
    expect_shape(given, {g.outputs * groups}, "bias");
    biases = py::array_t<T, py::array::c_style>(given);
  }
  py::array_t<T> y = empty<T>({g.images, g.outputs * groups, g.positions[0], g.positions[1]});
  Correlation<T> c{};
  c.images = g.images, c.groups = groups, c.inputs = g.inputs, c.outputs = g.outputs;
  c.rows = g.positions[0], c.columns = g.positions[1], c.step = g.stride;
  c.x = images_of<T>(x);
  c.x.top = padding[0], c.x.left = padding[1];
  c.taps = g.taps(stride<T>(weight, 2), stride<T>(weight, 3));
  c.weight = static_cast<const T*>(weight.data());
  c.weight_group = g.outputs * stride<T>(weight, 0);
  c.weight_output = stride<T>(weight, 0), c.weight_input = stride<T>(weight, 1);
  c.bias = bias.is_none() ? nullptr : biases.data();
  c.y = images_of<T>(y);
  c.to = y.mutable_data();
  if (y.size() > 0) {
    py::gil_scoped_release release;
    correlate(c, isa);
  }
  return std::move(y);
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

template <typename T>
py::array input_gradient_of(const py::array& g, const py::array& weight, Pair size, Pair stride_, Pair padding,
                            Pair dilation, int64_t groups, Isa isa) {
  expect_type<T>(g, "g");
  expect_type<T>(weight, "weight");
  expect_ndim(weight, 4, "weight");
  const Geometry geometry = checked(g.shape(0), weight.shape(1) * std::max<int64_t>(groups, 1), weight.shape(0), size,
                                    {weight.shape(2), weight.shape(3)}, stride_, padding, dilation, groups);
  expect_shape(g, {-1, weight.shape(0), geometry.positions[0], geometry.positions[1]}, "g");
  py::array_t<T> dx = empty<T>({geometry.images, geometry.inputs * groups, size[0], size[1]});
  Correlation<T> c{};
  c.images = geometry.images, c.groups = groups, c.inputs = geometry.outputs, c.outputs = geometry.inputs;
  c.step = {1, 1};
  c.weight = static_cast<const T*>(weight.data());
  c.weight_group = geometry.outputs * stride<T>(weight, 0);
  c.weight_output = stride<T>(weight, 1), c.weight_input = stride<T>(weight, 0);
  c.y = images_of<T>(dx);
  c.y.row *= stride_[0], c.y.column *= stride_[1];
  const int64_t weight_row = stride<T>(weight, 2), weight_column = stride<T>(weight, 3);
  const Images<T> gradients = images_of<T>(g);
  T* const start = dx.mutable_data();
  if (dx.size() > 0) {
    py::gil_scoped_release release;
    for (int64_t a = 0; a < std::min(stride_[0], padding[0] + size[0]); ++a) {
      const Phase rows = phase_of(geometry, 0, a);
      for (int64_t b = 0; b < std::min(stride_[1], padding[1] + size[1]); ++b) {
        const Phase columns = phase_of(geometry, 1, b);
        if (rows.count <= 0 || columns.count <= 0) continue;
        c.rows = rows.count, c.columns = columns.count;
        c.x = gradients;
        c.x.top = rows.furthest - rows.first, c.x.left = columns.furthest - columns.first;
        c.taps.clear();
        for (const auto& [i, up] : rows.taps) {
          for (const auto& [j, back] : columns.taps) {
            c.taps.push_back({rows.furthest - up, columns.furthest - back, i * weight_row + j * weight_column});
          }
        }
        c.to =
            start + (rows.first * stride_[0] + a - padding[0]) * size[1] + columns.first * stride_[1] + b - padding[1];
        correlate(c, isa);
      }
    }
  }
  return std::move(dx);
}

// One span's share of a weight gradient, tap by tap on the images themselves. Positions between the outputs are
// multiplied by zero on planes, which is only right where all values are finite.
template <typename T>
void plain_dots(const Geometry& g, const std::vector<Tap>& taps, const Images<T>& x, const Images<T>& dy, const Span& s,
                int64_t inputs, T* sums, int64_t sum_row) {
  for (int64_t o = 0; o < g.outputs; ++o) {
    for (int64_t c = 0; c < inputs; ++c) {
      T* sum = sums + o * sum_row + c * static_cast<int64_t>(taps.size());
      for (const Tap& tap : taps) {
        for (int64_t n = s.image; n < s.image + s.images; ++n) {
          for (int64_t r = s.row; r < s.row + s.rows; ++r) {
            const int64_t y = r * g.stride[0] + tap.row - x.top;
            for (int64_t q = 0; q < g.positions[1]; ++q) {
              const int64_t z = q * g.stride[1] + tap.column - x.left;
              const bool inside = y >= 0 && y < x.height && z >= 0 && z < x.width;
              const T seen = inside ? x.data[n * x.image + c * x.channel + y * x.row + z * x.column] : T(0);
              *sum += seen * dy.data[n * dy.image + o * dy.channel + r * dy.row + q * dy.column];
            }
          }
        }
        ++sum;
      }
    }
  }
}

// Spans are shared out to a number of chunks that depends on the sizes alone; each chunk has its own sums, which are
// added up in order. `dw` has one value for each of the taps.
template <typename T>
void tap_gradients(const Geometry& g, const std::vector<Tap>& taps, const Images<T>& x, const Images<T>& dy, T* dw,
                   Isa isa) {
  const int64_t tap_count = static_cast<int64_t>(taps.size()), row = g.inputs * tap_count;
  const Planes planes(g.images, g.positions[0], g.positions[1], g.stride[0], g.stride[1], x.top, x.left, x.height,
                      x.width, taps, std::max(2 * kMinPositions, target_positions(g.inputs + g.outputs)));
  const std::vector<int64_t> offsets = planes.offsets(g.inputs);
  const int64_t total = g.groups * g.outputs * row;
  const int64_t chunks = std::clamp<int64_t>(kMaxPartials / std::max<int64_t>(total, 1), 1,
                                             std::max<int64_t>(1, std::min(planes.spans(), kTasks)));
  const int64_t parts = std::clamp<int64_t>(ceil_div(kTasks, chunks * g.groups), 1, std::max<int64_t>(1, g.inputs / 8));
  const int64_t tasks = chunks * g.groups * parts;
  const int64_t products = g.images * g.positions[0] * g.positions[1] * total;
  const int threads = static_cast<int>(std::min<int64_t>(threads_for(products, kGrain), tasks));
  std::vector<T> partials(chunks * total);  // zeros

  parallel_tasks(tasks, threads, [&](int64_t task) {
    const int64_t part = task % parts, group = task / parts % g.groups, chunk = task / parts / g.groups;
    const int64_t first = part * g.inputs / parts, inputs = (part + 1) * g.inputs / parts - first;
    Images<T> seen = x, gradients = dy;
    seen.data += (group * g.inputs + first) * x.channel;
    gradients.data += group * g.outputs * dy.channel;
    T* const sums = partials.data() + (chunk * g.groups + group) * g.outputs * row + first * tap_count;
    for (int64_t i = chunk * planes.spans() / chunks; i < (chunk + 1) * planes.spans() / chunks; ++i) {
      const Span s = planes.span(i);
      const int64_t positions = round_up(planes.positions(s), 16), size = round_up(planes.size(inputs), 16);
      T* const from = static_cast<T*>(scratch(Slot::caller, (size + g.outputs * positions) * sizeof(T)));
      planes.fill(seen, s, inputs, from);
      if (kernels(isa, T()).all_finite(from, planes.size(inputs))) {
        planes.fill_outputs(gradients, s, g.outputs, from + size, positions);
        kernels(isa, T()).dots(
            {g.outputs, inputs * tap_count, positions, from + size, positions, from, offsets.data(), sums, row});
      } else {
        plain_dots(g, taps, seen, gradients, s, inputs, sums, row);
      }
    }
  });
  parallel_for(total, kGrain, [&](int64_t begin, int64_t end) {
    std::copy(partials.data() + begin, partials.data() + end, dw + begin);
    for (int64_t chunk = 1; chunk < chunks; ++chunk) {
      const T* const more = partials.data() + chunk * total;
      for (int64_t i = begin; i < end; ++i) dw[i] += more[i];
    }
  });
}

template <typename T>
bool all_finite(const Geometry& g, const Images<T>& dy) {
  for (int64_t n = 0; n < g.images; ++n) {
    for (int64_t o = 0; o < g.outputs * g.groups; ++o) {
      for (int64_t r = 0; r < g.positions[0]; ++r) {
        for (int64_t q = 0; q < g.positions[1]; ++q) {
          if (!std::isfinite(dy.data[n * dy.image + o * dy.channel + r * dy.row + q * dy.column])) return false;
        }
      }
    }
  }
  return true;
}

// Taps through which no output sees the image have no gradient, unless one that is not finite meets their padding.
template <typename T>
void weight_gradient(const Geometry& g, Images<T> x, const Images<T>& dy, T* dw, Isa isa) {
  const std::vector<Tap> taps = g.taps(g.kernel[1], 1);
  std::vector<Tap> kept;
  for (const Tap& tap : taps) {
    if (sees(tap, g.positions[0], g.positions[1], g.stride, x)) kept.push_back(tap);
  }
  if (kept.size() == taps.size() || !all_finite(g, dy)) return tap_gradients(g, taps, x, dy, dw, isa);
  const int64_t filters = g.groups * g.outputs * g.inputs, all = taps.size(), some = kept.size();
  std::fill(dw, dw + filters * all, T(0));
  if (kept.empty()) return;
  std::vector<T> compact(filters * some);
  const std::vector<Tap> moved = shifted(kept, x);
  tap_gradients(g, moved, x, dy, compact.data(), isa);
  for (int64_t i = 0; i < filters; ++i) {
    for (int64_t t = 0; t < some; ++t) dw[i * all + kept[t].weight] = compact[i * some + t];
  }
}

template <typename T>
py::array weight_gradient_of(const py::array& g, const py::array& x, Pair size, Pair stride_, Pair padding,
                             Pair dilation, int64_t groups, Isa isa) {
  expect_type<T>(g, "g");
  expect_type<T>(x, "x");
  expect_ndim(g, 4, "g");
  const Geometry geometry =
      checked(x.shape(0), x.shape(1), g.shape(1), {x.shape(2), x.shape(3)}, size, stride_, padding, dilation, groups);
  expect_shape(g, {x.shape(0), -1, geometry.positions[0], geometry.positions[1]}, "g");
  py::array_t<T> dw = empty<T>({g.shape(1), geometry.inputs, size[0], size[1]});
  Images<T> seen = images_of<T>(x);
  seen.top = padding[0], seen.left = padding[1];
  if (dw.size() > 0) {
    const Images<T> gradients = images_of<T>(g);
    T* const to = dw.mutable_data();
    py::gil_scoped_release release;
    weight_gradient(geometry, seen, gradients, to, isa);
  }
  return std::move(dw);
}

bool holds_doubles(const py::array& a) { return py::isinstance<py::array_t<double>>(a); }

void bind_conv(py::module_& m) {
  m.def(
      "conv2d",
      [](const py::array& x, const py::array& weight, const py::object& bias, Pair stride, Pair padding, Pair dilation,
         int64_t groups, const char* isa) {
        expect_ndim(x, 4, "x");
        const auto run = holds_doubles(x) ? conv2d_of<double> : conv2d_of<float>;
        return run(x, weight, bias, stride, padding, dilation, groups, isa_named(isa));
      },
      "Convolution; operands may have any strides, the result is C-contiguous.", py::arg("x"), py::arg("weight"),
      py::arg("bias").none(true), py::kw_only(), py::arg("stride"), py::arg("padding"), py::arg("dilation"),
      py::arg("groups"), py::arg("isa") = "");
  m.def(
      "conv2d_input_gradient",
      [](const py::array& g, const py::array& weight, Pair size, Pair stride, Pair padding, Pair dilation,
         int64_t groups, const char* isa) {
        expect_ndim(g, 4, "g");
        const auto run = holds_doubles(g) ? input_gradient_of<double> : input_gradient_of<float>;
        return run(g, weight, size, stride, padding, dilation, groups, isa_named(isa));
      },
      "Gradient of conv2d with respect to x.", py::arg("g"), py::arg("weight"), py::kw_only(), py::arg("size"),
      py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"), py::arg("isa") = "");
  m.def(
      "conv2d_weight_gradient",
      [](const py::array& g, const py::array& x, Pair size, Pair stride, Pair padding, Pair dilation, int64_t groups,
         const char* isa) {
        expect_ndim(x, 4, "x");
        const auto run = holds_doubles(g) ? weight_gradient_of<double> : weight_gradient_of<float>;
        return run(g, x, size, stride, padding, dilation, groups, isa_named(isa));
      },
      "Gradient of conv2d with respect to weight.", py::arg("g"), py::arg("x"), py::kw_only(), py::arg("size"),
      py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"), py::arg("isa") = "");
}

const Binder binder(bind_conv);

}  // namespace
}  // namespace ulpgrad
