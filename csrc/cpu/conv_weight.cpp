// The gradient of a convolution's weights: products of taps and outputs, summed over all positions.
#include <pybind11/stl.h>

#include <algorithm>
#include <utility>

#include "conv_correlate.h"
#include "conv_geometry.h"

namespace ulpgrad {
namespace {

constexpr int64_t kSpanBytes = 1 << 18;     // of the planes of a span
constexpr int64_t kChunks = 16;             // most partial sums of a gradient, so that they do not depend on threads
constexpr int64_t kMostPartials = 1 << 22;  // values of them

template <typename S>
struct Problem {
  const Geometry& g;
  std::vector<Tap> taps;  // `weight` is the tap's place in a filter
  Images<const S> x, dy;

  int64_t products() const {
    return g.images * g.groups * g.outputs * g.inputs * static_cast<int64_t>(taps.size()) * g.positions[0] *
           g.positions[1];
  }
};

// Fixed shares of the spans, each with sums of its own.
int64_t chunks_of(int64_t spans, int64_t total) {
  return std::clamp<int64_t>(kMostPartials / std::max<int64_t>(total, 1), 1, std::clamp<int64_t>(spans, 1, kChunks));
}

template <typename T>
void add_up(std::vector<T>& partials, int64_t chunks, int64_t total) {
  parallel_for(total, kConvGrain, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = 1; chunk < chunks; ++chunk) {
      const T* const more = partials.data() + chunk * total;
      for (int64_t i = begin; i < end; ++i) partials[i] += more[i];
    }
  });
}

// Pairs of bfloat16 positions, where the unit for them is there.
template <typename S>
bool has_pairs(Isa isa) {
  return std::is_same_v<S, Bfloat16> && isa == Isa::avx512 && has_avx512_bf16();
}

// Sums[output chunk][block, tap, unit][lane] of each group; weights' places are set by set(group, output, input, tap,
// sum).
template <typename S, typename Set>
void by_tiles(const Problem<S>& problem, Isa isa, const Set& set) {
  using T = Wide<S>;
  const Geometry& g = problem.g;
  const ConvTiles<T>& tiles = conv_tiles(isa, T());
  const ConvMoves& moves = table<ConvMoves>(isa);
  const auto in = moves.*ConvRoad<S>::in;
  const int64_t taps = static_cast<int64_t>(problem.taps.size()), lanes = tiles.lanes, width = 2 * lanes;
  const int64_t padded = round_up(g.outputs, lanes), k = g.inputs * taps, total = g.groups * padded * k;
  const Planes planes(g.images, g.positions, g.stride, problem.taps, g.inputs, kSpanBytes / sizeof(T), 1);
  const int64_t chunks = chunks_of(planes.spans(), total);
  const int64_t blocks = ceil_div(padded, width);
  const int64_t parts = std::clamp<int64_t>(ceil_div(kChunks, chunks * g.groups), 1, blocks);
  std::vector<int64_t> offsets;
  for (const ConvSegment& s : planes.segments(g.inputs, planes.taps())) {
    for (int64_t u = 0; u < s.units; ++u) offsets.push_back(s.offset + u);
  }
  std::vector<T> sums(chunks * total);
  const int64_t tasks = chunks * g.groups * parts;
  const int threads = static_cast<int>(std::min<int64_t>(threads_for(problem.products(), kConvGrain), tasks));
  allocating_tasks(tasks, threads, [&](int64_t task) {
    const int64_t part = task % parts, group = task / parts % g.groups, chunk = task / parts / g.groups;
    Images<const S> x = problem.x, dy = problem.dy;
    x.data += group * g.inputs * x.channel;
    for (int64_t i = chunk * planes.spans() / chunks; i < (chunk + 1) * planes.spans() / chunks; ++i) {
      const Span s = planes.span(i);
      const int64_t size = round_up(planes.units(), kConvBlock) + 2 * kConvBlock;
      T* const seen = static_cast<T*>(
          scratch(Slot::caller, (size + planes.span_positions() * width + width) * static_cast<int64_t>(sizeof(T))));
      T* const gradients = seen + size;
      bool paired = has_pairs<S>(isa);
      if (paired) {
        std::fill(seen, seen + size, T(0));
        planes.fill(x, s, g.inputs, in, seen);
        moves.pair_up(seen, planes.step, round_up(planes.units(), kConvBlock), seen);
        paired = moves.plain_b16(seen, 2 * planes.units());
      }
      if (!paired) planes.fill(x, s, g.inputs, in, seen);
      for (int64_t b = part * blocks / parts; b < (part + 1) * blocks / parts; ++b) {
        const int64_t first = b * width, vectors = std::min<int64_t>(2, (padded - first) / lanes);
        const int64_t outputs = std::min(vectors * lanes, g.outputs - first), step = vectors * lanes;
        const int64_t row = s.columns * step, paired_row = ceil_div(s.columns, 2) * step;
        const auto fill = [&] {
          if (outputs < step) std::fill(gradients, gradients + s.rows * row, T(0));
          for (int64_t r = 0; r < s.rows; ++r) {
            in(dy.data + s.image * dy.image + (group * g.outputs + first) * dy.channel + (s.row + r) * dy.row +
                   s.column * dy.column,
               dy.channel, dy.column, outputs, s.columns, gradients + r * row, step, step, 0);
          }
        };
        fill();
        ConvDots<T> dots{seen,
                         planes.step,
                         planes.row_units(),
                         offsets.data(),
                         k,
                         gradients,
                         row,
                         s.rows,
                         s.columns,
                         sums.data() + chunk * total + (group * padded + first) * k,
                         vectors};
        if constexpr (std::is_same_v<S, Bfloat16>) {
          if (paired) {
            for (int64_t r = 0; r < s.rows; ++r) {
              moves.pair_row(gradients + r * row, step, s.columns, gradients + r * paired_row);
            }
            if (moves.plain_b16(gradients, 2 * s.rows * paired_row)) {
              dots.g_row = paired_row;
              table<ConvPairsTable>(isa).dots(dots);
              continue;
            }
            fill();  // what is subnormal or not finite takes the widened road, with all that follows
            planes.fill(x, s, g.inputs, in, seen);
            paired = false;
          }
        }
        tiles.dots(dots);
      }
    }
  });
  add_up(sums, chunks, total);
  const int64_t step = g.inputs > 1 ? kConvBlock : 1;
  parallel_for(g.groups * blocks, std::max<int64_t>(1, kConvGrain / (width * k + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t group = i / blocks, first = i % blocks * width,
                    vectors = std::min<int64_t>(2, (padded - first) / lanes);
      const T* from = sums.data() + (group * padded + first) * k;
      for (int64_t b = 0; b < g.inputs; b += step) {
        const int64_t units = std::min(step, g.inputs - b);
        for (int64_t lane = 0; lane < std::min(vectors * lanes, g.outputs - first); ++lane) {
          for (int64_t u = 0; u < units; ++u) {
            for (int64_t t = 0; t < taps; ++t) {
              set(group * g.outputs + first + lane, b + u, t, from[(t * units + u) * vectors * lanes + lane]);
            }
          }
        }
        from += taps * units * vectors * lanes;
      }
    }
  });
}

