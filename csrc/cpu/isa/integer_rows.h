// The operands of a tile: rows of A where they stand or packed, panels of packed B, and what sums start from.
#pragma once

#include "integer_kernels.h"
#include "integer_steps.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int kBlockRows = 8 * kRows;  // of A that are packed together

ULPGRAD_INLINE int64_t ceil_div(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }
ULPGRAD_INLINE int64_t round_up(int64_t n, int64_t unit) { return ceil_div(n, unit) * unit; }

ULPGRAD_INLINE int per_unit(const IntegerPlan& plan) {
  if (plan.short_chunks && plan.chunk == 1) return 1;
  return plan.units == Units::bytes ? 4 : 2;
}

// Whether nothing is done to sums but to add them up in 32 bits, which wrap.
ULPGRAD_INLINE bool adds_only(const IntegerPlan& plan) {
  return !plan.chunk && !plan.wide && plan.shift == 0 && plan.bits == 32;
}

ULPGRAD_INLINE int64_t tile_rows(const IntegerPlan& plan) {
  return plan.by_steps ? kStepRows : plan.short_chunks ? kShortRows : kRows;
}

// Columns of a panel of B.
ULPGRAD_INLINE int64_t panel_width(const IntegerPlan& plan) {
  const int vectors = plan.short_chunks            ? 2
                      : plan.units == Units::split ? kVectors<Units::split>
                                                   : kVectors<Units::pairs>;
  return vectors * kLanes<int32_t>;
}

// Calls body(from, count, begins, ends) on each segment of a block of k: whole chunks, cut where 32 bits would not hold
// the sum. `begins`, `ends`: whether the segment is the first or the last of its chunk.
template <typename Body>
ULPGRAD_INLINE void each_segment(const IntegerPlan& plan, int64_t k, const Body& body) {
  const int64_t chunk = plan.chunk ? plan.chunk : k;
  for (int64_t c = 0; c < k; c += chunk) {
    const int64_t end = std::min(k, c + chunk), step = std::min(plan.segment, end - c);
    for (int64_t s = c; s < end; s += step) body(s, std::min(step, end - s), s == c, s + step >= end);
  }
}

static int64_t segments(const IntegerPlan& plan, int64_t k) {
  int64_t count = 0;
  if (!plan.short_chunks) each_segment(plan, k, [&](int64_t, int64_t, bool, bool) { ++count; });
  return count;
}

// 32-bit words that one lane of a block of k takes.
static int64_t lane_words(const IntegerPlan& plan, int64_t k, bool halves) {
  int64_t words = 0;
  const int64_t per = per_unit(plan), times = halves ? 2 : 1;
  if (plan.by_steps) return k + ceil_div(k, kStretch);
  if (plan.short_chunks) return k / plan.chunk * ceil_div(plan.chunk, per) + ceil_div(k % plan.chunk, per);
  each_segment(plan, k, [&](int64_t, int64_t count, bool, bool) { words += times * ceil_div(count, per); });
  return words;
}

// The bounds of a stretch's lanes: the sum of each row's magnitudes.
ULPGRAD_INLINE void row_bounds(const float* __restrict from, int64_t k, float* __restrict bounds) {
  float sums[kStepRows] = {};
  for (int64_t s = 0; s < k; ++s)
    for (int l = 0; l < kStepRows; ++l) sums[l] += __builtin_fabsf(from[s * kStepRows + l]);
  for (int l = 0; l < kStepRows; ++l) bounds[l] = sums[l];
}

// The largest magnitude of each column.
ULPGRAD_INLINE void column_bounds(const float* __restrict from, int64_t k, int64_t width, float* __restrict bounds) {
  for (int64_t l = 0; l < width; l += kLanes<float>) {
    Ints most{};
    for (int64_t s = 0; s < k; ++s) {
      const Ints size =
          (Ints)load(from + s * width + l) & broadcast(INT32_MAX);  // floats are in the order of their codes
      most = size > most ? size : most;
    }
    store(bounds + l, (Vec<float>)most);
  }
}

