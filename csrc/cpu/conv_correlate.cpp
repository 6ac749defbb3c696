#include "conv_correlate.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace ulpgrad {
namespace {

constexpr int64_t kWeightBytes = 1 << 18;  // of packed weights that a span is run through at a time
constexpr int64_t kStackBytes = 3 << 19;   // of the planes of spans that share a walk through weights beyond that
constexpr int64_t kSumSteps = 128;         // of a sum that is made apart from the others

// Outputs that are computed together: `vectors` vectors of lanes from `first` on.
struct Chunk {
  int64_t first, vectors;
};

// Two vectors of outputs fit the tiles' many pixels; where rows are short, four vectors make up for them.
std::vector<Chunk> chunks_of(int64_t outputs, int64_t lanes, int64_t columns, const int64_t* pixels) {
  std::vector<Chunk> all;
  const int64_t total = ceil_div(outputs, lanes), most = columns <= pixels[4] ? 4 : 2;
  for (int64_t v = 0; v < total;) {
    const int64_t vectors = total - v >= most ? most : total - v >= 2 ? 2 : 1;
    all.push_back({v * lanes, vectors});
    v += vectors;
  }
  return all;
}

// What each row of outputs reads: the segments of the taps that see the image there. Where weights are not finite,
// zeros of the padding count too.
class Reading {
 public:
  template <typename S>
  Reading(const Correlation<S>& c, const Planes& planes, int64_t units, bool padding_counts)
      : rows_(c.positions[0]), set_of_(c.depth.positions * rows_) {
    std::vector<std::vector<int64_t>> known;
    for (size_t i = 0; i < set_of_.size(); ++i) {
      const int64_t slice = static_cast<int64_t>(i) / rows_, row = static_cast<int64_t>(i) % rows_;
      std::vector<int64_t> kept;
      for (size_t t = 0; t < c.taps.size(); ++t) {
        const int64_t z = slice * c.depth.stride + c.taps[t].slice - c.x.front;
        const int64_t y = row * c.step[0] + c.taps[t].row - c.x.top;
        if (padding_counts || (z >= 0 && z < c.x.depth && y >= 0 && y < c.x.height)) {
          kept.push_back(static_cast<int64_t>(t));
        }
      }
      set_of_[i] = static_cast<size_t>(std::find(known.begin(), known.end(), kept) - known.begin());
      if (set_of_[i] == known.size()) {
        sets_.push_back({planes.segments(units, kept), static_cast<int64_t>(kept.size())});
        known.push_back(std::move(kept));
      }
    }
  }

  struct Segments {
    const ConvSegment* first;
    int64_t count;
  };
  // Of blocks [begin, end).
  Segments of(int64_t slice, int64_t row, int64_t begin, int64_t end) const {
    const auto& [all, taps] = sets_[set_of_[slice * rows_ + row]];
    return {all.data() + begin * taps, (end - begin) * taps};
  }

