#include "conv_correlate.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace ulpgrad {
namespace {

constexpr int64_t kPlaneBytes = 3 << 17;   // that the planes of a span should take: a part of the L2 cache
constexpr int64_t kWeightBytes = 1 << 18;  // of packed weights that a span is run through at a time

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

bool drop_special(const ConvMoves& moves, float* x, int64_t n) { return moves.drop_special_f32(x, n); }
bool drop_special(const ConvMoves& moves, double* x, int64_t n) { return moves.drop_special_f64(x, n); }

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

// Leaves out the taps through which no output sees the image, so that a window far larger than the image costs what one
// that covers it does. Padding is zeros: a weight that is not finite makes NaN of them, and keeps its tap.
template <typename S>
void crop(Correlation<S>& c) {
  std::vector<Tap> kept;
  for (const Tap& tap : c.taps) {
    const bool seen = sees(tap, c.positions, c.step, {c.x.top, c.x.left}, {c.x.height, c.x.width});
    if (seen || !(c.finite || weightless(c, tap))) kept.push_back(tap);
  }
  if (kept.empty() && !c.taps.empty()) kept.push_back(c.taps[0]);
  if (kept.size() < c.taps.size()) c.taps = shifted(kept, c.x.top, c.x.left);
}

int useful_threads(int64_t products, int64_t tasks) {
  return static_cast<int>(std::min<int64_t>(threads_for(products, kConvGrain), tasks));
}

// The biases of all groups, each group's padded to `padded` lanes.
template <typename S, typename T>
std::vector<T> starts(const Correlation<S>& c, int64_t groups, int64_t outputs, int64_t padded) {
  std::vector<T> all(groups * padded);
  for (int64_t g = 0; c.bias && g < groups; ++g) {
    for (int64_t o = 0; o < outputs; ++o) all[g * padded + o] = wide_value(c.bias[g * outputs + o]);
  }
  return all;
}

// Returns whether weights were left out. Pairs of bfloat16 are not for all operands: `unfit` is set where they gave up.
template <typename S, typename U>
bool by_tiles(const Correlation<S>& c, Isa isa, void (*row)(const ConvRow<Wide<S>>&), std::atomic<bool>& unfit) {
  using T = Wide<S>;
  constexpr bool paired = std::is_same_v<U, Bfloat16Pair>;
  const ConvTiles<T>& tiles = conv_tiles(isa, T());
  const ConvMoves& moves = table<ConvMoves>(isa);
  const auto in = moves.*ConvRoad<S, U>::in;
  const auto out = moves.*ConvRoad<S, U>::out;
  const int64_t units = paired ? ceil_div(c.inputs, 2) : c.inputs, k = units * static_cast<int64_t>(c.taps.size());
  const int64_t lanes = tiles.lanes, padded = round_up(c.outputs, lanes),
                useful = threads_for(c.products(), kConvGrain);
  const Planes planes(c.images, c.positions, c.step, c.taps, units, kPlaneBytes / sizeof(U),
                      useful > 1 ? ceil_div(8 * useful, c.groups) : 1);
  const std::vector<ConvSegment> segments = planes.segments(units);
  const std::vector<Chunk> chunks = chunks_of(c.outputs, lanes, planes.span_columns(), tiles.pixels);
  const int64_t count = static_cast<int64_t>(chunks.size());
  const int64_t parts = std::clamp<int64_t>(useful > 1 ? 4 * useful / (planes.spans() * c.groups) : 1, 1, count);
  const std::vector<T> start = starts<S, T>(c, c.groups, c.outputs, padded);
  U* const packed = static_cast<U*>(scratch(Slot::weights, c.groups * padded * k * sizeof(U)));
  std::atomic<bool> dropped{false};
  parallel_for(c.groups * count, std::max<int64_t>(1, kConvGrain / (32 * k + 1) / 8), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Chunk chunk = chunks[i % count];
      const int64_t group = i / count, width = chunk.vectors * lanes;
      U* const to = packed + (group * padded + chunk.first) * k;
      pack(c, c.weight + group * c.weight_group + chunk.first * c.weight_output, c.outputs - chunk.first, width, moves,
           to);
      if constexpr (paired) {
        if (!moves.plain_b16(to, 2 * width * k)) unfit = true;
      } else if (c.finite && drop_special(moves, to, width * k)) {
        dropped = true;
      }
    }
  });

  const int64_t tasks = planes.spans() * c.groups * parts;
  allocating_tasks(tasks, useful_threads(c.products(), tasks), [&](int64_t task) {
    const int64_t part = task % parts, group = task / parts % c.groups;
    const Span s = planes.span(task / parts / c.groups);
    const int64_t plane_bytes = round_up(planes.units() * sizeof(U), 64);
    const int64_t most = (planes.span_positions() + lanes) * 4 * lanes;
    char* const memory = static_cast<char*>(scratch(Slot::caller, plane_bytes + most * sizeof(T)));
    U* const x = reinterpret_cast<U*>(memory);
    T* const sums = reinterpret_cast<T*>(memory + plane_bytes);
    Images<const S> source = c.x;
    source.data += group * c.inputs * source.channel;
    if constexpr (paired) {
      if (unfit) return;
      if (s.rows * s.columns < planes.span_positions()) std::fill(x, x + planes.units(), U{});
    }
    planes.fill(source, s, c.inputs, in, x);
    if constexpr (paired) {
      if (!moves.plain_b16(x, 2 * planes.units())) unfit = true;
      if (unfit) return;
    }
    for (int64_t i = part * count / parts; i < (part + 1) * count / parts; ++i) {
      const Chunk chunk = chunks[i];
      const int64_t width = chunk.vectors * lanes, outputs = std::min(width, c.outputs - chunk.first);
      const int64_t piece = std::max<int64_t>(1, kWeightBytes / sizeof(U) / (width * planes.step));
      S* const y = c.y.data + s.image * c.y.image + (group * c.outputs + chunk.first) * c.y.channel + s.row * c.y.row +
                   s.column * c.y.column;
      const bool direct = std::is_same_v<S, T> && c.y.channel == 1 && outputs == width;
      const U* w = packed + (group * padded + chunk.first) * k;
      const int64_t all = static_cast<int64_t>(segments.size());
      const bool whole = all <= piece;
      for (int64_t first = 0; first == 0 || first < all; first += piece) {
        const int64_t now = std::min(piece, all - first);
        for (int64_t r = 0; r < s.rows; ++r) {
          T* const to = direct ? reinterpret_cast<T*>(y + r * c.y.row) : sums + (whole ? 0 : r * s.columns * width);
          row({x + r * planes.row_units(), planes.step, segments.data() + first, now, w,
               first ? nullptr : start.data() + group * padded + chunk.first, to, direct ? c.y.column : width,
               s.columns, chunk.vectors});
          if (!direct && first + piece >= all) {
            out(to, width, outputs, s.columns, y + r * c.y.row, c.y.channel, c.y.column);
          }
        }
        for (int64_t j = first; j < first + now; ++j) w += segments[j].units * width;
      }
    }
  });
  return dropped;
}