// A stretch of codes as float32, and behind them the bounds of its lanes.
template <typename T>
static void pack_stretch(const Panel<T>& p, int64_t k, float* __restrict out) {
  alignas(64) uint32_t units[kStretch * kStepVectors * kLanes<int32_t> + kUnitSlack];
  const int64_t count = k * p.width;
  pack_units<1>(p, k, units);
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(static_cast<int32_t>(units[i] << 16) >> 16);
  if (p.width == kStepRows) return row_bounds(out, k, out + count);
  column_bounds(out, k, p.width, out + count);
}

template <typename T>
static void pack_panel(const IntegerPlan& plan, Panel<T> p, int64_t k, int32_t* to) {
  uint32_t* out = reinterpret_cast<uint32_t*>(to);
  const T* first = p.from;
  if (plan.by_steps) {
    for (int64_t c = 0; c < k; c += kStretch) {
      const int64_t count = std::min<int64_t>(kStretch, k - c);
      p.from = first + c * p.k_stride;
      pack_stretch(p, count, reinterpret_cast<float*>(out));
      out += (count + 1) * p.width;
    }
    return;
  }
  if (plan.short_chunks) {
    if (plan.chunk == 1) return pack_units<1>(p, k, out);
    for (int64_t c = 0; c < k; c += plan.chunk) {
      const int64_t count = std::min(plan.chunk, k - c);
      p.from = first + c * p.k_stride;
      pack_units<2>(p, count, out);
      out += ceil_div(count, 2) * p.width;
    }
    return;
  }
  each_segment(plan, k, [&](int64_t at, int64_t count, bool, bool) {
    p.from = first + at * p.k_stride;
    if constexpr (sizeof(T) == 1) {
      if (plan.units == Units::bytes) {
        pack_units<4>(p, count, out);
        out += ceil_div(count, 4) * p.width;
        return;
      }
    }
    pack_units<2>(p, count, out);
    out += ceil_div(count, 2) * p.width * (p.halves ? 2 : 1);
  });
}

// Whether B's bytes are moved by 128 into the other range, so that dot products take them beside A's:
// a b = a (b + 128) - 128 a for signed ones, a (b - 128) + 128 a for unsigned ones.
ULPGRAD_INLINE bool moves(const IntegerGemm& g) {
  return g.plan.units == Units::bytes && !g.plan.short_chunks &&
         ((g.a_codes == Codes::uint8) == (g.b_codes == Codes::uint8)) == kMixedBytes;
}

template <typename T>
static void pack_b(const IntegerGemm& g, int64_t j, int64_t cols, int64_t width, int64_t p, int64_t k, int32_t* out) {
  const T* from = static_cast<const T*>(g.b) + p * g.b_row + j * g.b_col;
  const Panel<T> panel{
      from, g.b_col, g.b_row, cols, width, g.n - j, moves(g) ? 0x80808080u : 0, g.plan.units == Units::split};
  pack_panel(g.plan, panel, k, out);
}

static void pack_b(const IntegerGemm& g, int64_t j, int64_t cols, int64_t width, int64_t p, int64_t k, int32_t* out) {
  switch (g.b_codes) {
    case Codes::int8:
      return pack_b<int8_t>(g, j, cols, width, p, k, out);
    case Codes::uint8:
      return pack_b<uint8_t>(g, j, cols, width, p, k, out);
    case Codes::int16:
      return pack_b<int16_t>(g, j, cols, width, p, k, out);
  }
}

// Rows of A over a block of k: where they stand, or packed if that is not unit by unit.
struct RowBlock {
  TileRows part;                  // its first segment
  const int32_t *starts, *tails;  // of each segment, `width` apart
  int64_t width;
  int64_t size;  // of a code in bytes, 0 if they are packed

  RowBlock from(int64_t i) const {
    RowBlock rest = *this;
    rest.part.at += i * part.row, rest.starts += i, rest.tails += i, rest.part.starts = rest.starts;
    if (part.tails) rest.part.tails = rest.tails;
    return rest;
  }
};

ULPGRAD_INLINE bool stands_in_units(const IntegerGemm& g) {
  const int size = g.a_codes == Codes::int16 ? 2 : 1;
  return !g.plan.short_chunks && g.a_col == 1 && per_unit(g.plan) * size == sizeof(int32_t);
}