// Where groups are small, the lanes are groups.
template <typename S, typename Set>
void by_lanes(const Problem<S>& problem, Isa isa, const Set& set) {
  using T = Wide<S>;
  const Geometry& g = problem.g;
  const ConvTiles<T>& tiles = conv_tiles(isa, T());
  const auto in = table<ConvMoves>(isa).*ConvRoad<S>::in;
  const int64_t taps = static_cast<int64_t>(problem.taps.size()), k = g.inputs * taps;
  const int64_t blocks = ceil_div(g.groups, kConvBlock), total = blocks * g.outputs * k * kConvBlock;
  const Planes planes(g.images, g.positions, g.stride, problem.taps, kConvBlock,
                      kSpanBytes / static_cast<int64_t>(sizeof(T)) / std::max<int64_t>(1, g.inputs), 1);
  const int64_t chunks = chunks_of(planes.spans(), total);
  std::vector<int64_t> offsets;
  for (int64_t p = 0; p < g.inputs; ++p) {
    for (const int64_t offset : planes.tap_offset) offsets.push_back(p * planes.units() + offset);
  }
  std::vector<T> sums(chunks * total);
  const int threads = static_cast<int>(std::min<int64_t>(threads_for(problem.products(), kConvGrain), chunks * blocks));
  allocating_tasks(chunks * blocks, threads, [&](int64_t task) {
    const int64_t b = task % blocks, chunk = task / blocks;
    const int64_t first = b * kConvBlock, count = std::min(kConvBlock, g.groups - first);
    for (int64_t i = chunk * planes.spans() / chunks; i < (chunk + 1) * planes.spans() / chunks; ++i) {
      const Span s = planes.span(i);
      const int64_t size = round_up(planes.units() * g.inputs, 16), row = s.columns * kConvBlock;
      T* const seen = static_cast<T*>(
          scratch(Slot::caller, (size + (planes.span_positions() + 1) * kConvBlock) * static_cast<int64_t>(sizeof(T))));
      T* const gradients = seen + size;
      Images<const S> x = problem.x;
      const Images<const S>& dy = problem.dy;
      for (int64_t p = 0; p < g.inputs; ++p) {
        x.data = problem.x.data + (first * g.inputs + p) * problem.x.channel;
        x.channel = g.inputs * problem.x.channel;
        planes.fill(x, s, count, in, seen + p * planes.units());
      }
      for (int64_t o = 0; o < g.outputs; ++o) {
        if (count < kConvBlock) std::fill(gradients, gradients + s.rows * row, T(0));
        for (int64_t r = 0; r < s.rows; ++r) {
          in(dy.data + s.image * dy.image + (first * g.outputs + o) * dy.channel + (s.row + r) * dy.row +
                 s.column * dy.column,
             g.outputs * dy.channel, dy.column, count, s.columns, gradients + r * row, kConvBlock, kConvBlock, 0);
        }
        tiles.lane_dots({seen, planes.row_units(), offsets.data(), k, gradients, row, s.rows, s.columns,
                         sums.data() + chunk * total + (b * g.outputs + o) * k * kConvBlock});
      }
    }
  });
  add_up(sums, chunks, total);
  for (int64_t group = 0; group < g.groups; ++group) {
    for (int64_t o = 0; o < g.outputs; ++o) {
      const T* const from = sums.data() + (group / kConvBlock * g.outputs + o) * k * kConvBlock + group % kConvBlock;
      for (int64_t p = 0; p < k; ++p) set(group * g.outputs + o, p / taps, p % taps, from[p * kConvBlock]);
    }
  }
}