 private:
  const int64_t rows_;
  std::vector<std::pair<std::vector<ConvSegment>, int64_t>> sets_;  // and the taps of a block
  std::vector<size_t> set_of_;
};

// Whether there are several taps whose weights lie in equal steps.
bool evenly_apart(const std::vector<Tap>& taps) {
  if (taps.size() < 2) return false;
  const int64_t apart = taps[1].weight - taps[0].weight;
  for (size_t t = 2; t < taps.size(); ++t) {
    if (taps[t].weight != taps[t - 1].weight + apart) return false;
  }
  return true;
}

// The weights of `count` outputs from `from` on, `width` lanes for each unit in the order of the segments.
template <typename S, typename T>
void pack(const Correlation<S>& c, const S* from, int64_t count, int64_t width, const ConvMoves& moves, T* to) {
  const auto in = moves.*ConvRoad<S>::in;
  const int64_t step = c.inputs > 1 ? kConvBlock : 1, taps = static_cast<int64_t>(c.taps.size());
  const int64_t some = std::min(width, count);
  if (some < width) std::fill(to, to + c.inputs * taps * width, T(0));
  const bool even = evenly_apart(c.taps);
  for (int64_t b = 0; b < c.inputs; b += step) {
    const int64_t units = std::min(step, c.inputs - b);
    const S* const block = from + b * c.weight_input;
    if (even) {  // taps are often neighbours in memory
      for (int64_t u = 0; u < units; ++u) {
        in(block + u * c.weight_input + c.taps[0].weight, c.weight_output, c.taps[1].weight - c.taps[0].weight, some,
           taps, to + u * width, units * width, width, 0);
      }
    } else {
      for (int64_t t = 0; t < taps; ++t) {
        in(block + c.taps[t].weight, c.weight_output, c.weight_input, some, units, to + t * units * width, width, width,
           0);
      }
    }
    to += units * taps * width;
  }
}

// The same in pairs of inputs.
void pack(const Correlation<Bfloat16>& c, const Bfloat16* from, int64_t count, int64_t width, const ConvMoves& moves,
          Bfloat16Pair* to) {
  const int64_t units = ceil_div(c.inputs, 2), step = units > 1 ? kConvBlock : 1;
  const int64_t taps = static_cast<int64_t>(c.taps.size()), some = std::min(width, count);
  if (some < width) std::fill(to, to + units * taps * width, Bfloat16Pair{});
  for (int64_t b = 0; b < units; b += step) {
    const int64_t here = std::min(step, units - b);
    for (int64_t u = b; u < b + here; ++u) {
      const bool paired = 2 * u + 1 < c.inputs;
      const Bfloat16* const pair = from + 2 * u * c.weight_input;
      Bfloat16Pair* const at = to + (u - b) * width;
      if (evenly_apart(c.taps)) {
        moves.weight_pairs(pair + c.taps[0].weight, paired, c.weight_input, c.weight_output,
                           c.taps[1].weight - c.taps[0].weight, some, taps, at, here * width);
        continue;
      }
      for (int64_t t = 0; t < taps; ++t) {
        moves.weight_pairs(pair + c.taps[t].weight, paired, c.weight_input, c.weight_output, 0, some, 1,
                           at + t * here * width, 0);
      }
    }
    to += here * taps * width;
  }
}

template <typename S>
bool weightless(const Correlation<S>& c, const Tap& tap) {
  for (int64_t group = 0; group < c.groups; ++group) {
    for (int64_t o = 0; o < c.outputs; ++o) {
      for (int64_t p = 0; p < c.inputs; ++p) {
        const int64_t at = group * c.weight_group + o * c.weight_output + p * c.weight_input + tap.weight;
        if (!std::isfinite(wide_value(c.weight[at]))) return false;
      }
    }
  }
  return true;
}

// Whether any of `positions`, `step` apart from `first` on, lies in [0, size).
bool any_inside(int64_t first, int64_t positions, int64_t step, int64_t size) {
  if (first >= size || first + (positions - 1) * step < 0) return false;
  return (first < 0 ? first + ceil_div(-first, step) * step : first) < size;
}

// Leaves out the taps through which no output sees the image, so that a window far larger than the image costs what one
// that covers it does. Padding is zeros: a weight that is not finite makes NaN of them, and keeps its tap.
template <typename S>
void crop(Correlation<S>& c) {
  std::vector<Tap> kept;
  for (const Tap& tap : c.taps) {
    const bool seen = sees(tap, c.positions, c.step, c.depth, c.x);
    if (seen || !(c.finite || weightless(c, tap))) kept.push_back(tap);
  }
  if (kept.empty() && !c.taps.empty()) kept.push_back(c.taps[0]);
  if (kept.size() < c.taps.size()) c.taps = shifted(kept, c.x);
}

// One value for each output of all groups, each group's padded to `padded` lanes; zeros where there are none.
template <typename S, typename T>
std::vector<T> in_lanes(const S* values, int64_t groups, int64_t outputs, int64_t padded) {
  std::vector<T> all(groups * padded);
  for (int64_t g = 0; values && g < groups; ++g) {
    for (int64_t o = 0; o < outputs; ++o) all[g * padded + o] = wide_value(values[g * outputs + o]);
  }
  return all;
}

void put_places(const ConvMoves& moves, const float* from, int64_t step, int64_t channels, int64_t count, int64_t* to,
                int64_t channel, int64_t column) {
  moves.places_f32(from, step, channels, count, to, channel, column);
}
void put_places(const ConvMoves& moves, const double* from, int64_t step, int64_t channels, int64_t count, int64_t* to,
                int64_t channel, int64_t column) {
  moves.places_f64(from, step, channels, count, to, channel, column);
}

// Where the results of a row of outputs go: `channels` from `first` on, of which `width` lanes have been summed.
template <typename S, typename U>
class Output {
 public:
  using T = Wide<S>;

