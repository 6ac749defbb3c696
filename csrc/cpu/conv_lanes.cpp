// Convolution of small groups (depthwise): the lanes of a vector are groups. Images that lie channels last are read
// where they are; others come by way of planes.
#include <cstring>
#include <type_traits>

#include "conv_correlate.h"

namespace ulpgrad {
namespace {

// The weights of blocks of groups, one group to a lane, and what their sums start from: [block][output][..][lane].
template <typename S>
struct LaneWeights {
  using T = Wide<S>;
  std::vector<T> start, packed;

  explicit LaneWeights(const Correlation<S>& c) {
    const int64_t k = c.inputs * static_cast<int64_t>(c.taps.size());
    const int64_t all = ceil_div(c.groups, kConvBlock) * c.outputs * kConvBlock;
    start.resize(all), packed.resize(all * k);
    for (int64_t g = 0; g < c.groups; ++g) {
      const int64_t b = g / kConvBlock, lane = g % kConvBlock;
      for (int64_t o = 0; o < c.outputs; ++o) {
        const int64_t at = b * c.outputs + o;
        if (c.bias) start[at * kConvBlock + lane] = wide_value(c.bias[g * c.outputs + o]);
        const S* const from = c.weight + g * c.weight_group + o * c.weight_output;
        T* to = packed.data() + at * k * kConvBlock + lane;
        for (int64_t p = 0; p < c.inputs; ++p) {
          for (const Tap& tap : c.taps) {
            *to = wide_value(from[p * c.weight_input + tap.weight]);
            to += kConvBlock;
          }
        }
      }
    }
  }
};

// Where groups are small, the lanes are groups: kConvBlock of them, one input and one output of each at a time.
template <typename S>
bool in_planes(const Correlation<S>& c, Isa isa) {
  using T = Wide<S>;
  const ConvTiles<T>& tiles = conv_tiles(isa, T());
  const ConvMoves& moves = table<ConvMoves>(isa);
  const auto in = moves.*ConvRoad<S>::in;
  const auto out = moves.*ConvRoad<S>::out;
  const int64_t taps = static_cast<int64_t>(c.taps.size()), k = c.inputs * taps;
  const int64_t blocks = ceil_div(c.groups, kConvBlock);
  const int64_t useful = threads_for(c.products(), kConvGrain);
  const Planes planes(c.images, c.positions, c.step, c.taps, kConvBlock,
                      kPlaneBytes / static_cast<int64_t>(sizeof(T)) / std::max<int64_t>(1, c.inputs),
                      useful > 1 ? ceil_div(8 * useful, blocks) : 1);
  std::vector<ConvLaneTap> seen;
  for (int64_t p = 0; p < c.inputs; ++p) {
    for (const int64_t offset : planes.tap_offset) {
      seen.push_back({p * planes.units() + offset, static_cast<int64_t>(seen.size()) * kConvBlock});
    }
  }
  LaneWeights<S> weights(c);
  const bool dropped =
      c.finite && drop_special(moves, weights.packed.data(), static_cast<int64_t>(weights.packed.size()));
  const int64_t tasks = planes.spans() * blocks;
  allocating_tasks(tasks, useful_threads(c.products(), tasks), [&](int64_t task) {
    const int64_t b = task % blocks, first = b * kConvBlock, count = std::min(kConvBlock, c.groups - first);
    const Span s = planes.span(task / blocks);
    const int64_t size = round_up(planes.units() * c.inputs, 16);
    T* const x = static_cast<T*>(
        scratch(Slot::caller, (size + (s.columns + tiles.lanes) * kConvBlock) * static_cast<int64_t>(sizeof(T))));
    T* const sums = x + size;
    Images<const S> source = c.x;
    for (int64_t p = 0; p < c.inputs; ++p) {
      source.data = c.x.data + (first * c.inputs + p) * c.x.channel;
      source.channel = c.inputs * c.x.channel;
      planes.fill(source, s, count, in, x + p * planes.units());
    }
    for (int64_t r = 0; r < s.rows; ++r) {
      for (int64_t o = 0; o < c.outputs; ++o) {
        const int64_t at = b * c.outputs + o;
        tiles.lanes_row({x + r * planes.row_units(), kConvBlock, seen.data(), k,
                         weights.packed.data() + at * k * kConvBlock, weights.start.data() + at * kConvBlock, sums,
                         kConvBlock, s.columns});
        if (c.activation != Activation::none) {
          conv_finish(isa, T()).activate(sums, kConvBlock, kConvBlock, s.columns, c.activation);
        }
        out(sums, kConvBlock, count, s.columns,
            c.y.data + s.image * c.y.image + (first * c.outputs + o) * c.y.channel + (s.row + r) * c.y.row +
                s.column * c.y.column,
            c.outputs * c.y.channel, c.y.column);
      }
    }
  });
  return dropped;
}

// Neighbouring positions along an axis that see the image through the same taps.
struct Run {
  int64_t begin, end;
  std::vector<bool> sees;
};

template <typename S>
std::vector<Run> runs_of(const Correlation<S>& c, int axis) {
  const int64_t before = axis ? c.x.left : c.x.top, size = axis ? c.x.width : c.x.height;
  std::vector<Run> all;
  for (int64_t p = 0; p < c.positions[axis]; ++p) {
    std::vector<bool> sees;
    for (const Tap& tap : c.taps) {
      const int64_t at = p * c.step[axis] + (axis ? tap.column : tap.row) - before;
      sees.push_back(at >= 0 && at < size);
    }
    if (all.empty() || all.back().sees != sees) all.push_back({p, p, sees});
    all.back().end = p + 1;
  }
  return all;
}

// Depthwise on channels that lie side by side, in whole blocks: images are read and results written where they lie, and
// what lies on padding is left out: not for weights that are not finite.
template <typename T>
void in_place(const Correlation<T>& c, const LaneWeights<T>& weights, Isa isa) {
  const ConvTiles<T>& tiles = conv_tiles(isa, T());
  const std::vector<Run> rows = runs_of(c, 0), columns = runs_of(c, 1);
  const int64_t k = static_cast<int64_t>(c.taps.size());
  std::vector<std::vector<ConvLaneTap>> seen;  // by each pair of runs
  for (const Run& vertical : rows) {
    for (const Run& horizontal : columns) {
      std::vector<ConvLaneTap> both;
      for (int64_t t = 0; t < k; ++t) {
        const Tap& tap = c.taps[t];
        const int64_t offset = (tap.row - c.x.top) * c.x.row + (tap.column - c.x.left) * c.x.column;
        if (vertical.sees[t] && horizontal.sees[t]) both.push_back({offset, t * kConvBlock});
      }
      seen.push_back(std::move(both));
    }
  }
  int64_t lowest = 0;
  for (const Tap& tap : c.taps) lowest = std::max(lowest, tap.row);
  const int64_t ahead = (lowest - c.x.top + c.step[0]) * c.x.row;
  const int64_t grain = std::max<int64_t>(1, kConvGrain / (c.groups * k * c.positions[1] + 1));
  parallel_for(c.images * c.positions[0], grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t image = i / c.positions[0], r = i % c.positions[0];
      size_t row = 0;
      while (rows[row].end <= r) ++row;
      const T* const x = c.x.data + image * c.x.image + r * c.step[0] * c.x.row;
      T* const y = c.y.data + image * c.y.image + r * c.y.row;
      // All channels of a few positions before the next ones: lines of the cache are then read one after the other.
      for (size_t j = 0; j < columns.size(); ++j) {
        const std::vector<ConvLaneTap>& taps = seen[row * columns.size() + j];
        const int64_t all = columns[j].end - columns[j].begin, pieces = ceil_div(all, kLanePixels);
        for (int64_t at = 0; at < pieces * c.groups; at += kConvBlock) {
          const int64_t piece = at / c.groups, first = at % c.groups;
          const int64_t from = columns[j].begin + piece * all / pieces;
          const int64_t count = columns[j].begin + (piece + 1) * all / pieces - from;
          for (int64_t q = from; q < from + count; ++q) {  // a new row of the image for the next row of outputs
            __builtin_prefetch(x + ahead + first + q * c.step[1] * c.x.column);
          }
          tiles.lanes_row({x + first + from * c.step[1] * c.x.column, c.step[1] * c.x.column, taps.data(),
                           static_cast<int64_t>(taps.size()), weights.packed.data() + first * k,
                           weights.start.data() + first, y + first + from * c.y.column, c.y.column, count});
        }
      }
      if (c.activation != Activation::none) {
        conv_finish(isa, T()).activate(y, c.y.column, c.groups, c.positions[1], c.activation);
      }
    }
  });
}

}  // namespace