template <typename S>
bool all_finite(const Geometry& g, const Images<const S>& dy) {
  for (int64_t n = 0; n < g.images; ++n) {
    for (int64_t o = 0; o < g.outputs * g.groups; ++o) {
      for (int64_t r = 0; r < g.positions[0]; ++r) {
        for (int64_t q = 0; q < g.positions[1]; ++q) {
          if (!std::isfinite(wide_value(dy.data[n * dy.image + o * dy.channel + r * dy.row + q * dy.column]))) {
            return false;
          }
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
  std::vector<Tap> taps = g.taps(g.kernel[1], 1), kept;
  const int64_t all = static_cast<int64_t>(taps.size());
  for (const Tap& tap : taps) {
    if (sees(tap, g.positions, g.stride, g.padding, g.size)) kept.push_back(tap);
  }
  if (kept.size() < taps.size() && all_finite(g, dy)) {
    std::fill(dw, dw + g.groups * g.outputs * g.inputs * all, Wide<S>(0));
    if (kept.empty()) return;
    taps = shifted(kept, x.top, x.left);
  }
  const Problem<S> problem{g, taps, x, dy};
  const auto set = [&](int64_t output, int64_t input, int64_t tap, Wide<S> sum) {
    dw[(output * g.inputs + input) * all + problem.taps[tap].weight] = sum;
  };
  if (ceil_div(g.groups, kConvBlock) * g.outputs < g.groups * ceil_div(g.outputs, conv_tiles(isa, Wide<S>()).lanes)) {
    by_lanes(problem, isa, set);
  } else {
    by_tiles(problem, isa, set);
  }
}

template <typename S>
py::array weight_gradient_of(const py::array& g, const py::array& x, Pair size, Pair stride, Pair padding,
                             Pair dilation, int64_t groups, Isa isa) {
  using T = Wide<S>;
  expect_like(x, g, 4, "g");
  const Geometry geometry =
      checked(x.shape(0), x.shape(1), g.shape(1), {x.shape(2), x.shape(3)}, size, stride, padding, dilation, groups);
  expect_shape(g, {x.shape(0), -1, geometry.positions[0], geometry.positions[1]}, "g");
  py::array dw(x.dtype(), std::vector<py::ssize_t>{g.shape(1), geometry.inputs, size[0], size[1]});
  Images<const S> seen = images_of<S>(x);
  seen.top = padding[0], seen.left = padding[1];
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
          return weight_gradient_of<decltype(s)>(g, x, size, stride, padding, dilation, groups, isa_named(isa));
        });
      },
      "Gradient of conv2d with respect to weight.", py::arg("g"), py::arg("x"), py::kw_only(), py::arg("size"),
      py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"), py::arg("isa") = "");
}

const Binder binder(bind_conv_weight);

}  // namespace
}  // namespace ulpgrad