  Output(const Correlation<S>& c, int64_t padded, Isa isa)
      : c_(c),
        isa_(isa),
        moves_(table<ConvMoves>(isa)),
        finish_(conv_finish(isa, T())),
        pools_(c.places.data),
        padded_(padded) {
    const bool scaled = c.is_scaled();
    start = in_lanes<S, T>(scaled ? nullptr : c.bias, c.groups, c.outputs, padded);
    if (c.scale) scale_ = in_lanes<S, T>(c.scale, c.groups, c.outputs, padded);
    if (scaled && c.bias) bias_ = in_lanes<S, T>(c.bias, c.groups, c.outputs, padded);
  }

  std::vector<T> start;  // of sums, in the lanes of all groups

  // Sums may be made where they are to lie.
  bool direct(int64_t channels, int64_t width) const {
    return std::is_same_v<S, T> && c_.y.channel == 1 && channels == width && !pools_;
  }
  // Rows of sums that are needed together.
  int64_t rows() const { return pools_ ? c_.window[0] : 1; }

  // From the first column of a span on.
  S* at(const Span& s, int64_t channel, int64_t slice, int64_t row) const {
    return c_.y.data + s.image * c_.y.image + channel * c_.y.channel + (s.slice + slice) * c_.y.slice + row * c_.y.row +
           s.column * c_.y.column;
  }

  // Row `row` of a slice of the span is complete: of `channels` outputs of a group from `first` on. `sums` are the
  // positions of the rows() up to it, `step` apart; `memory` is for a row of largest values and one of their places, or
  // of residuals.
  void write(const Span& s, int64_t slice, int64_t row, int64_t group, int64_t first, int64_t channels, int64_t width,
             T* sums, int64_t step, T* memory) const {
    const int64_t lane = group * padded_ + first;
    first += group * c_.outputs;
    if (pools_) return write_largest(s, row, first, channels, width, sums, memory);
    const T* const scale = scale_.empty() ? nullptr : scale_.data() + lane;
    const T* const bias = bias_.empty() ? nullptr : bias_.data() + lane;
    const Images<const S>& r = c_.residual;
    if (r.data) {
      const S* const from = r.data + s.image * r.image + first * r.channel + (s.slice + slice) * r.slice +
                            (s.row + row) * r.row + s.column * r.column;
      (moves_.*ConvRoad<S>::in)(from, r.channel, r.column, channels, s.columns, memory, width, width, 0);
    }
    const auto after = [&](const T* scale, const T* bias, const T* residual) {
      if (scale || bias || residual) {
        conv_after(isa_, ConvAfter<T>{sums, step, width, s.columns, scale, bias, false, residual, width});
      }
    };
    after(scale, bias, c_.residual_first && r.data ? memory : nullptr);
    if (c_.activation != Activation::none) finish_.activate(sums, step, width, s.columns, c_.activation);
    after(nullptr, nullptr, !c_.residual_first && r.data ? memory : nullptr);
    if (direct(channels, width)) return;
    put(sums, width, channels, s.columns, at(s, first, slice, s.row + row));
  }