bool any_special(const float* x, int64_t n) {
  uint32_t found = 0;
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits;
    std::memcpy(&bits, x + i, sizeof bits);
    found |= static_cast<uint32_t>((bits & 0x7f800000u) == 0x7f800000u);
  }
  return found;
}
bool any_special(const double* x, int64_t n) {
  return std::any_of(x, x + n, [](double value) { return !std::isfinite(value); });
}

// In place where channels lie so, as far as whole blocks go.
template <typename S>
bool by_lanes(const Correlation<S>& c, Isa isa) {
  if constexpr (std::is_same_v<S, Wide<S>>) {
    if (c.inputs == 1 && c.outputs == 1 && c.x.channel == 1 && c.y.channel == 1 && c.groups >= kConvBlock) {
      Correlation<S> blocks = c, rest = c;
      blocks.groups = c.groups / kConvBlock * kConvBlock, rest.groups = c.groups - blocks.groups;
      LaneWeights<S> weights(blocks);
      const int64_t size = static_cast<int64_t>(weights.packed.size());
      const bool dropped = c.finite && drop_special(table<ConvMoves>(isa), weights.packed.data(), size);
      if (!any_special(weights.packed.data(), size)) {
        in_place(blocks, weights, isa);
        rest.x.data += blocks.groups, rest.y.data += blocks.groups;
        rest.weight += blocks.groups * c.weight_group;
        if (c.bias) rest.bias += blocks.groups;
        return (rest.groups && in_planes(rest, isa)) || dropped;
      }
    }
  }
  return in_planes(c, isa);
}

template bool by_lanes(const Correlation<float>&, Isa);
template bool by_lanes(const Correlation<double>&, Isa);
template bool by_lanes(const Correlation<Bfloat16>&, Isa);
template bool by_lanes(const Correlation<Float16>&, Isa);

}  // namespace ulpgrad
