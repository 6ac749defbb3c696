// The gradient of a convolution's weights: products of taps and outputs, summed over all positions.
#include "conv_weight.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <utility>

namespace ulpgrad {
namespace {

// Pairs of bfloat16 positions, where the unit for them is there.
template <typename S>
bool has_pairs(Isa isa) {
  return std::is_same_v<S, Bfloat16> && isa == Isa::avx512 && has_avx512_bf16();
}

// The part of a problem that one pass over the sums covers, on planes, and what its gradients become beside it.
template <typename S>
class Stack {
 public:
  using T = Wide<S>;

  Stack(const WeightProblem<S>& problem, const Planes& planes, Isa isa, int64_t width)
      : problem_(problem),
        planes_(planes),
        moves_(table<ConvMoves>(isa)),
        pairs_(has_pairs<S>(isa)),
        plane_(round_up(planes.units(), kConvBlock) + 2 * kConvBlock),
        gradients_(round_up((planes.span_positions() + 1) * width, kConvBlock)) {}

  int64_t bytes() const { return (plane_ + gradients_) * static_cast<int64_t>(sizeof(T)); }  // of a span
  int64_t plane_bytes() const { return plane_ * static_cast<int64_t>(sizeof(T)); }

  // Spans [first, first + count), all of one shape, of a group's images; the memory holds them.
  void read(int64_t first, int64_t count, int64_t group, T* memory) {
    first_ = first, count_ = count, group_ = group, seen_ = memory, held_ = memory + count * plane_;
    paired_ = pairs_;
    fill_planes();
    for (int64_t i = 0; paired_ && i < count_; ++i) {
      T* const plane = seen_ + i * plane_;
      moves_.pair_up(plane, planes_.step, round_up(planes_.units(), kConvBlock), plane);
      if (!moves_.plain_b16(plane, 2 * planes_.units())) read_wide();
    }
  }

  // Adds the products with outputs [first, first + outputs) of the group, in `vectors` vectors, to `sum`.
  void add(int64_t first, int64_t outputs, int64_t vectors, int64_t lanes, const std::vector<int64_t>& offsets, T* sum,
           const ConvTiles<T>& tiles, [[maybe_unused]] Isa isa) {
    const Span s = planes_.span(first_);
    const int64_t step = vectors * lanes, row = s.columns * step;
    ConvDots<T> dots{
        seen_, planes_.step, planes_.row_units(), plane_, offsets.data(), static_cast<int64_t>(offsets.size()),
        held_, row,          gradients_,          count_, s.rows,         s.columns,
        sum,   vectors};
    const auto by_slices = [&](void (*run)(const ConvDots<T>&)) {
      ConvDots<T> slice = dots;
      for (int64_t z = 0; z < s.slices; ++z) {
        slice.x = seen_ + z * planes_.slice_units(), slice.g = held_ + z * s.rows * dots.g_row;
        run(slice);
      }
    };
    fill_gradients(first, outputs, step);
    if constexpr (std::is_same_v<S, Bfloat16>) {
      if (paired_) {
        dots.g_row = ceil_div(s.columns, 2) * step;
        if (pair_gradients(s, step, row, dots.g_row)) return by_slices(table<ConvPairsTable>(isa).dots);
        read_wide();  // what is subnormal or not finite takes the widened road, with all that follows
        fill_gradients(first, outputs, step);
        dots.g_row = row;
      }
    }
    by_slices(tiles.dots);
  }

 private:
  void read_wide() {
    paired_ = false;
    fill_planes();
  }

  void fill_planes() {
    Images<const S> x = problem_.x;
    x.data += group_ * problem_.g.inputs * x.channel;
    for (int64_t i = 0; i < count_; ++i) {
      T* const plane = seen_ + i * plane_;
      if (paired_) std::fill(plane, plane + plane_, T(0));
      planes_.fill(x, planes_.span(first_ + i), problem_.g.inputs, moves_.*ConvRoad<S>::in, plane);
    }
  }

  void fill_gradients(int64_t first, int64_t outputs, int64_t step) {
    for (int64_t i = 0; i < count_; ++i) {
      const Span s = planes_.span(first_ + i);
      T* const to = held_ + i * gradients_;
      if (outputs < step) std::fill(to, to + s.positions() * step, T(0));
      read_gradients(problem_.dy, s, group_ * problem_.g.outputs + first, 1, outputs, step, moves_.*ConvRoad<S>::in,
                     to);
    }
  }

  bool pair_gradients(const Span& s, int64_t step, int64_t row, int64_t paired_row) {
    for (int64_t i = 0; i < count_; ++i) {
      T* const to = held_ + i * gradients_;
      const int64_t rows = s.slices * s.rows;
      for (int64_t r = 0; r < rows; ++r) moves_.pair_row(to + r * row, step, s.columns, to + r * paired_row);
      if (!moves_.plain_b16(to, 2 * rows * paired_row)) return false;
    }
    return true;
  }