// What the sums of a segment's rows start from.
static void set_starts(const IntegerGemm& g, const TileRows& rows, bool packed, int64_t count, int64_t width,
                       int32_t* starts) {
  for (int64_t l = 0; l < width; ++l) starts[l] = 0;
#if ULPGRAD_DOTS_BYTES
  if (!moves(g)) return;
  const bool swapped = g.a_codes == Codes::uint8;
  const int32_t factor = g.b_codes == Codes::uint8 ? 128 : -128;
  if (packed) {
    const auto sums = swapped ? vnni::packed_sums<true> : vnni::packed_sums<false>;
    sums(reinterpret_cast<const int32_t*>(rows.at), rows.units, width, factor, starts);
  } else {
    const auto sums = swapped ? vnni::row_sums<true> : vnni::row_sums<false>;
    sums(rows, width, count, factor, starts);
  }
#else
  (void)g, (void)rows, (void)packed, (void)count;
#endif
}

// `memory`: the starts and tails of all segments, then the packed rows. `rows` of `width` are there.
template <typename T>
static RowBlock row_block(const IntegerGemm& g, int64_t i, int64_t rows, int64_t width, int64_t p, int64_t k,
                          int64_t most_segments, int32_t* memory) {
  constexpr int64_t size = sizeof(T);
  const IntegerPlan& plan = g.plan;
  const int64_t per = per_unit(plan);
  const T* from = static_cast<const T*>(g.a) + i * g.a_row + p * g.a_col;
  int32_t *starts = memory, *tails = memory + most_segments * kBlockRows, *packed = tails + most_segments * kBlockRows;
  const bool stands = stands_in_units(g);
  constexpr int64_t word = sizeof(int32_t);
  RowBlock block{
      {reinterpret_cast<const char*>(packed), word, width * word, 0, starts, nullptr}, starts, tails, width, 0};
  if (stands) {
    block.part.at = reinterpret_cast<const char*>(from), block.part.row = g.a_row * size;
    block.part.unit = word, block.size = size;
  } else {
    pack_panel(plan, Panel<T>{from, g.a_row, g.a_col, rows, width, g.m - i, 0, false}, k, packed);
  }
  if (plan.short_chunks) return block;
  const char* at = block.part.at;
  each_segment(plan, k, [&](int64_t first, int64_t count, bool, bool) {
    const int64_t units = ceil_div(count, per), whole = stands ? count / per : units;
    set_starts(g, {at, block.part.row, block.part.unit, units, nullptr, nullptr}, !stands, count, width, starts);
    for (int64_t l = 0; whole < units && l < width; ++l) {
      tails[l] = 0;
      __builtin_memcpy(tails + l, from + first + l * g.a_row + whole * per,
                       static_cast<size_t>(count - whole * per) * sizeof(T));
    }
    if (first == 0) block.part.units = whole, block.part.tails = whole < units ? tails : nullptr;
    starts += width, tails += width, at += stands ? count * size : units * block.part.unit;
  });
  return block;
}

static RowBlock row_block(const IntegerGemm& g, int64_t i, int64_t rows, int64_t width, int64_t p, int64_t k,
                          int64_t most_segments, int32_t* memory) {
  switch (g.a_codes) {
    case Codes::int8:
      return row_block<int8_t>(g, i, rows, width, p, k, most_segments, memory);
    case Codes::uint8:
      return row_block<uint8_t>(g, i, rows, width, p, k, most_segments, memory);
    case Codes::int16:
      break;
  }
  return row_block<int16_t>(g, i, rows, width, p, k, most_segments, memory);
}

// Calls body(rows, units, begins, ends) on each segment of a block of k (see each_segment).
template <typename Body>
ULPGRAD_INLINE void each_part(const IntegerPlan& plan, const RowBlock& block, int64_t k, const Body& body) {
  const int64_t per = per_unit(plan);
  RowBlock rest = block;
  each_segment(plan, k, [&](int64_t, int64_t count, bool begins, bool ends) {
    const int64_t units = ceil_div(count, per), whole = block.size ? count / per : units;
    const TileRows& first = block.part;
    body(TileRows{rest.part.at, first.row, first.unit, whole, rest.starts, whole < units ? rest.tails : nullptr}, units,
         begins, ends);
    rest.part.at += block.size ? count * block.size : units * first.unit;
    rest.starts += block.width, rest.tails += block.width;
  });
}

}  // namespace ulpgrad::ULPGRAD_ISA