 private:
  void put(const T* from, int64_t width, int64_t channels, int64_t count, S* to) const {
    (moves_.*ConvRoad<S, U>::out)(from, width, channels, count, to, c_.y.channel, c_.y.column);
  }

  void write_largest(const Span& s, int64_t row, int64_t first, int64_t channels, int64_t width, T* sums,
                     T* memory) const {
    const int64_t count = s.columns / c_.window[1], top = s.row + row + 1 - c_.window[0];
    T* const places = memory + count * width;
    finish_.largest({sums,
                     s.columns * width,
                     width,
                     {c_.window[0], c_.window[1]},
                     count,
                     top * c_.image_width + s.column,
                     c_.image_width,
                     memory,
                     places});
    if (c_.activation != Activation::none) finish_.activate(memory, width, width, count, c_.activation);
    const int64_t y = top / c_.window[0], x = s.column / c_.window[1];
    put(memory, width, channels, count,
        c_.y.data + s.image * c_.y.image + first * c_.y.channel + y * c_.y.row + x * c_.y.column);
    const Images<int64_t>& p = c_.places;
    put_places(moves_, places, width, channels, count,
               p.data + s.image * p.image + first * p.channel + y * p.row + x * p.column, p.channel, p.column);
  }

  const Correlation<S>& c_;
  const Isa isa_;
  const ConvMoves& moves_;
  const ConvFinish<T>& finish_;
  const bool pools_;
  const int64_t padded_;
  std::vector<T> scale_, bias_;
};

// Returns whether weights were left out. Pairs of bfloat16 are not for all operands: `unfit` is set where they gave up.
template <typename S, typename U>
bool by_tiles(const Correlation<S>& c, Isa isa, void (*run)(const ConvRow<Wide<S>>&), std::atomic<bool>& unfit) {
  using T = Wide<S>;
  constexpr bool paired = std::is_same_v<U, Bfloat16Pair>;
  const ConvTiles<T>& tiles = conv_tiles(isa, T());
  const ConvMoves& moves = table<ConvMoves>(isa);
  const int64_t units = paired ? ceil_div(c.inputs, 2) : c.inputs, k = units * static_cast<int64_t>(c.taps.size());
  const int64_t lanes = tiles.lanes, padded = round_up(c.outputs, lanes),
                useful = threads_for(c.products(), kConvGrain);
  const Output<S, U> output(c, padded, isa);
  const Planes planes(c.images, c.positions, c.step, c.taps, units, kPlaneBytes / sizeof(U),
                      useful > 1 ? ceil_div(8 * useful, c.groups) : 1, c.window, kConvBlock, c.depth);
  const std::vector<Chunk> chunks = chunks_of(c.outputs, lanes, planes.span_columns(), tiles.pixels);
  const int64_t count = static_cast<int64_t>(chunks.size());
  U* const packed = static_cast<U*>(scratch(Slot::weights, c.groups * padded * k * sizeof(U)));
  std::atomic<bool> special{false};
  parallel_for(c.groups * count, std::max<int64_t>(1, kConvGrain / (32 * k + 1) / 8), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Chunk chunk = chunks[i % count];
      const int64_t group = i / count, width = chunk.vectors * lanes;
      U* const to = packed + (group * padded + chunk.first) * k;
      pack(c, c.weight + group * c.weight_group + chunk.first * c.weight_output, c.outputs - chunk.first, width, moves,
           to);
      if constexpr (paired) {
        if (!moves.plain_b16(to, 2 * width * k)) unfit = true;
      } else if (c.finite ? drop_special(moves, to, width * k) : any_special(to, width * k)) {
        special = true;
      }
    }
  });
  const Reading reading(c, planes, units, special && !c.finite);
  // Sums of bfloat16 are rounded to so few bits that their own errors do not show.
  const int64_t together = paired ? k + 1 : kSumSteps / std::clamp<int64_t>(units, 1, planes.step);

  // Weights that do not stay in the cache are walked through once for several spans.
  const int64_t plane_bytes = std::max<int64_t>(64, round_up(planes.units() * sizeof(U), 64));
  const int64_t most_spans =
      std::clamp<int64_t>(kStackBytes / plane_bytes, 1, std::max<int64_t>(1, planes.spans() * c.groups / useful));
  const int64_t stack = padded * k * static_cast<int64_t>(sizeof(U)) > kWeightBytes ? most_spans : 1;
  const int64_t needed = ceil_div(planes.spans(), stack);
  const int64_t stacks = stack > 1 ? std::min(round_up(needed, useful), planes.spans()) : needed;  // as many for each
  const int64_t shares = stack > 1 && stacks * c.groups >= useful ? 1 : 4 * useful / (stacks * c.groups);
  const int64_t parts = std::clamp<int64_t>(useful > 1 ? shares : 1, 1, count);
  const int64_t tasks = stacks * c.groups * parts;
  allocating_tasks(tasks, useful_threads(c.products(), tasks), [&](int64_t task) {
    const int64_t part = task % parts, group = task / parts % c.groups, index = task / parts / c.groups;
    const int64_t first_span = index * planes.spans() / stacks;
    const int64_t spans = (index + 1) * planes.spans() / stacks - first_span;
    const int64_t held = planes.span_positions() * spans, row = planes.span_columns() + lanes;
    char* const memory = static_cast<char*>(
        scratch(Slot::caller, spans * plane_bytes + (held + 3 * row) * 4 * lanes * static_cast<int64_t>(sizeof(T))));
    const auto plane = [&](int64_t i) { return reinterpret_cast<U*>(memory + i * plane_bytes); };
    T* const sums = reinterpret_cast<T*>(memory + spans * plane_bytes);
    T* const finished = sums + (held + row) * 4 * lanes;
    Images<const S> source = c.x;
    source.data += group * c.inputs * source.channel;
    for (int64_t i = 0; i < spans; ++i) {
      const Span s = planes.span(first_span + i);
      if constexpr (paired) {
        if (unfit) return;
        if (s.positions() < planes.span_positions()) std::fill(plane(i), plane(i) + planes.units(), U{});
      }
      planes.fill(source, s, c.inputs, moves.*ConvRoad<S, U>::in, plane(i));
      if constexpr (paired) {
        if (!moves.plain_b16(plane(i), 2 * planes.units())) unfit = true;
        if (unfit) return;
      }
    }
    for (int64_t n = part * count / parts; n < (part + 1) * count / parts; ++n) {
      const Chunk chunk = chunks[n];
      const int64_t width = chunk.vectors * lanes, outputs = std::min(width, c.outputs - chunk.first);
      const int64_t block_bytes = static_cast<int64_t>(c.taps.size() * sizeof(U)) * width * planes.step;
      const int64_t piece = std::max<int64_t>(1, kWeightBytes / std::max<int64_t>(1, block_bytes));
      const int64_t channel = group * c.outputs + chunk.first;
      const bool direct = output.direct(outputs, width), whole = planes.blocks <= piece;
      for (int64_t first = 0; first == 0 || first < planes.blocks; first += piece) {
        const int64_t end = std::min(first + piece, planes.blocks);
        for (int64_t i = 0; i < spans; ++i) {
          const Span s = planes.span(first_span + i);
          for (int64_t at = 0; at < s.slices * s.rows; ++at) {
            const int64_t z = at / s.rows, r = at % s.rows;
            T* const here = whole ? sums : sums + i * planes.span_positions() * width;
            T* const to = direct ? reinterpret_cast<T*>(output.at(s, channel, z, s.row + r))
                                 : here + (whole ? r % output.rows() : at) * s.columns * width;
            const int64_t step = direct ? c.y.column : width;
            const auto segments = reading.of(s.slice + z, s.row + r, first, end);
            run({plane(i) + z * planes.slice_units() + r * planes.row_units(), planes.step, segments.first,
                 segments.count, together, packed + (group * padded + chunk.first) * k,
                 first ? nullptr : output.start.data() + group * padded + chunk.first, to, step, s.columns,
                 chunk.vectors});
            if (end < planes.blocks || (r + 1) % output.rows()) continue;
            T* const window = direct ? to : to - (output.rows() - 1) * s.columns * width;
            output.write(s, z, r, group, chunk.first, outputs, width, window, step, finished);
          }
        }
      }
    }
  });
  return special && c.finite;
}

}  // namespace