  const WeightProblem<S>& problem_;
  const Planes& planes_;
  const ConvMoves& moves_;
  const bool pairs_;
  const int64_t plane_, gradients_;  // values of a span
  int64_t first_ = 0, count_ = 0, group_ = 0;
  T *seen_ = nullptr, *held_ = nullptr;
  bool paired_ = false;
};

// The sums of `count` outputs from `first` on, `width` lanes apart, as they are to lie. Squares of outputs and taps are
// turned at a time, or of outputs and inputs where there is but one tap.
template <typename S>
void put_block(const WeightProblem<S>& problem, const Wide<S>* from, int64_t first, int64_t count, int64_t width,
               const ConvMoves& moves) {
  const auto out = moves.*ConvRoad<Wide<S>>::out;
  const Geometry& g = problem.g;
  const int64_t taps = static_cast<int64_t>(problem.taps.size()), step = g.inputs > 1 ? kConvBlock : 1;
  for (int64_t b = 0; b < g.inputs; b += step) {
    const int64_t units = std::min(step, g.inputs - b);
    Wide<S>* const to = problem.dw + (first * g.inputs + b) * problem.filter;
    if (taps == 1 && problem.filter == 1) {
      out(from, width, count, units, to, g.inputs, 1);
    } else if (taps == problem.filter) {
      for (int64_t u = 0; u < units; ++u) {
        out(from + u * width, units * width, count, taps, to + u * taps, g.inputs * taps, 1);
      }
    } else {
      for (int64_t t = 0; t < taps; ++t) {
        for (int64_t u = 0; u < units; ++u) {
          for (int64_t lane = 0; lane < count; ++lane) {
            problem.set(first + lane, b + u, t, from[(t * units + u) * width + lane]);
          }
        }
      }
    }
    from += taps * units * width;
  }
}

// Sums[output block][channel block, tap, unit][lane] of each group.
template <typename S>
void by_tiles(const WeightProblem<S>& problem, Isa isa) {
  using T = Wide<S>;
  const Geometry& g = problem.g;
  const ConvTiles<T>& tiles = conv_tiles(isa, T());
  const int64_t taps = static_cast<int64_t>(problem.taps.size()), lanes = tiles.lanes, width = 2 * lanes;
  const int64_t padded = round_up(g.outputs, lanes), k = g.inputs * taps, total = g.groups * padded * k;
  const Planes planes(g.images, g.positions, g.stride, problem.taps, g.inputs, kSpanBytes / sizeof(T), 1, {1, 1},
                      kConvBlock, g.depth.along());
  const int64_t blocks = ceil_div(padded, width);
  const int64_t chunks = chunks_of(planes.spans(), total, g.groups * blocks);
  const int64_t useful = threads_for(problem.products(), kConvGrain);
  const int64_t parts = useful > 1 ? std::clamp<int64_t>(ceil_div(2 * useful, chunks * g.groups), 1, blocks) : 1;
  std::vector<int64_t> offsets;
  for (const ConvSegment& s : planes.segments(g.inputs, planes.taps())) {
    for (int64_t u = 0; u < s.units; ++u) offsets.push_back(s.offset + u);
  }
  T* const sums = static_cast<T*>(scratch(Slot::weights, chunks * total * static_cast<int64_t>(sizeof(T))));
  std::fill(sums, sums + chunks * total, T(0));
  const Stack<S> one(problem, planes, isa, width);
  const bool whole = planes.spans() == g.images;  // images that are spans of their own go together
  const int64_t stack = whole ? std::clamp<int64_t>(kSpanBytes / one.plane_bytes(), 1, planes.spans()) : 1;
  const int64_t tasks = chunks * g.groups * parts;
  allocating_tasks(tasks, static_cast<int>(std::min(useful, tasks)), [&](int64_t task) {
    const int64_t part = task % parts, group = task / parts % g.groups, chunk = task / parts / g.groups;
    const int64_t end = (chunk + 1) * planes.spans() / chunks;
    Stack<S> here = one;
    for (int64_t i = chunk * planes.spans() / chunks; i < end; i += stack) {
      const int64_t count = std::min(stack, end - i);
      here.read(i, count, group, static_cast<T*>(scratch(Slot::caller, count * here.bytes())));
      for (int64_t b = part * blocks / parts; b < (part + 1) * blocks / parts; ++b) {
        const int64_t first = b * width, vectors = std::min<int64_t>(2, (padded - first) / lanes);
        here.add(first, std::min(vectors * lanes, g.outputs - first), vectors, lanes, offsets,
                 sums + chunk * total + (group * padded + first) * k, tiles, isa);
      }
    }
  });
  add_up(sums, chunks, total);
  parallel_for(g.groups * blocks, std::max<int64_t>(1, kConvGrain / (width * k + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t group = i / blocks, first = i % blocks * width,
                    vectors = std::min<int64_t>(2, (padded - first) / lanes);
      put_block(problem, sums + (group * padded + first) * k, group * g.outputs + first,
                std::min(vectors * lanes, g.outputs - first), vectors * lanes, table<ConvMoves>(isa));
    }
  });
}

template <typename S>
bool all_finite(const Geometry& g, const Images<const S>& dy) {
  for (int64_t n = 0; n < g.images; ++n) {
    for (int64_t o = 0; o < g.outputs * g.groups; ++o) {
      for (int64_t i = 0; i < g.depth.positions * g.positions[0]; ++i) {
        const S* const row =
            dy.data + n * dy.image + o * dy.channel + i / g.positions[0] * dy.slice + i % g.positions[0] * dy.row;
        for (int64_t q = 0; q < g.positions[1]; ++q) {
          if (!std::isfinite(wide_value(row[q * dy.column]))) return false;
        }
      }
    }
  }
  return true;
}

// Taps through which no output sees the image have no gradient, unless one that is not finite meets their padding. The
// sums are float (or double), to be rounded by the caller.
template <typename S>
void weight_gradient(const Geometry& g, Images<const S> x, const Images<const S>& dy, Wide<S>* dw, Isa isa) {
  std::vector<Tap> taps = g.taps(g.kernel[0] * g.kernel[1], g.kernel[1], 1), kept;
  const int64_t all = static_cast<int64_t>(taps.size());
  for (const Tap& tap : taps) {
    if (sees(tap, g.positions, g.stride, g.depth.along(), x)) kept.push_back(tap);
  }
  if (kept.size() < taps.size() && all_finite(g, dy)) {
    std::fill(dw, dw + g.groups * g.outputs * g.inputs * all, Wide<S>(0));
    if (kept.empty()) return;
    taps = shifted(kept, x);
  }
  const WeightProblem<S> problem{g, taps, x, dy, dw, all};
  if (ceil_div(g.groups, kConvBlock) * g.outputs < g.groups * ceil_div(g.outputs, conv_tiles(isa, Wide<S>()).lanes)) {
    by_lanes(problem, isa);
  } else {
    by_tiles(problem, isa);
  }
}

template <typename S>
py::array weight_gradient_of(const py::array& g, const py::array& x, Sizes size, Sizes stride, Sizes padding,
                             Sizes dilation, int64_t groups, Isa isa) {
  using T = Wide<S>;
  expect_like(x, g, x.ndim(), "g");
  const Geometry geometry =
      checked(x.shape(0), x.shape(1), g.shape(1), sizes_of(x), size, stride, padding, dilation, groups);
  expect_positions(g, geometry, g.shape(1), "g");
  std::vector<py::ssize_t> shape{g.shape(1), geometry.inputs};
  shape.insert(shape.end(), size.end() - (x.ndim() - 2), size.end());
  py::array dw(x.dtype(), shape);
  Images<const S> seen = images_of<S>(x);
  seen.front = padding[0], seen.top = padding[1], seen.left = padding[2];
  if (dw.size() > 0) {
    const Images<const S> gradients = images_of<S>(g);
    S* const to = static_cast<S*>(dw.mutable_data());
    const int64_t count = dw.size();
    py::gil_scoped_release release;
    if constexpr (std::is_same_v<S, T>) {
      weight_gradient(geometry, seen, gradients, to, isa);
    } else {
      std::vector<T> sums(count + 16);  // what is rounded is read by whole vectors
      weight_gradient(geometry, seen, gradients, sums.data(), isa);
      (table<ConvMoves>(isa).*ConvRoad<S>::out)(sums.data(), 0, count, 1, to, 1, 0);
    }
  }
  return dw;
}

void bind_conv_weight(py::module_& m) {
  m.def(
      "conv2d_weight_gradient",
      [](const py::array& g, const py::array& x, Pair size, Pair stride, Pair padding, Pair dilation, int64_t groups,
         const char* isa) {
        expect_ndim(x, 4, "x");
        return with_type(x, "x", [&](auto s) {
          return weight_gradient_of<decltype(s)>(g, x, deep(size, 1), deep(stride, 1), deep(padding, 0),
                                                 deep(dilation, 1), groups, isa_named(isa));
        });
      },
      "Gradient of conv2d with respect to weight.", py::arg("g"), py::arg("x"), py::kw_only(), py::arg("size"),
      py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"), py::arg("isa") = "");
  m.def(
      "conv3d_weight_gradient",
      [](const py::array& g, const py::array& x, Sizes size, Sizes stride, Sizes padding, Sizes dilation,
         int64_t groups, const char* isa) {
        expect_ndim(x, 5, "x");
        return with_type(x, "x", [&](auto s) {
          return weight_gradient_of<decltype(s)>(g, x, size, stride, padding, dilation, groups, isa_named(isa));
        });
      },
      "Gradient of conv3d with respect to weight.", py::arg("g"), py::arg("x"), py::kw_only(), py::arg("size"),
      py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"), py::arg("isa") = "");
}

const Binder binder(bind_conv_weight);

}  // namespace
}  // namespace ulpgrad
