// Convolution of small groups (depthwise): the lanes of a vector are groups. Images that lie channels last are read
// where they are; others come by way of planes.
#include <cstring>
#include <type_traits>

#include "conv_correlate.h"

namespace ulpgrad {
namespace {

// The weights of blocks of groups, one group to a lane, what their sums start from, and what follows them:
// [block][output][..][lane].
template <typename S>
struct LaneWeights {
  using T = Wide<S>;
  std::vector<T> start, packed, scale, bias;

  explicit LaneWeights(const Correlation<S>& c) {
    const int64_t k = c.inputs * static_cast<int64_t>(c.taps.size());
    const int64_t all = ceil_div(c.groups, kConvBlock) * c.outputs * kConvBlock;
    start.resize(all), packed.resize(all * k);
    if (c.scale) scale.resize(all);
    if (c.is_scaled() && c.bias) bias.resize(all);
    for (int64_t g = 0; g < c.groups; ++g) {
      const int64_t b = g / kConvBlock, lane = g % kConvBlock;
      for (int64_t o = 0; o < c.outputs; ++o) {
        const int64_t at = b * c.outputs + o;
        if (c.bias) (c.is_scaled() ? bias : start)[at * kConvBlock + lane] = wide_value(c.bias[g * c.outputs + o]);
        if (c.scale) scale[at * kConvBlock + lane] = wide_value(c.scale[g * c.outputs + o]);
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

// What follows the sums, of `width` lanes from `lane` on of LaneWeights' and of as many positions.
template <typename S, typename T = Wide<S>>
void end_row(const Correlation<S>& c, const LaneWeights<S>& weights, int64_t lane, int64_t width, int64_t positions,
             T* sums, int64_t step, const T* residual, int64_t residual_step, Isa isa) {
  const auto after = [&](bool scaled, bool adds) {
    const T* const scale = scaled && c.scale ? weights.scale.data() + lane : nullptr;
    const T* const bias = scaled && c.bias ? weights.bias.data() + lane : nullptr;
    conv_after(
        isa, ConvAfter<T>{sums, step, width, positions, scale, bias, false, adds ? residual : nullptr, residual_step});
  };
  if (c.is_scaled()) after(true, c.residual_first);
  if (c.activation != Activation::none) conv_finish(isa, T()).activate(sums, step, width, positions, c.activation);
  if (residual && !c.residual_first) after(false, true);
}

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
                      useful > 1 ? ceil_div(8 * useful, blocks) : 1, {1, 1}, kConvBlock, c.depth);
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
        scratch(Slot::caller, (size + 2 * (s.columns + tiles.lanes) * kConvBlock) * static_cast<int64_t>(sizeof(T))));
    T *const sums = x + size, *const added = sums + (s.columns + tiles.lanes) * kConvBlock;
    Images<const S> source = c.x;
    for (int64_t p = 0; p < c.inputs; ++p) {
      source.data = c.x.data + (first * c.inputs + p) * c.x.channel;
      source.channel = c.inputs * c.x.channel;
      planes.fill(source, s, count, in, x + p * planes.units());
    }
    for (int64_t i = 0; i < s.slices * s.rows; ++i) {
      const int64_t z = i / s.rows, r = i % s.rows;
      for (int64_t o = 0; o < c.outputs; ++o) {
        const int64_t at = b * c.outputs + o;
        tiles.lanes_row({x + z * planes.slice_units() + r * planes.row_units(), kConvBlock, seen.data(), k,
                         weights.packed.data() + at * k * kConvBlock, weights.start.data() + at * kConvBlock, sums,
                         kConvBlock, s.columns});
        const Images<const S>& residual = c.residual;
        if (residual.data) {
          in(residual.data + s.image * residual.image + (first * c.outputs + o) * residual.channel +
                 (s.slice + z) * residual.slice + (s.row + r) * residual.row + s.column * residual.column,
             c.outputs * residual.channel, residual.column, count, s.columns, added, kConvBlock, kConvBlock, 0);
        }
        end_row(c, weights, at * kConvBlock, kConvBlock, s.columns, sums, kConvBlock, residual.data ? added : nullptr,
                kConvBlock, isa);
        out(sums, kConvBlock, count, s.columns,
            c.y.data + s.image * c.y.image + (first * c.outputs + o) * c.y.channel + (s.slice + z) * c.y.slice +
                (s.row + r) * c.y.row + s.column * c.y.column,
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
class InPlace {
 public:
  InPlace(const Correlation<T>& c, Isa isa)
      : weights(c), c_(c), isa_(isa), tiles_(conv_tiles(isa, T())), rows_(runs_of(c, 0)), columns_(runs_of(c, 1)) {
    for (const Run& vertical : rows_) {
      for (const Run& horizontal : columns_) {
        std::vector<ConvLaneTap> both;
        for (size_t t = 0; t < c.taps.size(); ++t) {
          const Tap& tap = c.taps[t];
          const int64_t offset = (tap.row - c.x.top) * c.x.row + (tap.column - c.x.left) * c.x.column;
          if (vertical.sees[t] && horizontal.sees[t]) both.push_back({offset, static_cast<int64_t>(t) * kConvBlock});
        }
        seen_.push_back(std::move(both));
      }
    }
    int64_t lowest = 0;
    for (const Tap& tap : c.taps) lowest = std::max(lowest, tap.row);
    ahead_ = (lowest - c.x.top + c.step[0]) * c.x.row;
  }

  int64_t rows() const { return c_.positions[0]; }
  int64_t products() const { return c_.products(); }

  // Row r of an image's results.
  void run(int64_t image, int64_t r) const {
    const int64_t k = static_cast<int64_t>(c_.taps.size()), step = c_.step[1] * c_.x.column;
    size_t row = 0;
    while (rows_[row].end <= r) ++row;
    const T* const x = c_.x.data + image * c_.x.image + r * c_.step[0] * c_.x.row;
    T* const y = c_.y.data + image * c_.y.image + r * c_.y.row;
    // All channels of a few positions before the next ones: lines of the cache are then read one after the other.
    for (size_t j = 0; j < columns_.size(); ++j) {
      const std::vector<ConvLaneTap>& taps = seen_[row * columns_.size() + j];
      const int64_t all = columns_[j].end - columns_[j].begin, pieces = ceil_div(all, kLanePixels);
      for (int64_t at = 0; at < pieces * c_.groups; at += kConvBlock) {
        const int64_t piece = at / c_.groups, first = at % c_.groups;
        const int64_t from = columns_[j].begin + piece * all / pieces;
        const int64_t count = columns_[j].begin + (piece + 1) * all / pieces - from;
        for (int64_t q = from; q < from + count; ++q) {  // a new row of the image for the next row of outputs
          __builtin_prefetch(x + ahead_ + first + q * step);
        }
        tiles_.lanes_row({x + first + from * step, step, taps.data(), static_cast<int64_t>(taps.size()),
                          weights.packed.data() + first * k, weights.start.data() + first,
                          y + first + from * c_.y.column, c_.y.column, count});
      }
    }
    const Images<const T>& added = c_.residual;
    end_row(c_, weights, 0, c_.groups, c_.positions[1], y, c_.y.column,
            added.data ? added.data + image * added.image + r * added.row : nullptr, added.column, isa_);
  }

  LaneWeights<T> weights;

 private:
  const Correlation<T> c_;
  const Isa isa_;
  const ConvTiles<T>& tiles_;
  const std::vector<Run> rows_, columns_;
  std::vector<std::vector<ConvLaneTap>> seen_;  // by each pair of runs
  int64_t ahead_;                               // from what a position sees to what is new to the one below
};

// Phases of one result are made together, row by row: each reads what the others have just read, and fills in gaps.
template <typename T>
void run_together(const std::vector<InPlace<T>>& phases, int64_t images) {
  int64_t rows = 1, products = 0;
  for (const InPlace<T>& phase : phases) {
    rows = std::max(rows, phase.rows()), products += phase.products();
  }
  const int64_t grain = std::max<int64_t>(1, kConvGrain * images * rows / (products + 1));
  parallel_for(images * rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (const InPlace<T>& phase : phases) {
        if (i % rows < phase.rows()) phase.run(i / rows, i % rows);
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
bool by_lanes(const std::vector<Correlation<S>>& phases, Isa isa) {
  const Correlation<S>& any = phases[0];
  bool dropped = false;
  int64_t done = 0;  // groups
  if constexpr (std::is_same_v<S, Wide<S>>) {
    const bool beside = !any.residual.data || any.residual.channel == 1;
    const bool flat = any.depth.positions == 1 && any.x.depth == 1;
    if (flat && any.inputs == 1 && any.outputs == 1 && any.x.channel == 1 && any.y.channel == 1 && beside &&
        any.groups >= kConvBlock) {
      done = any.groups / kConvBlock * kConvBlock;
      bool special = false;
      std::vector<InPlace<S>> parts;
      parts.reserve(phases.size());
      for (Correlation<S> c : phases) {
        c.groups = done;
        std::vector<S>& weights = parts.emplace_back(c, isa).weights.packed;
        const int64_t size = static_cast<int64_t>(weights.size());
        dropped |= c.finite && drop_special(table<ConvMoves>(isa), weights.data(), size);
        special |= any_special(weights.data(), size);
      }
      if (special) done = 0;
      if (done) run_together(parts, any.images);
    }
  }
  if (done == any.groups) return dropped;
  for (Correlation<S> rest : phases) {
    rest.groups -= done;
    rest.x.data += done * rest.x.channel, rest.y.data += done * rest.y.channel, rest.weight += done * rest.weight_group;
    if (rest.bias) rest.bias += done;
    if (rest.scale) rest.scale += done;
    if (rest.residual.data) rest.residual.data += done * rest.residual.channel;
    dropped |= in_planes(rest, isa);
  }
  return dropped;
}

template bool by_lanes(const std::vector<Correlation<float>>&, Isa);
template bool by_lanes(const std::vector<Correlation<double>>&, Isa);
template bool by_lanes(const std::vector<Correlation<Bfloat16>>&, Isa);
template bool by_lanes(const std::vector<Correlation<Float16>>&, Isa);

}  // namespace ulpgrad