template <typename S>
bool sees(const Tap& tap, Pair positions, Pair step, Depth depth, const Images<const S>& x) {
  return any_inside(tap.slice - x.front, depth.positions, depth.stride, x.depth) &&
         any_inside(tap.row - x.top, positions[0], step[0], x.height) &&
         any_inside(tap.column - x.left, positions[1], step[1], x.width);
}

template <typename S>
std::vector<Tap> shifted(std::vector<Tap> taps, Images<const S>& x) {
  int64_t row = taps[0].row, column = taps[0].column, slice = taps[0].slice;
  for (const Tap& tap : taps) {
    row = std::min(row, tap.row), column = std::min(column, tap.column), slice = std::min(slice, tap.slice);
  }
  for (Tap& tap : taps) tap.row -= row, tap.column -= column, tap.slice -= slice;
  x.top -= row, x.left -= column, x.front -= slice;
  return taps;
}

#define ULPGRAD_SEEN(S)                                                      \
  template bool sees(const Tap&, Pair, Pair, Depth, const Images<const S>&); \
  template std::vector<Tap> shifted(std::vector<Tap>, Images<const S>&);
ULPGRAD_SEEN(float)
ULPGRAD_SEEN(double)
ULPGRAD_SEEN(Bfloat16)
ULPGRAD_SEEN(Float16)