// Where groups are small, the lanes are groups: kConvBlock of them, one input and one output of each at a time.
template <typename S>
bool by_lanes(const Correlation<S>& c, Isa isa) {
  using T = Wide<S>;
  const ConvTiles<T>& tiles = conv_tiles(isa, T());
  const ConvMoves& moves = table<ConvMoves>(isa);
  const auto in = moves.*ConvRoad<S>::in;
  const auto out = moves.*ConvRoad<S>::out;
  const int64_t taps = static_cast<int64_t>(c.taps.size()), k = c.inputs * taps;
  const int64_t blocks = ceil_div(c.groups, kConvBlock), padded = blocks * kConvBlock;
  const int64_t useful = threads_for(c.products(), kConvGrain);
  const Planes planes(c.images, c.positions, c.step, c.taps, kConvBlock,
                      kPlaneBytes / static_cast<int64_t>(sizeof(T)) / std::max<int64_t>(1, c.inputs),
                      useful > 1 ? ceil_div(8 * useful, blocks) : 1);
  std::vector<int64_t> offsets;
  for (int64_t p = 0; p < c.inputs; ++p) {
    for (const int64_t offset : planes.tap_offset) offsets.push_back(p * planes.units() + offset);
  }
  std::vector<T> start(c.outputs * padded), packed(c.outputs * padded * k);
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
  const bool dropped = c.finite && drop_special(moves, packed.data(), static_cast<int64_t>(packed.size()));
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
        tiles.lanes_row({x + r * planes.row_units(), offsets.data(), k, packed.data() + at * k * kConvBlock,
                         start.data() + at * kConvBlock, sums, s.columns});
        out(sums, kConvBlock, count, s.columns,
            c.y.data + s.image * c.y.image + (first * c.outputs + o) * c.y.channel + (s.row + r) * c.y.row +
                s.column * c.y.column,
            c.outputs * c.y.channel, c.y.column);
      }
    }
  });
  return dropped;
}

}  // namespace

bool sees(const Tap& tap, Pair positions, Pair step, Pair padding, Pair size) {
  for (int axis = 0; axis < 2; ++axis) {
    const int64_t first = (axis ? tap.column : tap.row) - padding[axis];
    const int64_t last = first + (positions[axis] - 1) * step[axis];
    if (first >= size[axis] || last < 0) return false;
    if ((first < 0 ? first + ceil_div(-first, step[axis]) * step[axis] : first) >= size[axis]) return false;
  }
  return true;
}

std::vector<Tap> shifted(std::vector<Tap> taps, int64_t& top, int64_t& left) {
  int64_t row = taps[0].row, column = taps[0].column;
  for (const Tap& tap : taps) row = std::min(row, tap.row), column = std::min(column, tap.column);
  for (Tap& tap : taps) tap.row -= row, tap.column -= column;
  top -= row, left -= column;
  return taps;
}

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
bool correlate(Correlation<S> c, Isa isa) {
  crop(c);
  const auto tiles = conv_tiles(isa, Wide<S>());
  if (ceil_div(c.groups, kConvBlock) * c.outputs < c.groups * ceil_div(c.outputs, tiles.lanes)) return by_lanes(c, isa);
  std::atomic<bool> unfit{false};
  if constexpr (std::is_same_v<S, Bfloat16>) {
    // The unit takes subnormal numbers for zero.
    if (isa == Isa::avx512 && has_avx512_bf16()) {
      by_tiles<S, Bfloat16Pair>(c, isa, table<ConvPairsTable>(isa).row, unfit);
      if (!unfit) return false;
    }
  }
  return by_tiles<S, Wide<S>>(c, isa, tiles.row, unfit);
}

template bool correlate(Correlation<float>, Isa);
template bool correlate(Correlation<double>, Isa);
template bool correlate(Correlation<Bfloat16>, Isa);
template bool correlate(Correlation<Float16>, Isa);

}  // namespace ulpgrad