float wide_value(Bfloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float wide_value(Float16 x) {
  const uint32_t size = x.bits & 0x7FFF, sign = static_cast<uint32_t>(x.bits & 0x8000) << 16;
  const uint32_t bits = (size << 13) + (size >= 0x7C00 ? 0x70000000u : 0x38000000u);
  float value = static_cast<float>(size) * 0x1p-24f;  // a subnormal
  if (size >= 0x400) std::memcpy(&value, &bits, sizeof value);
  return sign ? -value : value;
}

template <typename S>
bool correlate(std::vector<Correlation<S>> phases, Isa isa) {
  if (phases.empty()) return false;
  for (Correlation<S>& c : phases) crop(c);
  const auto tiles = conv_tiles(isa, Wide<S>());
  const int64_t groups = phases[0].groups, outputs = phases[0].outputs;
  if (ceil_div(groups, kConvBlock) * outputs < groups * ceil_div(outputs, tiles.lanes)) return by_lanes(phases, isa);
  bool dropped = false;
  const bool paired = std::is_same_v<S, Bfloat16> && isa == Isa::avx512 && has_avx512_bf16();
  for (const Correlation<S>& c : phases) {
    if (!paired && suits_pixels(c)) {
      by_pixels(c, isa);
      continue;
    }
    std::atomic<bool> unfit{true};
    if constexpr (std::is_same_v<S, Bfloat16>) {
      if (paired) {  // the unit takes subnormal numbers for zero
        unfit = false;
        by_tiles<S, Bfloat16Pair>(c, isa, table<ConvPairsTable>(isa).row, unfit);
      }
    }
    if (unfit) dropped |= by_tiles<S, Wide<S>>(c, isa, tiles.row, unfit);
  }
  return dropped;
}

template bool correlate(std::vector<Correlation<float>>, Isa);
template bool correlate(std::vector<Correlation<double>>, Isa);
template bool correlate(std::vector<Correlation<Bfloat16>>, Isa);
template bool correlate(std::vector<Correlation<Float16>>, Isa);

}  // namespace ulpgrad
